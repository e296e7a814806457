"""How far does ten minutes' training take the network of Burda et al. (2016)?

Dynamically binarised MNIST, 784-200-200-50, one stochastic layer: `recipe("burda")`, a training of fixed length, and at
its end, not counted in its time, one estimate of the log-likelihood of the 10,000 test images (a fixed draw) with
k=5000 samples each.
Their own number, after 3,280 epochs, is -86.76.

    time_to_nll.py            train on all 60,000 images and measure the test images; writes benchmarks/time_to_nll.json
    time_to_nll.py --choose   what the recipe's choices are worth: each changed by itself, for the same processor time,
                              measured on 5,000 validation images; writes benchmarks/recipe_choices.json

Needs the whole of MNIST (`--data`, else VAE_NB_DATA, else it is downloaded).
"""
import argparse
import json
import time
from pathlib import Path

import torch

import vae_nb as v
from made_with import made_with
from vae_nb.evaluation.importance import average
from vae_nb.training.devices import processes

HERE = Path(__file__).parent
CHOICES = { # name: (changes of the model, changes of fit)
    "the recipe": ({}, {}),
    "tanh, as Burda et al.": (dict(activation="tanh"), {}),
    "relu": (dict(activation="relu"), {}),
    "a random start": ({}, dict(init="random")),
    "Adam, lr 0.003": ({}, dict(optimizer="adam", lr=3e-3)),
    "Adam, lr 0.001": ({}, dict(optimizer="adam", lr=1e-3)),
    "half the learning rate": ({}, dict(lr=0.5)),
    "twice the learning rate": ({}, dict(lr=2.0)),
    "batches of 128": ({}, dict(batch_size=128)),
    "batches of 1024": ({}, dict(batch_size=1024)),
    "constant learning rate": ({}, dict(schedule="constant")),
    "the plain ELBO's gradient": ({}, dict(objective="elbo")),
    "IWAE, k=5": ({}, dict(objective="iwae_dreg", k=5)),
    "float32": ({}, dict(precision="fp32")),
    "Adam, tanh, a random start": (dict(activation="tanh"), dict(optimizer="adam", lr=1e-3, init="random")),
}


def train(data, model_options, fit_options):
    "A trained model, the seconds that it took by the clock, and the seconds of processor time."
    torch.manual_seed(fit_options["seed"])
    model = v.create_vae(**model_options)
    clock, processor = time.perf_counter(), time.process_time()
    history = v.fit(model, data, progress=False, **fit_options)
    return model, history, round(time.perf_counter() - clock, 1), round(time.process_time() - processor, 1)


def reach(args):
    recipe = v.recipe("burda")
    recipe["fit"] |= {} if args.epochs is None else dict(epochs=args.epochs)
    recipe["fit"] |= dict(seed=args.seed) | (dict(compile=args.compile) if args.compile else {})
    data = v.load_data(**recipe["data"], root=args.data)
    model, history, seconds, processor = train(data, recipe["model"], recipe["fit"])
    print(f"{len(history)} epochs in {seconds:.0f} s; train ELBO {history[-1]['train_elbo']:.2f}", flush=True)
    model.to(processes().device)
    start, found = time.perf_counter(), v.log_likelihood(model, data.test, k=args.k, details=True)
    poor = (~found["believed"]).sum().item()
    elbo = {name: round(value, 3) for name, value in v.evaluate(model, data, k=5).items()}
    return dict(recipe=recipe, seed=args.seed, training_seconds=seconds, training_processor_seconds=processor, k=args.k,
                test={**average(found), "images": len(data.test), "images_not_believed": poor,
                      **{f"k=5 {k}": e for k, e in elbo.items()}},
                evaluation_seconds=round(time.perf_counter() - start), target=-86.76, **made_with())


def compare_choices(args):
    recipe, rows = v.recipe("burda"), {}
    data = v.load_data(**{**recipe["data"], "valid": 5000}, root=args.data)
    train_only = v.Data(train=data.train, valid=data.valid[:0], test=data.test[:0], binarize="dynamic")
    for name, (model_changes, fit_changes) in CHOICES.items():
        model_options, fit_options = ({**recipe["model"], **model_changes},
                                      {**recipe["fit"], **fit_changes, "seed": args.seed})
        if "learning rate" in name and "lr" in fit_changes: fit_options["lr"] = recipe["fit"]["lr"] * fit_changes["lr"]
        train(train_only, model_options, {**fit_options, "epochs": 1})
        epoch = train(train_only, model_options, {**fit_options, "epochs": 1})[-1]
        epochs = max(1, round(args.processor_seconds / epoch))
        model, history, _, processor = train(train_only, model_options, {**fit_options, "epochs": epochs})
        found = average(v.log_likelihood(model, data.valid, k=200, details=True))
        rows[name] = dict(epochs=epochs, processor_seconds=processor, **found)
        print(f"{name:30} {epochs:4} epochs {found['log_likelihood']:8.2f}", flush=True)
    return dict(recipe=recipe, rows=rows, seed=args.seed, k=200, images=len(data.valid), **made_with())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="folder of MNIST")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--compile", help="a mode of fit's compile; on a GPU, reduce-overhead")
    parser.add_argument("--k", type=int, default=5000, help="samples of z for each test image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choose", action="store_true", help="compare choices instead")
    parser.add_argument("--processor-seconds", type=float, default=60, help="for each choice")
    parser.add_argument("--out", help="JSON file for the result")
    args = parser.parse_args()
    result = compare_choices(args) if args.choose else reach(args)
    out = Path(args.out or HERE / ("recipe_choices.json" if args.choose else "time_to_nll.json"))
    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result.get("test"), indent=1))
