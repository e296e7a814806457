"""Does a larger weight on the KL, or on the total correlation alone, take the factors of sprites apart?

Trains a VAE, a β-VAE and a β-TC-VAE, each with three seeds, and measures how well their latents agree with the known
factors. Writes benchmarks/disentanglement.json: settings, scores of each run, seconds, versions. One thread, a quarter of
an hour. Can be stopped at any moment: run it again and it goes on."""
import argparse
import json
import os
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sklearn
import torch

import vae_nb as v
from made_with import made_with
from vae_nb.core import moments_of
from vae_nb.evaluation.latents import first_images
from vae_nb.models.inference import raw_posterior
from vae_nb.models.tensor_files import replace_file

RESULT = Path(__file__).with_suffix(".json")
MODEL = dict(latent_dim=10, channels=(16, 32, 32), noise="homoscedastic", sigma=0.1)
FIT = dict(epochs=14, batch_size=64, lr=2e-3)
METHODS = {"VAE": dict(), "β-VAE": dict(kl_weight=40.0), "β-TC-VAE": dict(tc_weight=40.0)}


def options(method):
    "Of `fit`."
    given = METHODS[method]
    return dict(objective=partial(v.tc_vae, **given)) if "tc_weight" in given else given


def measured(method, seed, data):
    "Train one model; its numbers on the test images."
    torch.manual_seed(seed)
    model, start = v.create_vae(data.image_shape, **MODEL), time.process_time()
    v.fit(model, data, seed=seed, progress=False, **FIT, **options(method))
    seconds = time.process_time() - start
    x, _ = first_images(model, data)
    with v.evaluating(model): z = moments_of(model.encoder.head(raw_posterior(model, x))).mean
    return dict(method=method, seed=seed, training_cpu_seconds=round(seconds, 1), evaluate=v.evaluate(model, data),
                scores=v.disentanglement(z, data.truth["test"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each method")
    seeds = parser.parse_args().seeds
    data = v.load_data("sprites")
    made = dict(script="benchmarks/disentanglement.py", data=data.digest, model=MODEL, fit=FIT, methods=METHODS)
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if any(report.get(name) != value for name, value in json.loads(json.dumps(made)).items()):
        report = made | {"runs": []}
    done = {(run["method"], run["seed"]) for run in report["runs"]}
    for seed in range(seeds):
        for method in METHODS:
            if (method, seed) in done: continue
            report["runs"].append(run := measured(method, seed, data))
            report |= made_with(sklearn=sklearn.__version__)
            text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
            replace_file(RESULT, lambda temporary: Path(temporary).write_text(text))
            print(method, seed, {name: round(s["score"], 3) for name, s in run["scores"].items()}, run["evaluate"],
                  f"{run['training_cpu_seconds']} s", flush=True)


if __name__ == "__main__":
    main()
