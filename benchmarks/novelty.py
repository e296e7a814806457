"""Which score knows MNIST from Fashion-MNIST, both ways? Trains the models and scores the test sets.

Writes nbs/experiments/novelty.json. Needs both sets whole (variable VAE_NB_DATA, else they are downloaded). Can be
stopped at any moment: run it again and it goes on.

Scores are fitted to validation images of the training set alone. `choose_density` compares ways to fit the density of
states on out-of-distribution images made from them; `compare_candidates` computes afterwards what the other ways would
have given. In the JSON file, "inside" and "outside" mean in distribution and out of distribution, and "alarms" are
false and true positive rates.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from torchvision.transforms.functional import gaussian_blur

from vae_nb import VAE, create_vae, fit, load_data
from vae_nb.evaluation.novelty import DensityOfStates, novelty_scores
from vae_nb.training.runs import versions

SETS = ("fashion-mnist", "mnist")
MEMBERS = {"imagewise": 2, "bernoulli": 1}  # noise or likelihood -> models in the ensemble
MODEL = dict(latent_dim=16, encoder="mlp", decoder="mlp", hidden=(256, 128))
TRAINING = dict(epochs=8, batch_size=128, lr=1e-3)
VALID = 5000            # validation images, held out of training
FITTED = 4000           # of them, for the density of states while it is chosen; the others are altered
SCORED_IMAGES, REGRET_IMAGES = 1000, 500  # the first of each test set; for the density of states all 10,000
K = 64                  # samples of z for each likelihood
QUANTILES = 201         # kept of each score, for the figures
CANDIDATES = {f"{scale}, {n}": (transform, n) for scale, transform in (
    ("standardised", lambda: StandardScaler()), ("ranks", lambda: QuantileTransformer(output_distribution="normal")))
    for n in (1, 4, 16)}


def images(name, noise):
    "The set as a model with this noise wants it: a Bernoulli likelihood takes black and white."
    return load_data(name, valid=VALID, binarize="dynamic" if noise == "bernoulli" else None, progress=False)


def folder_of(runs, noise, name, seed): return runs / f"{noise}-{name}-{seed}"


def train(runs, seeds):
    "These members of every ensemble that has them."
    for seed in seeds:
        for noise, name in ((noise, name) for noise in MEMBERS for name in SETS if seed < MEMBERS[noise]):
            data = images(name, noise)
            torch.manual_seed(seed)
            kind = dict(likelihood="bernoulli") if noise == "bernoulli" else dict(noise=noise)
            model = create_vae(data.image_shape, **MODEL, **kind)
            out = folder_of(runs, noise, name, seed)
            history = fit(model, data, **TRAINING, seed=seed, progress=False, out=out, resume=True)
            print(f"{out.name}: validation ELBO {history[-1]['valid_elbo']:.1f}", flush=True)


def altered(x):
    "Nine kinds of out-of-distribution images made from images in distribution."
    noise = torch.Generator().manual_seed(0)
    n, order = len(x), torch.randperm(x[0].numel(), generator=noise)
    quarters = x.unflatten(2, (2, -1)).unflatten(4, (2, -1)).flip(2, 4).reshape(x.shape)
    return {"inverted": 255 - x, "halved": x // 2, "overlaid": torch.maximum(x, x.roll(1, 0)), "upside down": x.flip(2),
            "quarters": quarters, "shuffled": x.flatten(1)[:, order].reshape(x.shape),
            "blurred": gaussian_blur(x, [7, 7], [1.5, 1.5]),
            "noisy": (x + 50 * torch.randn(n, *x.shape[1:], generator=noise)).clamp(0, 255).byte(),
            "black and white": (x > 127) * torch.tensor(255, dtype=torch.uint8)}


def choose_density(model, valid):
    "AUROC of each way to fit the density of states, on out-of-distribution images made of validation images."
    states = DensityOfStates(model).states
    fitted, known = states(valid[:FITTED]), states(valid[FITTED:])
    new = {kind: states(x) for kind, x in altered(valid[FITTED:]).items()}
    found = {}
    for name, (transform, n) in CANDIDATES.items():
        density = make_pipeline(transform(), GaussianMixture(n, reg_covar=1e-3, random_state=0)).fit(fitted)
        found[name] = {kind: area(-density.score_samples(known), -density.score_samples(x)) for kind, x in new.items()}
    return found


def area(known, new):
    return float(roc_auc_score([0] * len(known) + [1] * len(new), np.concatenate([known, new])))


def summary(known, new, resamples=100):
    "AUROC with its bootstrap standard error, and the quantiles of both kinds of scores."
    known, new = (np.asarray(x, dtype=np.float64) for x in (known, new))
    rng, middle = np.random.default_rng(0), (np.arange(QUANTILES) + 0.5) / QUANTILES
    drawn = [area(rng.choice(known, len(known)), rng.choice(new, len(new))) for _ in range(resamples)]
    rounded = lambda x: [float(f"{v:.5g}") for v in np.quantile(x, middle)]
    return dict(auroc=area(known, new), standard_error=float(np.std(drawn, ddof=1)),
                images=[len(known), len(new)], inside=rounded(known), outside=rounded(new))


def scored(models, tests, names, **options):
    "Scores of the first images of both test sets."
    found = [novelty_scores(models, x[:SCORED_IMAGES], names, k=K, **options) for x in tests]
    return {s: [f[s] for f in found] for s in names}


def compare(runs, noise, name, other):
    "All scores of the first model trained on `name`, against `other`."
    model = VAE.load(folder_of(runs, noise, name, 0))
    data = images(name, noise)
    tests = data.test, images(other, noise).test
    entropy = novelty_scores(model, data.valid[:SCORED_IMAGES], "log_likelihood", k=K)["log_likelihood"].mean().item()
    scores = scored(model, tests, ["sigma"] * (noise != "bernoulli")
                                  + ["elbo", "log_likelihood", "complexity_corrected", "typicality"], entropy=entropy)
    scores["regret"] = [novelty_scores(model, x[:REGRET_IMAGES], "regret", k=1)["regret"] for x in tests]
    detector = DensityOfStates(model).fit(data.valid)
    scores["density of states"] = [detector.score(x) for x in tests]
    positives = [(detector.p_value(x[:SCORED_IMAGES]) < 0.05).double().mean().item() for x in tests]
    chosen_on = {"chosen_on": choose_density(model, data.valid)} if noise == "imagewise" else {}
    return dict(scores={s: summary(*pair) for s, pair in scores.items()}, entropy=entropy,
                components=detector.density[-1].n_components,
                alarms=dict(zip(("inside", "outside"), positives)), **chosen_on)


def compare_ensemble(runs, noise, name, other):
    "WAIC, and the density of states of every member."
    models = [VAE.load(folder_of(runs, noise, name, seed)) for seed in range(MEMBERS[noise])]
    data = images(name, noise)
    tests = data.test, images(other, noise).test
    detectors = [DensityOfStates(model).fit(data.valid) for model in models]
    members = [area(*(d.score(x[:SCORED_IMAGES]) for x in tests)) for d in detectors]
    return dict(scores={"waic": summary(*scored(models, tests, ["waic"])["waic"])}, members=members)


def compare_candidates(runs, noise, name, other):
    "Each way to fit the density of states, against `other`: to be looked at, not to be chosen by."
    model = VAE.load(folder_of(runs, noise, name, 0))
    data = images(name, noise)
    states = DensityOfStates(model).states
    fitted, known, new = (states(data.valid[:FITTED]), states(data.test[:SCORED_IMAGES]),
                          states(images(other, noise).test[:SCORED_IMAGES]))
    found = {}
    for candidate, (transform, n) in CANDIDATES.items():
        density = make_pipeline(transform(), GaussianMixture(n, reg_covar=1e-3, random_state=0)).fit(fitted)
        found[candidate] = area(-density.score_samples(known), -density.score_samples(new))
    return dict(candidates=found)


def kept(path, compute, *what):
    "The result in the file, computed if it isn't there."
    if not path.exists():
        start = time.process_time()
        result = compute(*what)
        path.write_text(json.dumps({**result, "seconds": round(time.process_time() - start)}))
    result = json.loads(path.read_text())
    print(path.stem, {s: round(v["auroc"], 4) for s, v in result.get("scores", {}).items()}, flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/novelty"), help="folder of the trained models")
    parser.add_argument("--out", type=Path, default=Path("nbs/experiments/novelty.json"))
    parser.add_argument("--single", action="store_true", help="without the ensembles")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = dict(model=MODEL, training=TRAINING, members=MEMBERS, valid=VALID, fitted=FITTED, k=K,
                  seeds=list(range(max(MEMBERS.values()))),
                  scored_images=SCORED_IMAGES, regret_images=REGRET_IMAGES)
    made = versions() | dict(sklearn=sklearn.__version__, numpy=np.__version__)
    tasks = [(noise, *sets) for noise in MEMBERS for sets in (SETS, SETS[::-1])]
    train(args.runs, [0])
    results = {noise: {} for noise in MEMBERS}
    for noise, name, other in tasks:
        results[noise][name] = kept(args.runs / f"{noise}-{name}.json", compare, args.runs, noise, name, other)
        if "chosen_on" not in results[noise][name]: continue
        more = kept(args.runs / f"{noise}-{name}-candidates.json", compare_candidates, args.runs, noise, name, other)
        results[noise][name]["candidates"] = more["candidates"]
    write(args.out, config, made, results)
    if args.single: return
    train(args.runs, range(1, max(MEMBERS.values())))
    for noise, name, other in tasks:
        if MEMBERS[noise] == 1: continue
        more = kept(args.runs / f"{noise}-{name}-ensemble.json", compare_ensemble, args.runs, noise, name, other)
        results[noise][name]["scores"] |= more["scores"]
        results[noise][name] |= {"members": more["members"],
                                 "seconds": results[noise][name]["seconds"] + more["seconds"]}
    write(args.out, config, made, results)


def write(path, config, versions, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(config=config, versions=versions, results=results)) + "\n")


if __name__ == "__main__":
    main()
