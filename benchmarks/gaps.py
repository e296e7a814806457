"""How many nats lie between log p(x) and the ELBO, and how many of them does refinement take away?

Static binarised digits, an MLP with 16 latents, three posteriors, three seeds; 200 test images. log p(x) is estimated with 5,000
samples of the refined posterior, the ELBOs with 256. Writes benchmarks/gaps.json. Ten minutes of one core; it can be stopped, and
goes on."""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import vae_nb as v
from made_with import add_runs
from vae_nb.models.inference import log_weights

RESULT = Path(__file__).with_suffix(".json")
MODEL = dict(latent_dim=16, encoder="mlp", decoder="mlp", hidden=(256,), likelihood="bernoulli", activation="silu")
FIT = dict(epochs=20, batch_size=64, lr=2e-3, progress=False)
IMAGES, STEPS = 200, (0, 5, 20, 100, 500)
POSTERIORS = "mean_field", "full_covariance", "low_rank"


def run(posterior, seed):
    data = v.load_data("mnist-10k", binarize="static", progress=False)
    torch.manual_seed(seed)
    model, start = v.create_vae(data, posterior=posterior, **MODEL), time.process_time()
    v.fit(model, data, seed=seed, **FIT)
    row = dict(training_cpu_seconds=round(time.process_time() - start, 1), test=v.evaluate(model, data), steps=[])
    x = model.prepare(data.test[:IMAGES])
    elbos = {}
    for steps in STEPS:
        start = time.process_time()
        q = v.refine(model, x, steps) if steps else model.encode(x)
        seconds = time.process_time() - start
        with v.evaluating(model, 1): elbos[steps] = torch.cat([*log_weights(model, x, q, 256, 64)]).mean(0)
        row["steps"].append(dict(steps=steps, cpu_seconds=round(seconds, 2)))
    with v.evaluating(model, 2):
        log_w = torch.cat([*log_weights(model, x, q, 5000, 100)])  # of the most refined posterior
        log_p = log_w.logsumexp(0) - torch.log(torch.tensor(float(len(log_w))))
        share = log_w.softmax(0)
        row["effective_sample_size"] = (1 / share.square().sum(0)).median().item()
    for found in row["steps"]:
        gap = (log_p - elbos[found["steps"]]).double()
        found |= dict(gap=gap.mean().item(), standard_error=(gap.std() / len(gap) ** 0.5).item(), elbo=elbos[found["steps"]].mean().item())
    return row | dict(log_likelihood=log_p.mean().item())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    jobs = [dict(posterior=posterior, seed=seed) for seed in range(given.seeds) for posterior in POSTERIORS]
    add_runs(RESULT, jobs, run, lambda row: ([(s["steps"], round(s["gap"], 2)) for s in row["steps"]], round(row["effective_sample_size"])),
             model=MODEL, fit=FIT, images=IMAGES)


if __name__ == "__main__": main()
