"""How likely can a model with one stochastic layer make MNIST in two hours on two cores?

Dynamically binarised digits, 40 latents: a residual network, a full-covariance posterior, a mixture of 500 Gaussians as
the prior. First the ELBO (sticking the landing), then the importance-weighted bound with a few samples. Whatever was
chosen, was chosen on validation images (cut from the training images, and never trained on); the test images are
measured once, at the end.

    best_likelihood.py            writes benchmarks/best_likelihood.json. It may be stopped (Ctrl-C) and started again:
                                  it goes on with the next epoch
    best_likelihood.py --choose   what posterior and prior are worth to a smaller model, an MLP with two layers of 300
                                  units, on the validation images; writes benchmarks/likelihood_choices.json

Needs the whole of MNIST (`--data`, else VAE_NB_DATA, else it is downloaded).
"""
import argparse
import json
import os
import time
from pathlib import Path

import torch
from torch import nn

import vae_nb as v
from made_with import made_with
from vae_nb.distributions.posteriors import FullCovariance
from vae_nb.distributions.priors import LearnedMixture
from vae_nb.evaluation.importance import average
from vae_nb.networks.decoders import Upsample2x
from vae_nb.networks.encoders import Network

HERE = Path(__file__).parent
SHAPE, LATENTS, COMPONENTS, VALID = (1, 28, 28), 40, 500, 2000
NARROW, WIDE, HIDDEN = 32, 64, 300  # channels at 14×14 and at 7×7; units between maps and latents
STAGES = { # name: keywords of `fit`
    "elbo": dict(epochs=60, batch_size=256, lr=0.01, objective="elbo_stl", optimizer="muon", precision="bf16"),
    "iwae": dict(epochs=6, batch_size=256, lr=0.004, objective="iwae_dreg", k=5, optimizer="muon", precision="bf16"),
}
CHOICES = { # posterior, is the prior a mixture?
    "mean field, standard normal": ("mean_field", False),
    "full covariance, standard normal": ("full_covariance", False),
    "mean field, mixture": ("mean_field", True),
    "full covariance, mixture": ("full_covariance", True),
}


class Residual(nn.Module):
    "Maps, and what two convolutions add to them (He et al. 2016)."
    def __init__(self, channels):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        for layer, gain in ((self.first, 1.0), (self.second, 0.3)):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            with torch.no_grad(): layer.weight *= gain

    def forward(self, x): return x + self.second(nn.functional.silu(self.first(nn.functional.silu(x))))


def build():
    posterior = FullCovariance(LATENTS)
    raw, flat = posterior.param_shape, WIDE * 7 * 7
    down = [nn.Conv2d(1, NARROW, 5, 2, 2), Residual(NARROW), nn.SiLU(),
            nn.Conv2d(NARROW, WIDE, 3, 2, 1), Residual(WIDE), nn.SiLU(),
            nn.Flatten(), nn.Linear(flat, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, *raw)]
    up = [nn.Linear(LATENTS, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, flat), nn.Unflatten(1, (WIDE, 7, 7)),
          Residual(WIDE), nn.SiLU(),
          Upsample2x(WIDE, NARROW, (14, 14), 3), Residual(NARROW), nn.SiLU(), Upsample2x(NARROW, 1, (28, 28), 5)]
    encoder, decoder = (Network(*ends, layers).to(memory_format=torch.channels_last)
                        for ends, layers in (((SHAPE, raw), down), (((LATENTS,), SHAPE), up)))
    return v.create_vae(SHAPE, LATENTS, encoder, decoder, posterior, "bernoulli",
                        prior=LearnedMixture(LATENTS, COMPONENTS))


def spent(folder, more=0.0):
    "Seconds of processor time that all runs in this folder have taken, and `more`."
    file = folder / "processor_seconds"
    total = more + (float(file.read_text()) if file.exists() else 0)
    if more: file.write_text(f"{total}")
    return total


def train(args, data):
    "The trained model, and the history of each stage."
    torch.manual_seed(args.seed)
    model, histories = build(), {}
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    for stage, options in STAGES.items():
        folder = args.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        try: histories[stage] = v.fit(model, data, out=folder, resume=True, seed=args.seed, **options)
        finally: spent(folder, time.process_time() - start)
        if len(histories[stage]) < options["epochs"]:
            raise SystemExit(f"stopped in stage {stage!r}; start again to go on")
    return model, histories


def best(args, data):
    "Train, and measure the test images."
    model, histories = train(args, data)
    start, found = time.perf_counter(), v.log_likelihood(model, data.test, k=args.k, details=True)
    poor = (~found["believed"]).sum().item()
    elbo = {f"k=5 {name}": round(value, 3) for name, value in v.evaluate(model, data, k=5).items()}
    return dict(model=dict(latents=LATENTS, channels=(NARROW, WIDE), hidden=HIDDEN, components=COMPONENTS,
                           posterior="full_covariance", parameters=sum(p.numel() for p in model.parameters())),
                fit=STAGES, valid=VALID, seed=args.seed,
                processor_seconds={stage: round(spent(args.folder / stage)) for stage in STAGES},
                history={stage: [{name: round(row[name], 3) for name in ("epoch", "train_elbo", "valid_elbo")}
                                 for row in history] for stage, history in histories.items()},
                k=args.k, test={**average(found), "images": len(data.test), "images_not_believed": poor, **elbo},
                evaluation_seconds=round(time.perf_counter() - start))


def compare_choices(args, data):
    "The log-likelihood of validation images for each posterior and prior, after the same training."
    options, rows = dict(STAGES["elbo"], epochs=args.epochs, batch_size=512, lr=0.012), {}
    train_only = v.Data(train=data.train, valid=data.valid[:0], test=data.test[:0], binarize="dynamic")
    for name, (posterior, mixture) in CHOICES.items():
        torch.manual_seed(args.seed)
        model = v.create_vae(SHAPE, LATENTS, "mlp", "mlp", posterior, "bernoulli", hidden=(300, 300), activation="silu",
                             prior=LearnedMixture(LATENTS, COMPONENTS) if mixture else None)
        history = v.fit(model, train_only, seed=args.seed, progress=False, **options)
        rows[name] = dict(train_elbo=history[-1]["train_elbo"],
                          **average(v.log_likelihood(model, data.valid, k=200, details=True)))
        print(f"{name:35} {rows[name]['log_likelihood']:8.2f}", flush=True)
    return dict(rows=rows, fit=options, hidden=(300, 300), activation="silu", latents=LATENTS, components=COMPONENTS,
                k=200, images=len(data.valid), seed=args.seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("VAE_NB_DATA"), help="folder of MNIST")
    parser.add_argument("--folder", type=Path, default=Path("runs/best"), help="of checkpoints")
    parser.add_argument("--k", type=int, default=500, help="samples of z for each test image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choose", action="store_true", help="compare posteriors and priors instead")
    parser.add_argument("--epochs", type=int, default=30, help="of each choice")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    data = v.load_data("mnist", root=args.data, valid=VALID, binarize="dynamic")
    result = compare_choices(args, data) if args.choose else best(args, data)
    result |= made_with()
    out = args.out or HERE / ("likelihood_choices.json" if args.choose else "best_likelihood.json")
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result.get("test"), indent=1))


if __name__ == "__main__":
    main()
