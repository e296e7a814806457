"""What does a training step cost, and what would a larger one cost?

Times steps of different batches, image sides, latents, posteriors, samples and devices, counts their work, fits

    seconds = a + b · parameters + c · multiply-adds + d · numbers that pass through elementwise operations

to every second of them and foretells the others. Memory is counted: what a pass forward keeps for the gradient.
Its result, benchmarks/cost_model.json, is read by nbs/experiments/cost_model.ipynb.
"""
import argparse
import json
import os
import platform
import statistics
import time
import warnings
from math import prod
from pathlib import Path

import torch
from scipy.optimize import nnls
from torch import nn
from torch.distributions import LowRankMultivariateNormal

import vae_nb as v
from vae_nb.core import Head, keep_freed_memory, positive
from vae_nb.optimisers import make_optimizer
from vae_nb.training import TrainingStep

HERE = Path(__file__).parent
RANK = 8


class LowRank(Head):
    "N(μ, D(I + VVᵀ)D) with V of shape (L, RANK): the exercise of 05_posteriors."
    def __init__(self, latent_dim):
        super().__init__((latent_dim * (2 + RANK),), (latent_dim,))
        self.latent_dim = latent_dim

    def distribution(self, raw):
        L = self.latent_dim
        mean, raw_sigma, V = raw.split([L, L, L * RANK], -1)
        sigma = positive(raw_sigma, 1e-4)
        factor = sigma.unsqueeze(-1) * V.unflatten(-1, (L, RANK)) / L ** 0.5
        return LowRankMultivariateNormal(mean, factor, sigma.square(), validate_args=False)


def mlp(batch=128, latent_dim=20, posterior="mean_field", k=1):
    return dict(batch=batch, k=k, model=dict(image_shape=(1, 28, 28), latent_dim=latent_dim, encoder="mlp", decoder="mlp",
                                             hidden=(400,), posterior=posterior, likelihood="bernoulli"))


def cnn(side, batch=16):
    return dict(batch=batch, k=1, model=dict(image_shape=(3, side, side), latent_dim=32, likelihood="gaussian"))


FAMILIES = { # what grows: cases, in order
    "batch": {B: mlp(batch=B) for B in (16, 32, 64, 128, 256, 512, 1024, 2048)},
    "samples": {k: mlp(k=k) for k in (1, 2, 4, 8, 16, 32)},
    "side": {side: cnn(side) for side in (16, 24, 32, 48, 64, 96, 128)},
    **{f"latents, {posterior}": {L: mlp(latent_dim=L, posterior=posterior) for L in (8, 16, 32, 64, 128, 256)}
       for posterior in ("mean_field", "low_rank", "full_covariance")},
}


def build(case):
    torch.manual_seed(0)
    options = dict(case["model"])
    if options.get("posterior") == "low_rank": options["posterior"] = LowRank(options["latent_dim"])
    return v.create_vae(**options)


def count(model, case):
    "Parameters, multiply-adds of a step, numbers that layers and distributions give in a step."
    work, passed, hooks = 0, 0, []
    def look(layer, inputs, out):
        nonlocal work, passed
        passed += out.numel()
        if isinstance(layer, nn.Linear): work += out.numel() * layer.in_features
        elif isinstance(layer, nn.ConvTranspose2d): work += inputs[0].numel() * layer.out_channels * prod(layer.kernel_size)
        elif isinstance(layer, nn.Conv2d): work += out.numel() * layer.in_channels * prod(layer.kernel_size)
    for layer in model.modules():
        if not list(layer.children()): hooks.append(layer.register_forward_hook(look))
    terms = model(torch.rand(case["batch"], *model.image_shape).round(), case["k"])
    for hook in hooks: hook.remove()
    passed += 2 * terms.p.mean.numel()
    if hasattr(terms.q, "scale_tril"): passed += 2 * terms.q.scale_tril.numel()
    if hasattr(terms.q, "cov_factor"): passed += 2 * terms.q.cov_factor.numel()
    return dict(parameters=sum(p.numel() for p in model.parameters()), multiply_adds=3 * work, numbers=passed)


def kept(model, case):
    "Bytes that a pass forward keeps for the gradient, besides the weights."
    known, storages = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}
    def pack(t):
        if (place := t.untyped_storage().data_ptr()) not in known: storages[place] = t.untyped_storage()
        return t
    x = torch.rand(case["batch"], *model.image_shape).round()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value, _ = TrainingStep(model, v.elbo, None, case["k"])(x)
    return sum(storage.nbytes() for storage in storages.values())


def stepper(model, case):
    step, optimizer = TrainingStep(model, v.elbo, None, case["k"]), make_optimizer("adam", model, 1e-3)
    x = torch.rand(case["batch"], *model.image_shape).round()
    def run():
        value, _ = step(x)
        (-value / len(x)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return run


def seconds(run, at_least=0.15):
    "Of one step: the mean over as many as it takes."
    start, n = time.perf_counter(), 0
    while n < 2 or time.perf_counter() - start < at_least: run(); n += 1
    return (time.perf_counter() - start) / n


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=HERE / "cost_model.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    rows = [dict(family=family, value=value, batch=case["batch"], k=case["k"]) for family, cases in FAMILIES.items()
            for value, case in cases.items()]
    cases = [case for family in FAMILIES.values() for case in family.values()]
    runs = []
    for row, case in zip(rows, cases):
        model = build(case)
        row |= dict(count(model, case), kept_bytes=kept(model, case))
        runs.append(stepper(model, case))
    times = [[] for _ in rows]
    for round_ in range(args.rounds + 1):
        for run, found in zip(runs, times):
            if (t := seconds(run)) and round_: found.append(t)
    for row, found in zip(rows, times): row["seconds"] = statistics.median(found)
    features = lambda row: [1.0, row["parameters"], row["multiply_adds"], row["numbers"]]
    fitted = rows[::2]
    A = torch.tensor([features(row) for row in fitted], dtype=torch.float64)
    t = torch.tensor([row["seconds"] for row in fitted], dtype=torch.float64)
    scale = A.abs().amax(0)
    coefficients, _ = nnls((A / scale / t[:, None]).numpy(), torch.ones_like(t).numpy())  # relative errors
    coefficients = [float(c / s) for c, s in zip(coefficients, scale)]
    for i, row in enumerate(rows):
        row["fitted"], row["foretold"] = i % 2 == 0, sum(c * f for c, f in zip(coefficients, features(row)))
    result = dict(coefficients=dict(zip(("step", "parameter", "multiply_add", "number"), coefficients)), rows=rows, rounds=args.rounds,
                  rank=RANK, seed=0, machine=f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
                  f"{torch.backends.cpu.get_cpu_capability()}", versions={"torch": torch.__version__, "python": platform.python_version()},
                  date=time.strftime("%Y-%m-%d"))
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    for row in rows: print(f"{row['family']:26} {row['value']:5} {row['seconds'] * 1e3:9.2f} ms, foretold {row['foretold'] * 1e3:9.2f}"
                           f"{' (fitted)' if row['fitted'] else ''}")


if __name__ == "__main__":
    main()
