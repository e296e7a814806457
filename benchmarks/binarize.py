"""What does it cost to binarise a batch of 128 x 784 pixels? The ways to draw x ~ Bernoulli(pixel / 255), compared."""
import os
import platform
import time

import numpy as np
import torch

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


WAYS = {
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
    print(f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}, "
          f"1 thread of {os.cpu_count()} cores")
    times = microseconds(WAYS)
    slowest = times["torch.bernoulli(unit)"]
    for name, t in times.items(): print(f"{name:45} {t:8.0f} µs   torch.bernoulli / this = {slowest / t:5.1f}")
