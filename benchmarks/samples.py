"""How much of the way from samples of the prior to reconstructions does a density go that is fitted to the codes?

The setting of the original system: CNN, imagewise Gaussian noise, full-covariance posterior; digits; three seeds. Each set of
images is compared with the test images by `sample_quality`. Writes benchmarks/samples.json, and a picture beside the
experiment. A quarter of an hour of one core; it can be stopped, and goes on."""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import vae_nb as v
from made_with import add_runs

RESULT = Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "nbs" / "experiments" / "samples.png"
MODEL = dict(noise="imagewise", posterior="full_covariance", latent_dim=16)
KINDS = {"Gaussian": dict(kind="gaussian"), "mixture of 10": dict(kind="mixture", components=10),
         "mixture of 50": dict(kind="mixture", components=50), "flow": dict(kind="flow")}


def run(seed):
    data = v.load_data("mnist-10k", progress=False)
    torch.manual_seed(seed)
    model, start = v.create_vae(data, **MODEL), time.process_time()
    v.fit(model, data, seed=seed, progress=False)
    row = dict(training_cpu_seconds=round(time.process_time() - start), test=v.evaluate(model, data), quality={}, nats={}, seconds={})
    with v.evaluating(model): reconstructions = torch.cat([model.reconstruct(x).mean for x in data.valid.split(200)])
    sets = {"prior": model}
    for name, options in KINDS.items():
        start = time.process_time()
        sets[name] = v.with_prior(model, v.fit_prior(model, data, seed=seed, **options))
        row["seconds"][name] = round(time.process_time() - start, 1)
        row["nats"][name] = v.evaluate(sets[name], data)["elbo"] - row["test"]["elbo"]
    sets |= {"reconstructions": reconstructions, "training images": data.train[:2000] / 255}
    for name, samples in sets.items(): row["quality"][name] = v.sample_quality(samples, data, seed=seed)
    distance = {name: found["frechet"] for name, found in row["quality"].items()}
    row["closed"] = {name: (distance["prior"] - distance[name]) / (distance["prior"] - distance["reconstructions"]) for name in KINDS}
    if seed == 0: draw(sets, data)
    return row


def draw(sets, data):
    "Ten images of each set, the first ones."
    rows = []
    for name, samples in sets.items():
        if isinstance(samples, v.VAE):
            with v.evaluating(samples, 1): samples = samples.prior_predictive(10).mean
        rows.append(samples[:10])
    v.image_grid(torch.stack(rows), row_labels=list(sets), save=PICTURE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    add_runs(RESULT, [dict(seed=seed) for seed in range(given.seeds)], run,
             lambda row: (row["closed"], {name: round(found["frechet"], 2) for name, found in row["quality"].items()}), model=MODEL)


if __name__ == "__main__": main()
