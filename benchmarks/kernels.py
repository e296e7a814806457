"""What do our own small kernels cost beside PyTorch's? One thread, a batch of 128 x 784 pixels; into kernels.json."""
import json
import time
from pathlib import Path

import numpy as np
import torch
from made_with import made_with
from torch.nn.functional import binary_cross_entropy_with_logits

from vae_nb.basics.numerics import bernoulli_log_prob
from vae_nb.data.binarisation import sample_binary_images, uniform_below_255

torch.manual_seed(0)
torch.set_num_threads(1)
pixels = torch.randint(0, 256, (128, 1, 28, 28), dtype=torch.uint8)
unit, array = pixels / 255, pixels.numpy()
generator, numpy_generator = torch.Generator().manual_seed(0), np.random.default_rng(0)
weights = [torch.randn(shape) / 30 for shape in [(784, 512), (512, 256), (256, 512), (512, 784)]]


def products():
    "The matrix products of a forward pass through a small network: 784-512-256-512-784."
    x = unit.flatten(1)
    for w in weights: x = x @ w
    return x


DRAWS = {  # x ~ Bernoulli(pixel / 255)
    "torch.bernoulli(unit)": lambda: torch.bernoulli(unit, generator=generator),
    "torch.rand < unit": lambda: torch.rand(unit.shape, generator=generator) < unit,
    "torch.randint(0, 255, uint8) < pixels":
        lambda: torch.randint(0, 255, pixels.shape, dtype=torch.uint8, generator=generator) < pixels,
    "Generator.integers(0, 255, uint8) < pixels":
        lambda: numpy_generator.integers(0, 255, array.shape, dtype=np.uint8) < array,
    "uniform_below_255 < pixels": lambda: uniform_below_255(array.shape, numpy_generator) < array,
    "sample_binary_images (the same, as bytes)": lambda: sample_binary_images(pixels, numpy_generator),
    "for comparison: products of a small network": products,
}
logits, binary = torch.randn(50, 128, 784), torch.randint(0, 2, (128, 784)).float()
SUMS = {  # log p(x|z) of 128 binary images under 50 samples of z
    "binary_cross_entropy_with_logits":
        lambda: binary_cross_entropy_with_logits(logits, binary.expand_as(logits), reduction="none").sum(-1),
    "bernoulli_log_prob": lambda: bernoulli_log_prob(logits, binary),
}


def microseconds(ways, repeats=10, rounds=60):
    "The fastest of many short rounds, in which the ways take turns, so that a busy machine is unfair to none."
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, work in ways.items():
            start = time.perf_counter()
            for _ in range(repeats): work()
            best[name] = min(best[name], (time.perf_counter() - start) / repeats)
    return {name: 1e6 * t for name, t in best.items()}


if __name__ == "__main__":
    found = dict(made_with(numpy=np.__version__), draws=microseconds(DRAWS), sums=microseconds(SUMS, repeats=1))
    for times in (found["draws"], found["sums"]):
        first = next(iter(times.values()))
        for name, t in times.items(): print(f"{name:45} {t:8.0f} µs, {t / first:.2f} of the first")
    Path(__file__).with_suffix(".json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
