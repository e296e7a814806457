"""The anchor of the field: dynamically binarised MNIST, one stochastic layer of 50, 784-200-200-50, tanh.

Trains on the 60,000 images of MNIST (`--data`, else VAE_NB_DATA), estimates the log-likelihood of the 10,000 test
images with k samples each, and writes all of it into nbs/experiments/log_likelihood.json, which the notebook
evaluation/01_importance reads. Stopped and started again, it goes on where it was.
"""
import argparse
import json
import time
from pathlib import Path

import torch

import vae_nb as v
from made_with import made_with
from vae_nb.evaluation.importance import BELIEVABLE, average
from vae_nb.models.tensor_files import replace_file

RESULT = Path(__file__).parent.parent / "nbs" / "experiments" / "log_likelihood.json"
MODEL = dict(image_shape=(1, 28, 28), latent_dim=50, encoder="mlp", decoder="mlp", hidden=(200, 200),
             activation="tanh", likelihood="bernoulli")


def train(data, out, **settings):
    "The trained model and the seconds of processor time that it took, in all calls together."
    torch.manual_seed(settings["seed"])
    model, start = v.create_vae(**MODEL), time.process_time()
    v.fit(model, data, out=out, resume=True, progress=False, **settings)
    log = Path(out) / "seconds.json"
    spent = json.loads(log.read_text()) if log.exists() else []
    if (last := time.process_time() - start) > 5: spent.append(round(last))  # less: it was trained already
    log.write_text(json.dumps(spent))
    return model, sum(spent)


def measure(model, x, k):
    "Estimates for every image, averaged, and what they cost."
    start, cpu = time.perf_counter(), time.process_time()
    found = v.log_likelihood(model, x, k=k, details=True)
    poor = (~found["believed"]).sum().item()
    return {**average(found), "images_not_believed": poor, "believable": BELIEVABLE, "k": k,
            "seconds": round(time.perf_counter() - start, 1),
            "processor_seconds": round(time.process_time() - cpu, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=None, help="folder of MNIST")
    parser.add_argument("--out", default="runs/anchor", help="folder of the trained model")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--k", type=int, default=5000, help="samples of z for each test image")
    parser.add_argument("--only-train", action="store_true")
    args = parser.parse_args()
    data = v.load_data("mnist", root=args.data, binarize="dynamic", valid=0)
    settings = dict(epochs=args.epochs, batch_size=100, lr=args.lr, objective="elbo", k=1, schedule="cosine", seed=0)
    model, seconds = train(data, args.out, **settings)
    print(f"trained in {seconds:.0f} s of processor time")
    if not args.only_train:
        elbo = v.evaluate(model, data, k=5)
        result = dict(data="mnist, dynamically binarised; test: one fixed draw", model=MODEL, training=settings,
                      training_processor_seconds=seconds, parameters=sum(p.numel() for p in model.parameters()),
                      test=measure(model, data.test, args.k),
                      elbo={name: round(value, 4) for name, value in elbo.items()}, seed=0, dtype="float32",
                      **made_with())
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        replace_file(RESULT, lambda path: Path(path).write_text(text, encoding="utf-8"))
        print(text)
