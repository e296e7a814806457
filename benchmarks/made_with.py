"""What a benchmark's numbers were made with."""
import os
import platform
import time

import torch

from vae_nb.training.acceleration import has_bfloat16
from vae_nb.training.runs import versions


def made_with(**more): # versions of other packages
    "Versions, machine and date, for a JSON file."
    machine = (f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
               f"{torch.backends.cpu.get_cpu_capability()}")
    if has_bfloat16(torch.device("cpu")): machine += " with bfloat16"
    if torch.cuda.is_available(): machine += f"; {torch.cuda.get_device_name()}"
    return dict(versions=versions() | more, machine=machine, date=time.strftime("%Y-%m-%d"))
