"""What a training step costs with each likelihood, as a multiple of the same step with a pixelwise Gaussian."""
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from made_with import made_with

import vae_nb as v
from vae_nb.models.vae import LIKELIHOOD_OPTIONS
from vae_nb.training.fit import TrainingStep

NETWORKS = {"mlp 28×28×1": ((1, 28, 28), dict(encoder="mlp", decoder="mlp", hidden=(256,))),
            "cnn 32×32×3": ((3, 32, 32), dict(encoder="cnn", decoder="cnn", channels=(16, 32)))}
ROUNDS, STEPS, BATCH = 5, 4, 64


def stepper(shape, likelihood, options):
    "A function that takes some training steps and gives the seconds of one; and the number of weights."
    torch.manual_seed(0)
    model = v.create_vae(shape, 16, likelihood=likelihood, **options)
    x = torch.rand(BATCH, *shape).round() if likelihood == "bernoulli" else (torch.rand(BATCH, *shape) * 255).round() / 255
    step, optimizer = TrainingStep(model, v.elbo, None, 1), torch.optim.Adam(model.parameters(), fused=True)
    def run():
        begin = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad()
            value, _ = step(x)
            (-value / BATCH).backward()
            optimizer.step()
        return (time.perf_counter() - begin) / STEPS
    return run, sum(p.numel() for p in model.parameters())


def measure():
    found = {}
    for network, (shape, options) in NETWORKS.items():
        made = {name: stepper(shape, name, options) for name in LIKELIHOOD_OPTIONS}
        for run, _ in made.values(): run()
        rounds = [{name: run() for name, (run, _) in made.items()} for _ in range(ROUNDS)]  # side by side
        found[network] = {name: dict(ratio=round(statistics.median(r[name] / r["gaussian"] for r in rounds), 2), weights=made[name][1])
                          for name in LIKELIHOOD_OPTIONS}
        found[network]["gaussian"]["milliseconds"] = round(1000 * statistics.median(r["gaussian"] for r in rounds), 1)
    return found


if __name__ == "__main__":
    if set(sys.argv[1:]) & {"-h", "--help"}: sys.exit("python benchmarks/likelihoods.py [threads]: writes benchmarks/likelihoods.json")
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    result = dict(made_with=made_with(), batch=BATCH, rounds=ROUNDS, steps=measure())
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for network, rows in result["steps"].items(): print(network, {name: row["ratio"] for name, row in rows.items()})
