"""How good is what one gets without a single option, and what would other choices give?

For four kinds of images: a model by `create_vae(data)`, trained by `fit(model, data)`, beside models that differ from it in
one choice, and beside the settings that a shape and ten epochs have. For two kinds of images with a known noise: is the
learned σ the true one? Writes benchmarks/defaults.json: settings, numbers, seconds of one thread, versions. Two hours of one
core; it can be stopped, goes on, and may run several times side by side (--kinds)."""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import vae_nb as v
from icons import icons
from made_with import add_runs
from vae_nb.training.fit import STEPS

RESULT = Path(__file__).with_suffix(".json")
RESNET = dict(encoder="resnet", decoder="resnet")
EIGHT_BITS = 1 / (255 * 12 ** 0.5)
ROWS = {  # name -> options of create_vae, and of fit; "share": of the steps that fit would take
    "defaults": (dict(), dict()),
    "as if epochs=10 were given": (
        dict(latent_dim=16, activation="relu", sigma_floor=EIGHT_BITS), dict(epochs=10)),
    "no noise warm-up": (dict(), dict(noise_warmup=0.0)),
    "σ floor of 8-bit rounding": (dict(sigma_floor=EIGHT_BITS), dict()),
    "σ floor 0.01": (dict(sigma_floor=0.01), dict()),
    "residual networks, as long": (RESNET, dict(share=0.37)),
}
MORE = {  # tried on one kind only
    "σ floor of 8 bits, no noise warm-up": (dict(sigma_floor=EIGHT_BITS), dict(noise_warmup=0.0)),
    "ReLU": (dict(activation="relu"), dict()),
    "16 latents": (dict(latent_dim=16), dict()), "128 latents": (dict(latent_dim=128), dict()),
    "batches of 128, as many images": (dict(), dict(batch_size=128, share=0.25)),
    "learning rate 0.001": (dict(), dict(lr=1e-3)),
}
KINDS = "icons", "photo-patches", "sprites", "mnist-10k"
NOISES = {  # kind -> name -> options of create_vae
    "noisy-pixelwise": {"defaults": dict()},
    "noisy-imagewise": {"defaults": dict(noise="imagewise"), "pixels alone": dict(noise="imagewise", roughness=False)},
}


def loaded(kind):
    if kind != "icons": return v.load_data(kind, progress=False)
    return v.load_data(icons(4000, 32), progress=False)


def trained(data, model, fit, seed):
    "A model, and the seconds of processor time that its training took."
    torch.manual_seed(seed)
    model, fit, start = v.create_vae(data, **model), dict(fit), time.process_time()
    if share := fit.pop("share", None):
        steps = share * STEPS
        fit["epochs"] = round(steps * fit.setdefault("batch_size", 32) / len(data.train))
        fit = dict(lr=2e-3, schedule="warmup", noise_warmup=0.2) | fit
    history = v.fit(model, data, seed=seed, progress=False, **fit)
    return model, history, time.process_time() - start


def against_truth(model, data):
    "Of the test images: mean of learned over true σ, and their rank correlation."
    from scipy.stats import spearmanr
    x, true = torch.as_tensor(data.test[:]), data.truth["test"]["sigma"]
    with v.evaluating(model): sigma = model.reconstruct(x).stddev
    if true[0].numel() == 1: sigma, true = sigma.flatten(1).mean(1), true.flatten()
    ratio = (sigma / true).flatten()
    return dict(mean_ratio=ratio.mean().item(), ratios_5_to_95=np.quantile(ratio, [0.05, 0.95]).tolist(),
                rank=float(spearmanr(sigma.flatten(), true.flatten()).statistic))


def run(kind, name, seed):
    data = loaded(kind)
    model, fit = (NOISES[kind][name], {}) if kind in NOISES else (ROWS | MORE)[name]
    model, history, seconds = trained(data, model, fit, seed)
    row = dict(training_cpu_seconds=round(seconds), epochs=len(history), steps=history[-1]["step"],
               config={key: model.config[key] for key in ("latent_dim", "activation", "sigma_floor", "encoder")},
               valid=v.evaluate(model, data, "valid"), test=v.evaluate(model, data))
    return row | (dict(truth=against_truth(model, data)) if kind in NOISES else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=[*NOISES, *KINDS], help="of images")
    parser.add_argument("--names", nargs="+", help="of rows; all, if none are given")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    jobs = [dict(kind=kind, name=name, seed=seed) for seed in range(given.seeds) for kind in given.kinds
            for name in NOISES.get(kind) or [*ROWS, *(MORE if kind == "icons" else {})] if name in (given.names or [name])]
    add_runs(RESULT, jobs, run, lambda row: (row["training_cpu_seconds"], row["valid"], row.get("truth", "")))


if __name__ == "__main__": main()
