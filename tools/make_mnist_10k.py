"""Make vae_nb/bundled/mnist_10k.npz from the original MNIST files: python tools/make_mnist_10k.py FOLDER

FOLDER holds MNIST in torchvision's layout (default: VAE_NB_DATA). The same input gives the same pixels, labels and
numbers; the compressed file is the same byte for byte under the same versions of NumPy and zlib.
"""
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST

TARGET = Path(__file__).parent.parent / "vae_nb" / "bundled" / "mnist_10k.npz"
ORIGINAL = "6bbc9ace898e44ae57da46a324031adb"  # MD5 of train-images-idx3-ubyte
SIZES = {"train": 8000, "test": 2000}


def sample(folder, seed=0):
    "A fair draw without replacement from each half of MNIST, in random order, with the images' places there."
    found = hashlib.md5((Path(folder) / "MNIST/raw/train-images-idx3-ubyte").read_bytes()).hexdigest()
    if found != ORIGINAL: raise ValueError(f"train-images-idx3-ubyte has MD5 {found}; expected {ORIGINAL}")
    generator, arrays = np.random.default_rng(seed), {}
    for split, size in SIZES.items():
        mnist = MNIST(folder, train=split == "train")
        index = generator.permutation(len(mnist))[:size]
        arrays[f"{split}_images"] = mnist.data.numpy()[index]                      # (size, 28, 28) uint8
        arrays[f"{split}_labels"] = mnist.targets.numpy()[index].astype(np.uint8)  # (size,)
        arrays[f"{split}_index"] = index.astype(np.uint16)                         # (size,) positions in MNIST
    return arrays


def checksum(arrays):
    "SHA-256 over the bytes of all arrays, in the order of their names: it does not depend on the compression."
    digest = hashlib.sha256()
    for name in sorted(arrays): digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("VAE_NB_DATA")
    if not folder: sys.exit(__doc__)
    arrays = sample(folder)
    TARGET.parent.mkdir(exist_ok=True)
    np.savez_compressed(TARGET, **arrays)
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")
    print(f"sha256 of the file:   {hashlib.sha256(TARGET.read_bytes()).hexdigest()}")
    print(f"sha256 of the arrays: {checksum(arrays)}")
