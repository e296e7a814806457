"""Images per second in training: `vae_nb.fit` beside a plain PyTorch loop over a torchvision DataLoader, same network, same batch.

Rounds are interleaved, so that a busy machine slows both; medians and their ratio are printed.
Runs on the bundled digits, written out in MNIST's own format for torchvision to read.
"""
import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.nn.functional import softplus
from torch.utils.data import DataLoader

from vae_nb import create_vae, fit, load_data


def write_mnist(images, labels, root):
    "The training files of torchvision's MNIST."
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        header = np.array([0x803, *images[:, 0].shape], dtype=">i4").tobytes()
        (raw / f"{half}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = np.array([0x801, len(labels)], dtype=">i4").tobytes()
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())


def plain_epoch(model, loader, optimizer):
    "What one writes by hand: reparameterised z, Gaussian log-density with a σ per pixel, KL in closed form."
    encoder, decoder = model.encoder.network, model.decoder.network
    for x, _ in loader:
        mean, raw = encoder(x).chunk(2, 1)
        sigma = softplus(raw) + 1e-4
        z = mean + sigma * torch.randn_like(sigma)
        raw_mean, raw_sigma = decoder(z).chunk(2, 1)
        pixel_sigma = softplus(raw_sigma) + 1e-3
        log_px = torch.distributions.Normal(raw_mean.sigmoid(), pixel_sigma).log_prob(x).flatten(1).sum(1)
        kl = (0.5 * (mean ** 2 + sigma ** 2 - 1) - sigma.log()).sum(1)
        loss = -(log_px - kl).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def race(contestants, images, rounds):
    "Median images per second of each contestant, over interleaved rounds; the first round warms up."
    speeds = {name: [] for name in contestants}
    for i in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if i: speeds[name].append(images / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in speeds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    args = parser.parse_args()
    data = load_data("mnist-10k", valid=0)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {platform.python_version()}, "
          f"{torch.get_num_threads()} threads, {platform.machine()}; batch {args.batch_size}, {args.rounds} rounds of {len(data.train):,} images")
    print(f"{'network':8} {'fit':>12} {'fit, bf16':>12} {'plain loop':>12}   images/s (medians)   {'fit/plain':>10} {'bf16/plain':>10}")
    with tempfile.TemporaryDirectory() as root:
        write_mnist(data.train, data.labels["train"], root)
        dataset = torchvision.datasets.MNIST(root, train=True, transform=torchvision.transforms.ToTensor())
        loader = DataLoader(dataset, batch_size=args.batch_size, shuffle=True)
        for network in ("mlp", "cnn"):
            ours, half, theirs = (create_vae(data.image_shape, encoder=network, decoder=network) for _ in range(3))
            optimizer = torch.optim.Adam(theirs.parameters(), lr=1e-3)
            options = dict(epochs=1, batch_size=args.batch_size, progress=False)
            contestants = {"fit": lambda: fit(ours, data, **options), "bf16": lambda: fit(half, data, precision="bf16", **options),
                           "plain": lambda: plain_epoch(theirs, loader, optimizer)}
            fast, bf16, slow = race(contestants, len(data.train), args.rounds).values()
            print(f"{network:8} {fast:12,.0f} {bf16:12,.0f} {slow:12,.0f} {'':22} {fast / slow:10.2f} {bf16 / slow:10.2f}", flush=True)

    models = {posterior: create_vae(data.image_shape, latent_dim=32, posterior=posterior) for posterior in ("mean_field", "full_covariance")}
    speeds = race({name: lambda model=model: fit(model, data, **options) for name, model in models.items()}, len(data.train), args.rounds)
    print(f"default CNN, 32 latents: mean-field {speeds['mean_field']:,.0f} images/s, full covariance {speeds['full_covariance']:,.0f}; "
          f"a step with full covariance takes {speeds['mean_field'] / speeds['full_covariance']:.2f} times as long")


if __name__ == "__main__":
    main()
