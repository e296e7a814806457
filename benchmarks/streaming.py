"""5 GB of images trained for an epoch with a tiny MLP, read from a file in two ways, and the anonymous memory it takes.

RssAnon in /proc/self/status is memory that can't be dropped; pages of a mapped file don't count, for the system takes
them back whenever it likes. A thread looks every 20 ms. Each way has a process of its own, so that neither inherits
memory from the other.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset

from made_with import made_with
from vae_nb import Data, IndexedImages, Stream, create_vae, fit

SHAPE = (3, 64, 64)
PIXELS = int(np.prod(SHAPE))


class InFile(IterableDataset):
    "The images of a raw file, one after another."
    def __init__(self, path): self.path = path

    def __iter__(self):
        with open(self.path, "rb") as file:
            while image := file.read(PIXELS): yield torch.frombuffer(bytearray(image), dtype=torch.uint8).view(SHAPE)


def write(path, images, seed=0):
    "Random images: a few bytes of colour each, and noise."
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 64, (1000, *SHAPE), np.uint8)
    with open(path, "wb") as file:
        for i in range(0, images, 1000):
            n = min(1000, images - i)
            file.write((noise[:n] + generator.integers(0, 192, (n, SHAPE[0], 1, 1), np.uint8)).tobytes())


def anonymous():
    "Anonymous resident memory of this process, MB."
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1000


@contextmanager
def watched():
    "A list that will hold the most anonymous memory that was seen inside, MB."
    found, done = [anonymous()], threading.Event()
    def look():
        while not done.wait(0.02): found[0] = max(found[0], anonymous())
    thread = threading.Thread(target=look)
    thread.start()
    try: yield found
    finally:
        done.set()
        thread.join()


def train(kind, path, batch_size):
    "One epoch; memory is counted from when the model is made, before anything of the images is opened."
    torch.manual_seed(0)
    model = create_vae(SHAPE, latent_dim=8, encoder="mlp", decoder="mlp", hidden=(16,), noise="homoscedastic")
    warm = torch.randint(0, 256, (2 * batch_size, *SHAPE), dtype=torch.uint8)
    fit(model, warm, batch_size=batch_size, epochs=1, progress=False)  # what a step needs, before the count begins
    del warm
    n, before = os.path.getsize(path) // PIXELS, anonymous()
    with watched() as most:
        if kind == "memory map": images = IndexedImages(np.memmap(path, np.uint8, "r", shape=(n, *SHAPE)))
        elif kind == "IterableDataset": images = Stream(InFile(path), size=n)
        else: images = torch.from_file(str(path), False, n * PIXELS, dtype=torch.uint8).view(n, *SHAPE).clone()
        empty = torch.empty(0, *SHAPE, dtype=torch.uint8)
        start = time.perf_counter()
        history = fit(model, Data(images, empty, empty), epochs=1, batch_size=batch_size, progress=False)
        seconds = time.perf_counter() - start
    return dict(kind=kind, images=n, MB_before=round(before), MB_growth=round(most[0] - before),
                seconds=round(seconds, 1), images_per_second=round(n / seconds),
                train_elbo=history[-1]["train_elbo"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--kinds", nargs="+", default=["memory map", "IterableDataset"])
    parser.add_argument("--folder", help="for the file of images; a temporary folder if not given")
    parser.add_argument("--out", help="JSON file for the results")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(*args.train, args.batch_size)))
        return
    images = int(args.gigabytes * 1e9) // PIXELS
    results = dict(**made_with(numpy=np.__version__), seed=0, batch_size=args.batch_size, image_shape=SHAPE,
                   gigabytes=images * PIXELS / 1e9, runs=[])
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.2 * images * PIXELS:
            raise SystemExit(f"{args.gigabytes} GB of images need more than the {free / 1e9:.1f} GB that are free; "
                             "--folder names another disk")
        path = Path(folder, "images.raw")
        write(path, images)
        for kind in args.kinds:
            command = [sys.executable, __file__, "--train", kind, str(path), "--batch-size", str(args.batch_size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results["runs"].append(run := json.loads(done.stdout.splitlines()[-1]))
            print(f"{kind:16} {run['images']:,} images, {results['gigabytes']:.2f} GB: "
                  f"anonymous memory grew by {run['MB_growth']} MB; "
                  f"{run['images_per_second']:,} images/s", flush=True)
    if args.out: Path(args.out).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
