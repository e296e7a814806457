"""The figures and the table of the README: four models trained on the whole of MNIST, then drawn and measured.

`make figures` needs MNIST (downloaded on first use, or found below VAE_NB_DATA) and about twenty minutes on two cores.
A run that was stopped goes on where it was. Figures and results.json land in nbs/images, models in runs/readme.
"""
import argparse
import json
import os
import time
from pathlib import Path

import torch

import vae_nb as v
from vae_nb.training.runs import versions

ROOT = Path(__file__).resolve().parent.parent
MODELS = {  # name: (load_data, create_vae, fit)
    "pixelwise": ({}, dict(latent_dim=16, noise="pixelwise"), dict(beta_nll=0.5, kl_weight=0.1)),
    "imagewise": ({}, dict(latent_dim=32, noise="imagewise", posterior="full_covariance"), {}),
    "bernoulli": (dict(binarize="dynamic"), dict(latent_dim=16, likelihood="bernoulli"), {}),
    "homoscedastic": ({}, dict(latent_dim=16, noise="homoscedastic"), {}),
}


def train(name, epochs, out):
    "One model, from its checkpoint if there is one; the model, its data and its results."
    data_options, model_options, fit_options = MODELS[name]
    data = v.load_data("mnist", **data_options)
    torch.manual_seed(0)
    model = v.create_vae(data.image_shape, encoder="mlp", decoder="mlp", **model_options)
    start = time.perf_counter()
    v.fit(model, data, epochs=epochs, batch_size=128, out=out / name, resume=True, seed=0, **fit_options)
    seconds = time.perf_counter() - start
    numbers = v.evaluate(model, data, k=5)
    return model, data, dict(data="mnist", **data_options,
                             create_vae=dict(encoder="mlp", decoder="mlp", **model_options),
                             fit=dict(epochs=epochs, batch_size=128, **fit_options),
                             seed=0, seconds_of_this_call=round(seconds), k=5,
                             test={key: round(x, 4) for key, x in numbers.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "readme")
    parser.add_argument("--images", type=Path, default=ROOT / "nbs" / "images")
    args = parser.parse_args()
    results = {"versions": versions(), "threads": torch.get_num_threads(), "cores": os.cpu_count(), "models": {}}
    for name in MODELS:
        model, data, results["models"][name] = train(name, args.epochs, args.out)
        print(name, results["models"][name]["test"], flush=True)
        if name == "homoscedastic": continue
        v.pipeline_figure(model, data.test[:3], save=args.images / f"pipeline_{name}.png")
        if name != "pixelwise": continue
        v.prior_figure(model, n=3, save=args.images / "prior.png")
        corners = [int((data.labels["test"] == digit).nonzero()[0]) for digit in (0, 3, 4, 7)]
        v.traversal_figure(model, data.test[corners], save=args.images / "traversal.png")
        v.neighbourhood_figure(model, data.test[corners[1]], save=args.images / "neighbourhood.png")
    (args.images / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
