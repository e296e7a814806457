"""The anchor of the field: dynamically binarised MNIST, one stochastic layer of 50, 784-200-200-50, tanh.

Trains on the 60,000 images of MNIST (`--data`, else VAE_NB_DATA), estimates the log-likelihood of the 10,000 test images
with k samples each, and writes both into nbs/experiments/log_likelihood.json, which `12a_importance` reads.
Stopped, it goes on where it was.
"""
import argparse
import json
import platform
import time
from pathlib import Path

import torch

import vae_nb as v
from vae_nb.vae import replace_file

RESULT = Path(__file__).parent.parent / "nbs" / "experiments" / "log_likelihood.json"
MODEL = dict(image_shape=(1, 28, 28), latent_dim=50, encoder="mlp", decoder="mlp", hidden=(200, 200),
             activation="tanh", likelihood="bernoulli")


def train(data, out, **settings):
    "The trained model and the seconds of processor time that this call took."
    torch.manual_seed(settings["seed"])
    model, start = v.create_vae(**MODEL), time.process_time()
    v.fit(model, data, out=out, resume=True, progress=False, **settings)
    return model, time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="folder of MNIST")
    parser.add_argument("--out", default="runs/anchor_100", help="folder of the trained model")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--only-train", action="store_true")
    args = parser.parse_args()
    data = v.load_data("mnist", root=args.data, binarize="dynamic", valid=0)
    settings = dict(epochs=args.epochs, batch_size=100, lr=2e-3, objective="elbo", k=1, schedule="cosine", seed=0)
    model, seconds = train(data, args.out, **settings)
    print(f"trained in {seconds:.0f} s of processor time")
