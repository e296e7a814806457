"""The live explorer of the site's front page: a small model trained on all of MNIST, written as nbs/live/digits.js.

Needs MNIST (downloaded on first use, or found below VAE_NB_DATA) and a few minutes on one core. Settings, seed,
versions and the errors against PyTorch land in nbs/live/digits.json, the model in runs/explorer.
"""
import argparse
import json
import time
from pathlib import Path

import torch

import vae_nb as v
from vae_nb.training.runs import versions

ROOT = Path(__file__).resolve().parent.parent
RECIPE = {"data": "mnist", "latent_dim": 8, "decoder_hidden": [256], "encoder_hidden": [256, 128], "activation": "silu",
          "noise": "pixelwise", "fit": {"epochs": 15, "batch_size": 128, "beta_nll": 0.5, "kl_weight": 0.5}, "seed": 0}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "explorer")
    parser.add_argument("--page", type=Path, default=ROOT / "nbs" / "live" / "digits.js")
    args = parser.parse_args()
    data, shape = v.load_data(RECIPE["data"]), dict(latent_dim=RECIPE["latent_dim"], activation=RECIPE["activation"])
    torch.manual_seed(RECIPE["seed"])
    decoder = v.MLPDecoder(out_shape=(2, 28, 28), hidden=RECIPE["decoder_hidden"], **shape)
    model = v.create_vae(data.image_shape, encoder="mlp", decoder=decoder, hidden=RECIPE["encoder_hidden"],
                         noise=RECIPE["noise"], **shape)
    start = time.perf_counter()
    v.fit(model, data, out=args.out, resume=True, seed=RECIPE["seed"], progress=False, **RECIPE["fit"])
    clock = args.out / "seconds"  # of all calls together, if training was stopped and went on
    seconds = round(time.perf_counter() - start + (float(clock.read_text()) if clock.exists() else 0))
    clock.write_text(str(seconds))
    page = v.export_explorer(model, args.page, data, title="Digits: a latent space to walk through")
    result = {**RECIPE, "test": v.evaluate(model, data), "page": page, "seconds": seconds,
              "versions": versions()}
    args.page.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    v.prior_figure(model, n=6, save=args.out / "prior.png")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
