"""What a benchmark's numbers were made with, and a file of runs that is added to."""
import json
import os
import platform
import time

import torch

from vae_nb.models.tensor_files import replace_file
from vae_nb.training.acceleration import has_bfloat16
from vae_nb.training.runs import versions


def made_with(**more): # versions of other packages
    "Versions, machine and date, for a JSON file."
    machine = (f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
               f"{torch.backends.cpu.get_cpu_capability()}")
    if has_bfloat16(torch.device("cpu")): machine += " with bfloat16"
    if torch.cuda.is_available(): machine += f"; {torch.cuda.get_device_name()}"
    return dict(versions=versions() | more, machine=machine, date=time.strftime("%Y-%m-%d"))


def recorded(result): # the file
    "The runs that are there."
    return json.loads(result.read_text(encoding="utf-8"))["runs"] if result.exists() else []


def add_runs(result, # the file, benchmarks/NAME.json of the script NAME.py
             jobs,   # dicts of what tells a run from others, such as dict(kind="icons", seed=0)
             run,    # from a job's values, by name, to a dict of numbers
             shown,  # from a run to what is printed of it
             **head, # what is written before the runs
             ):
    "Run the jobs that the file doesn't hold, and write each as soon as it is there: it can be stopped, and run side by side."
    for job in jobs:
        if any(job.items() <= row.items() for row in recorded(result)): continue
        row = job | run(**job)
        print(*job.values(), shown(row), flush=True)
        report = dict(script=f"benchmarks/{result.stem}.py", **head, **made_with(), runs=[*recorded(result), row])
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        replace_file(result, lambda path: path.write_text(text, encoding="utf-8"))
