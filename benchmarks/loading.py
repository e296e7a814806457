"""How long does `load_data` look at many small files, and how much memory does it take to load many images?

Makes 100,000 grey PNG files of 28×28 pixels, and 50,000 PNG files in colour of 64×64, in a temporary folder. A process of its
own looks at the first (`limit=1`, so that only three images are decoded), and another loads the second. The files were just
written, so the system reads them from memory. Writes benchmarks/loading.json: seconds, seconds of processor time, and the
peak of resident memory above what the imports take. Linux only: /proc says how much memory a process has. A few minutes."""
import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from made_with import made_with
from vae_nb.models.tensor_files import replace_file

RESULT = Path(__file__).with_suffix(".json")
GOALS = dict(look=dict(seconds=60), load=dict(peak_of_bytes=1.2))


def png(pixels): # (H, W) or (H, W, 3), uint8
    Image.fromarray(pixels).save(file := io.BytesIO(), "png", compress_level=1)
    return file.getvalue()


def write(folder, n, shape):
    "Different pictures, a thousand in each folder: a gradient, and the number of the picture in its first pixels."
    ramp = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.uint8)
    if len(shape) == 3: ramp = np.stack([ramp, ramp.T * 2, 255 - ramp], -1)
    for i in range(n):
        if i % 1000 == 0: (place := folder / f"{i // 1000:03}").mkdir(parents=True)
        pixels = ramp + np.uint8(i % 251)
        pixels.reshape(-1)[:4] = np.frombuffer(i.to_bytes(4, "little"), np.uint8)
        (place / f"{i:06}.png").write_bytes(png(pixels))


def memory(what): # "VmRSS", or its peak "VmHWM"
    "Resident memory of this process, MB."
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024 / 1e6


def measure(kind, folder):
    "In a process of its own; memory is counted from after the imports."
    from vae_nb import load_data
    Image.init()
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start, cpu = time.perf_counter(), time.process_time()
    data = load_data(folder, limit=1 if kind == "look" else None, cache=False, progress=False)
    row = dict(kind=kind, seconds=round(time.perf_counter() - start, 1), cpu_seconds=round(time.process_time() - cpu, 1),
               imports_MB=round(before), peak_MB_above=round(memory("VmHWM") - before), notes=list(data.notes[:1]))
    if kind == "look": return row
    images_MB = sum(data[split].nbytes for split in ("train", "valid", "test")) / 1e6
    return row | dict(images_MB=round(images_MB, 1), peak_of_bytes=round((memory("VmHWM") - before) / images_MB, 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1, help="of the files; 0.01 for a trial, whose result is not written")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(*given.measure), ensure_ascii=False))
        return
    runs = []
    for kind, n, shape in (("look", 100_000, (28, 28)), ("load", 50_000, (64, 64, 3))):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder, "images"), n := round(n * given.share), shape)
            command = [sys.executable, __file__, "--measure", kind, str(Path(folder, "images"))]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(dict(files=n, shape=shape) | json.loads(done.stdout.splitlines()[-1]) | dict(goal=GOALS[kind]))
        print(runs[-1], flush=True)
    report = dict(script="benchmarks/loading.py", **made_with(pillow=PIL.__version__, numpy=np.__version__), OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS"), runs=runs)
    if given.share < 1: return
    replace_file(RESULT, lambda path: path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"))


if __name__ == "__main__": main()
