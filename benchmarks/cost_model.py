"""What does a training step cost, and what would a larger one cost?

Counts the work of steps with different batches, image sides, latents, posteriors and samples, times them, fits

    seconds = a · calls + b · parameters + c · multiply-adds of matrix products + d · those of convolutions
              + e · numbers written

to every second of them and predicts the others; and likewise the time that two processes need to average their
gradients. Memory is counted: what a pass forward keeps for the gradient. The result, nbs/experiments/cost_model.json,
is read by the notebook beside it.
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from scipy.optimize import nnls
from torch.distributions import LowRankMultivariateNormal
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils._pytree import tree_leaves

import vae_nb as v
from made_with import made_with
from vae_nb.basics.numerics import keep_freed_memory, positive
from vae_nb.core import Head
from vae_nb.training.fit import TrainingStep
from vae_nb.training.optimisers import make_optimizer

RESULT, RANK = Path(__file__).parents[1] / "nbs" / "experiments" / "cost_model.json", 8
COUNTS = "calls", "parameters", "products", "convolutions", "numbers"


class LowRank(Head):
    "N(μ, D(I + VVᵀ)D) with V of shape (L, RANK): the exercise of distributions/00_posteriors."
    def __init__(self, latent_dim):
        super().__init__((latent_dim * (2 + RANK),), (latent_dim,))
        self.latent_dim = latent_dim

    def distribution(self, raw):
        L = self.latent_dim
        mean, raw_sigma, V = raw.split([L, L, L * RANK], -1)
        sigma = positive(raw_sigma, 1e-4)
        factor = sigma.unsqueeze(-1) * V.unflatten(-1, (L, RANK)) / L ** 0.5
        return LowRankMultivariateNormal(mean, factor, sigma.square(), validate_args=False)


def mlp(batch=128, latent_dim=20, posterior="mean_field", k=1, hidden=(400,)):
    return dict(batch=batch, k=k,
                model=dict(image_shape=(1, 28, 28), latent_dim=latent_dim, encoder="mlp", decoder="mlp",
                           hidden=hidden, posterior=posterior, likelihood="bernoulli"))


def cnn(side, batch=16):
    return dict(batch=batch, k=1, model=dict(image_shape=(3, side, side), latent_dim=32, likelihood="gaussian"))


FAMILIES = { # what grows: cases, in order
    "batch": {B: mlp(batch=B) for B in (16, 32, 64, 128, 256, 512, 1024, 2048)},
    "samples": {k: mlp(k=k) for k in (1, 2, 4, 8, 16, 32)},
    "side": {side: cnn(side) for side in (16, 24, 32, 48, 64, 96, 128)},
    **{f"latents, {posterior}": {L: mlp(latent_dim=L, posterior=posterior) for L in (8, 16, 32, 64, 128, 256)}
       for posterior in ("mean_field", "low_rank", "full_covariance")},
}
WIDTHS = 100, 200, 400, 800, 1600  # hidden units of the models that two processes train


def build(case):
    torch.manual_seed(0)
    options = dict(case["model"])
    if options.get("posterior") == "low_rank": options["posterior"] = LowRank(options["latent_dim"])
    return v.create_vae(**options)


def images(case): return torch.rand(case["batch"], *case["model"]["image_shape"]).round()


class Numbers(TorchDispatchMode):
    "Counts the operations that run, and the numbers that they write."
    calls = numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        if not operation.is_view:
            self.calls += 1
            self.numbers += sum(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))
        return out


def count(model, run):
    "What a step does: operations, parameters, multiply-adds by kind, numbers written."
    with Numbers() as seen: run()
    with FlopCounterMode(display=False) as flops: run()
    work = {str(name): n // 2 for name, n in flops.get_flop_counts()["Global"].items()}
    convolutions = sum(n for name, n in work.items() if "conv" in name)
    return dict(calls=seen.calls, parameters=sum(p.numel() for p in model.parameters()),
                products=sum(work.values()) - convolutions, convolutions=convolutions, numbers=seen.numbers)


def kept(model, case):
    "Bytes that a pass forward keeps for the gradient, besides the weights."
    known, storages = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}
    def pack(t):
        if (place := t.untyped_storage().data_ptr()) not in known: storages[place] = t.untyped_storage()
        return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value, _ = TrainingStep(model, v.elbo, None, case["k"])(images(case))
    return sum(storage.nbytes() for storage in storages.values())


def stepper(model, case, wrap=lambda step: step):
    step, optimizer, x = (wrap(TrainingStep(model, v.elbo, None, case["k"])),
                          make_optimizer("adam", model, 1e-3), images(case))
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


def fitted(rows, names):
    "Coefficients, none of them negative, that make the relative errors of every second row small."
    A = torch.tensor([[row[name] for name in names] for row in rows[::2]], dtype=torch.float64)
    t, scale = torch.tensor([row["seconds"] for row in rows[::2]], dtype=torch.float64), A.abs().amax(0)
    found, _ = nnls((A / scale / t[:, None]).numpy(), torch.ones_like(t).numpy())
    coefficients = {name: float(c / s) for name, c, s in zip(names, found, scale)}
    for i, row in enumerate(rows):
        row |= dict(fitted=i % 2 == 0, foretold=sum(c * row[name] for name, c in coefficients.items()))
    return coefficients


def steps(rounds):
    "A row for each case, with counts and the median of its times."
    rows, cases = [], [case for family in FAMILIES.values() for case in family.values()]
    for family, members in FAMILIES.items():
        rows += [dict(family=family, value=n, batch=c["batch"], k=c["k"]) for n, c in members.items()]
    models = [build(case) for case in cases]
    runs = [stepper(model, case) for model, case in zip(models, cases)]
    for row, model, case, run in zip(rows, models, cases, runs):
        row |= dict(count(model, run), kept_bytes=kept(model, case))
    times = [[seconds(run) for run in runs] for _ in range(rounds + 1)][1:]
    for row, found in zip(rows, zip(*times)): row["seconds"] = statistics.median(found)
    return rows


def worker(rounds):
    "One of two processes: seconds of a step by itself and of one that averages gradients, for each width."
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = []
    for width in WIDTHS:
        case, times = mlp(hidden=(width,)), {}
        for name, wrap in (("alone", lambda step: step), ("together", DistributedDataParallel)):
            model = build(case)
            run = stepper(model, case, wrap)
            for _ in range(20): run()
            times[name] = run
        measured = {name: [] for name in times}
        for _ in range(rounds):
            for name, run in times.items():
                torch.distributed.barrier()
                start = time.perf_counter()
                for _ in range(50): run()
                measured[name].append((time.perf_counter() - start) / 50)
        found.append(dict(width=width, parameters=sum(p.numel() for p in model.parameters()),
                          **{name: statistics.median(values) for name, values in measured.items()}))
    if torch.distributed.get_rank() == 0: print(json.dumps(found))
    torch.distributed.destroy_process_group()


def exchange(rounds):
    "What averaging gradients adds to a step of two processes, and the seconds a call and a parameter that fit it."
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    place = dict(os.environ, MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2", OMP_NUM_THREADS="1")
    words = [sys.executable, __file__, "--worker", "--rounds", str(rounds)]
    workers = [subprocess.Popen(words, env=dict(place, RANK=str(rank)), stdout=subprocess.PIPE, text=True)
               for rank in range(2)]
    rows = json.loads([worker.communicate()[0] for worker in workers][0])
    for row in rows: row |= dict(steps=1, seconds=row["together"] - row["alone"])
    return dict(coefficients=fitted(rows, ("steps", "parameters")), rows=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=RESULT)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    if args.worker: return worker(args.rounds)
    rows = steps(args.rounds)
    result = dict(coefficients=fitted(rows, COUNTS), rows=rows, exchange=exchange(args.rounds),
                  rounds=args.rounds, rank=RANK, seed=0,
                  **made_with())
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print({name: f"{c:.2e} s" for name, c in result["coefficients"].items()})
    for row in rows:
        print(f"{row['family']:26} {row['value']:5} {row['seconds'] * 1e3:9.2f} ms, "
              f"foretold {row['foretold'] * 1e3:9.2f}{' (fitted)' if row['fitted'] else ''}")
    for row in result["exchange"]["rows"]:
        print({name: row[name] for name in ("width", "alone", "together", "foretold")})


if __name__ == "__main__":
    main()
