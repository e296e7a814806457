"""Wrong calls, in Python and on the command line: each is refused at once, by a message that names the argument and what came.

`PYTHON` and `COMMANDS` are the tables: a call that is right, and for each of its arguments the family of values that are wrong
for it. `FAMILIES` says what these values are, and which words the message must have for each."""
import errno
import gc
import math
import os
import re
import shlex
import warnings
import weakref
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from html import escape as html_escape
from io import StringIO
from pathlib import Path

import pytest
import torch

import vae_nb as v
from vae_nb.basics.figures import plain_label
from vae_nb.cli import COMMANDS as KNOWN_COMMANDS, main

X = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
TINY = dict(latent_dim=2, encoder="mlp", decoder="mlp", hidden=(4,))


@cache
def thing(name):
    "What the right calls are made of."
    if name == "model": return v.create_vae((1, 4, 4), **TINY)
    if name == "labelled": return v.create_vae((1, 4, 4), classes=["heart", "square", "star"], **TINY)
    if name == "bits": return v.create_vae((1, 4, 4), likelihood="discretised_logistic", **TINY)
    if name == "data": return v.Data(X[:16], X[16:20], X[20:], name="tiny")
    if name == "bytes": return v.Data(*((255 * part).byte() for part in (X[:16], X[16:20], X[20:])))
    if name == "report": return v.report(thing("model"), thing("data"), k=1, likelihood_k=4, n_images=4, n_gap_images=2)
    if name == "scores": return v.novelty_table(thing("model"), thing("data"), score="elbo", k=2)
    if name == "gaps": return v.inference_gaps(thing("model"), X[:2], k=4, steps=2)
    if name == "calibration": return v.calibration(thing("model"), thing("data"))
    if name == "loader": return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), 4)
    if name == "parallel": return torch.nn.DataParallel(thing("model"))
    raise KeyError(name)


class Named(str):
    "A name of `thing`, made when it is needed."


MODEL, DATA, LOADER, PARALLEL, LABELLED = map(Named, ("model", "data", "loader", "parallel", "labelled"))
PAIR = X, torch.zeros(30)
LINEAR = torch.nn.Linear(2, 2)


def made(value):
    if isinstance(value, Named): return thing(value)
    if isinstance(value, dict): return {name: made(part) for name, part in value.items()}
    return [made(part) for part in value] if type(value) is list else value


# family -> (value, what the message says of it)
COUNTS = [(-3, "=-3"), (2.5, r"=2\.5"), ("three", "='three'"), (math.nan, "=nan"), ([1], r"=\[1\]"), (True, "=True"),
          (10 ** 30, "=10{30}.*below 2⁶³")]
FAMILIES = {
    "count": [(0, "=0"), *COUNTS, (None, "=None")],
    "count or none": [(0, "=0"), *COUNTS],
    "seed": [*COUNTS, (None, "=None")],
    "share": [(-3, "=-3"), (2.5, r"=2\.5"), (math.nan, "=nan"), (True, "=True"), (10 ** 30, "=10{30}")],
    "row": [(3, "=3"), ("three", "='three'"), ([0], r"\[0\]=0"), ([2.5], r"\[0\]=2\.5"), ((4, True), r"\[1\]=True")],
    "positive": [(0, "=0"), (-1.5, r"=-1\.5"), (math.nan, "=nan"), (math.inf, "=inf"), ("fast", "='fast'"),
                 ([1.0], r"=\[1\.0\]"), (True, "=True"), (10 ** 400, "=an integer of 1329 bits")],
    "name": [("nonsense", "='nonsense' is not known; known are '"), (3, "=3 is not known"), (["a"], r"=\['a'\]")],
    "path": [(3, "=3"), (2.5, r"=2\.5"), (["a"], r"=\['a'\]"), (b"x", "=b'x'")],
    "model": [(None, "=None: expected a VAE"), ("runs/a", r"='runs/a'.*VAE\.load\('runs/a'\)"), (3, "=3: expected a VAE"),
              (DATA, "is a Data; .*the model comes before"), (LINEAR, "is a Linear; expected a VAE"),
              (PARALLEL, r"is a DataParallel; expected the VAE inside: \w+\.module"), (v.VAE, "is a type; .*not its class")],
    "data": [(None, "=None: expected images"), (3, "=3: expected images"), (PAIR, "is a tuple; expected the images alone"), (MODEL, "is a VAE; expected images, not a model"),
             ("/no/such/folder", "='/no/such/folder' does not exist"), (["a", "b"], r"=\['a', 'b'\]: expected images, or the names of image files")],
    "images": [(None, "=None: expected a tensor"), ("x", "='x': expected a tensor"), (3.0, r"=3\.0: expected a tensor"),
               (X[:4, ..., :3], r"has shape \(4, 1, 4, 3\)")],
    "table": [(3, "=3: expected a table"), ("history.csv", "='history.csv': expected a table"), (PAIR, "is a tuple; expected"),
              (MODEL, "is a VAE; expected a table"), ([1, 2], r"=\[1, 2\]: expected a table")],
    "scores": [(3, "=3: expected what novelty_table gives"), ("a.csv", "=.a.csv.: expected what novelty_table gives")],
    "tables": [(None, "=None: expected what load_data returns"), ("runs/a", "='runs/a': expected what load_data returns")],
    "numbers": [(["a"], r"=\['a'\]: expected"), (b"x", "=b'x': expected"), (LINEAR, "is a Linear; expected")],
    "module": [(3, "=3: expected a module"), ("x", "='x': expected a module"), (["a"], r"=\['a'\]: expected a module")],
    "repository": [(3, "=3: expected \"owner/name\""), (None, "=None: expected \"owner/name\""), ("digits", "='digits': expected \"owner/name\""),
                   ("me/a b", "='me/a b': expected"), ("a/b/c", "='a/b/c': expected"), (["a/b"], r"=\['a/b'\]: expected")],
    "switch": [(1, "=1: expected True or False"), ("yes", "='yes': expected True or False"), (None, "=None: expected True or False")],
    "license": [(3, "=3: expected the name of a license"), ("My own", "='My own': expected the name of a license"), ([1], r"=\[1\]: expected")],
    "token": [(3, "=3: expected a token"), ("two words", ": expected a token of the hub, which is one word"), ("", ": expected a token")],
    "address": [(3, "=3: expected the address"), ("huggingface.co", "='huggingface.co': expected the address"), ("", "='': expected the address")],
    "revision": [(3, "=3: expected a branch"), ("", "='': expected a branch"), (["main"], r"=\['main'\]: expected")],
    "classes": [(0, "=0"), (-3, "=-3"), (2.5, r"=2\.5"), ("three", "='three'"), (math.nan, "=nan"), (True, "=True"), (10 ** 30, "=10{30}"),
                ([], r"=\(\)"), (["a", "a"], r"=\('a', 'a'\)")],
    "label": [("hart", "='hart' is not known.*'heart'"), (3, "holds 3"), (-1, "holds -1"), (1.5, r"=1\.5"), (torch.rand(4), "has dtype"),
              ([True], r"=\[True\]"), ([0, 1], "holds 2 labels|has shape")],
    "dict": [(3, "=3: expected"), (["a"], r"=\['a'\]: expected"), (LINEAR, "is a Linear; expected")],
}
FAMILIES["data or none"], FAMILIES["name or none"] = FAMILIES["data"][1:], FAMILIES["name"]
M, D, S = dict(model=MODEL), dict(model=MODEL, data=DATA), dict(model="model", data="data", split="name", seed="seed")
XS = dict(model=MODEL, x=X[:4])
HISTORY = [dict(epoch=1, train_elbo=1.0)]

# call -> its right arguments, and the family of each argument that is tried
PYTHON = {
    "create_vae": (dict(image_shape=(1, 4, 4)), dict(
        latent_dim="count or none", latent_channels="count or none", kernel_size="count", encoder="name", decoder="name", posterior="name", likelihood="name", noise="name", prior="name",
        mean="name", activation="name", sigma_floor="positive")),
    "create_vae of classes": (dict(image_shape=(1, 4, 4)), dict(classes="classes")),
    "create_vae of an mlp": (dict(image_shape=(1, 4, 4), encoder="mlp", decoder="mlp"), dict(hidden="row")),
    "create_vae of a cnn": (dict(image_shape=(1, 4, 4)), dict(channels="row")),
    "fit": (D | dict(epochs=1, batch_size=8, progress=False), dict(
        model="model", data="data", epochs="count or none", batch_size="count or none", lr="positive", k="count", accumulate="count",
        patience="count or none", grad_clip="positive", seed="seed", objective="name", schedule="name", optimizer="name", init="name",
        precision="name", prior_after="name", out="path")),
    "load_data": (dict(source=X), dict(source="data", limit="count or none", valid="share", test="share", binarize="name",
                                       seed="seed", resize="count or none", root="path")),
    "evaluate": (D, S | dict(k="count", batch_size="count")),
    "log_likelihood": (XS | dict(k=4), dict(model="model", x="images", k="count", max_memory="positive", seed="seed")),
    "log_likelihood of a label": (dict(model=LABELLED, x=X[:4], k=4, y=0), dict(y="label")),
    "bits_per_dimension": (dict(model=Named("bits"), x=(255 * X[:4]).byte(), k=4),
                           dict(model="model", k="count", max_memory="positive", seed="seed")),
    "annealed_importance": (XS | dict(chains=2, steps=3, leapfrog=1), dict(
        model="model", x="images", chains="count", steps="count", leapfrog="count", pilots="count", start="name",
        max_memory="positive", seed="seed")),
    "bidirectional": (M | dict(n=2, chains=2, steps=3, leapfrog=1), dict(
        model="model", n="count", chains="count", steps="count", leapfrog="count", start="name", seed="seed")),
    "calibration": (D, S | dict(bins="count", batch_size="count")),
    "calibration_panels": (dict(found=Named("calibration")), dict(found="dict", save="path")),
    "predictive_check": (D, S | dict(draws="count", batch_size="count")),
    "hard_images": (D | dict(count=2), dict(model="model", data="data", split="name", count="count", batch_size="count")),
    "inpainting_calibration": (D | dict(limit=2, draws=4, burn_in=2), S | dict(
        hidden="name", limit="count", bins="count", batch_size="count")),
    "posterior_given_visible": (XS | dict(visible=torch.ones(1, 4, 4).bool(), draws=4, burn_in=2), dict(
        model="model", x="images", draws="count", burn_in="count", thin="count", leapfrog="count", seed="seed")),
    "likelihood_regret": (XS | dict(steps=2), dict(
        model="model", x="images", steps="count", lr="positive", k="count", seed="seed")),
    "novelty_scores": (dict(models=MODEL, x=X[:4], k=4, steps=2), dict(
        models="model", x="images", k="count", steps="count", seed="seed")),
    "DensityOfStates": (M, dict(model="model", k="count", seed="seed")),
    "auroc": (dict(in_distribution=[1.0], out_of_distribution=[2.0]), dict(
        in_distribution="numbers", out_of_distribution="numbers")),
    "typicality": (dict(log_likelihoods=[1.0], entropy=1.0), dict(log_likelihoods="numbers")),
    "waic": (dict(log_likelihoods=torch.zeros(2, 3)), dict(log_likelihoods="numbers")),
    "roc_figure": (dict(scores={"a": ([1.0], [2.0])}), dict(scores="dict")),
    "embedding_figure": (D, S | dict(method="name", n="count or none")),
    "kl_figure": (D, S | dict(n="count or none", save="path")),
    "latent_numbers": (D, S | dict(n="count or none", samples="count")),
    "inference_gaps": (XS | dict(k=4, steps=2), dict(
        model="model", x="images", k="count", steps="count", samples="count", lr="positive", seed="seed")),
    "gaps_figure": (dict(gaps=Named("gaps")), dict(gaps="dict")),
    "report": (D | dict(likelihood_k=4, n_images=4, n_gap_images=2), dict(
        data="data or none", split="name", k="count", likelihood_k="count", n_images="count", n_gap_images="count", seed="seed",
        out="path")),
    "compare": (dict(runs=[Named("report"), Named("report")]), dict(out="path")),
    "pipeline_figure": (XS, dict(model="model", x="images", seed="seed")),
    "prior_figure": (M, dict(model="model", n="count", seed="seed")),
    "class_figure": (dict(model=LABELLED), dict(model="model", n="count", seed="seed")),
    "traversal_figure": (M | dict(x4=X[:4]), dict(model="model", x4="images", steps="count", seed="seed", path="name")),
    "neighbourhood_figure": (M | dict(x=X[0]), dict(model="model", x="images", n="count", step="positive", seed="seed")),
    "history_figure": (dict(history=HISTORY), dict(history="table", save="path")),
    "curves": (dict(histories={"a": HISTORY}), dict(histories="dict", x="name")),
    "image_grid": (dict(images=X[:4]), dict(columns="count or none", save="path")),
    "LatentExplorer": (D, dict(model="model", data="data or none", seed="seed", prior="name")),
    "TraversalExplorer": (D, dict(model="model", data="data", steps="count")),
    "InterpolationPlayer": (D, dict(model="model", data="data", frames="count")),
    "TrainingMonitor": (D, dict(model="model", data="data", n_images="count")),
    "NoiseExplorer": (dict(models={"a": MODEL}, data=DATA), dict(models="dict", data="data", image="seed", seed="seed")),
    "export_explorer": (D | dict(path="page.html"), dict(
        model="model", path="path", title="path", presets="count", precision="name", limit="count", seed="seed")),
    "export_playground": (dict(path="page.html"), dict(path="path", title="path", train="count", test="count")),
    "sample_quality": (dict(samples=torch.rand(100, 1, 4, 4), data=torch.rand(100, 1, 4, 4), features=lambda x: x.flatten(1)), dict(
        data="data", split="name", n="count", seed="seed")),
    "disentanglement": (dict(z=torch.rand(300, 2), factors={"a": torch.arange(300) % 3, "b": torch.rand(300)}, halves=2), dict(
        z="numbers", factors="dict", halves="count", seed="seed")),
    "factor_figure": (D, dict(model="model", data="tables", seed="seed")),
    "generate_images": (dict(name="sprites", n=2), dict(name="name", n="count", seed="seed")),
    "encode_all": (D, dict(model="model", data="data", split="name", batch_size="count")),
    "latent_table": (D, dict(model="model", data="data", split="name", batch_size="count")),
    "nearest": (dict(latents=torch.rand(9, 2), query=torch.rand(2)), dict(latents="numbers", query="numbers", n="count")),
    "attribute_vector": (dict(latents=torch.rand(4, 2), labels=[True, False, True, False]), dict(latents="numbers")),
    "write_reconstructions": (D | dict(out="pictures"), dict(
        model="model", data="data", split="name", out="path", batch_size="count")),
    "novelty_table": (D | dict(score="elbo", k=2), dict(
        model="model", data="data", score="name", split="name", k="count", seed="seed", batch_size="count")),
    "novelty_sheet": (D | dict(table=Named("scores")), dict(
        model="model", data="data", table="scores", n="count", split="name", save="path")),
    "write_film": (dict(model=MODEL, z=torch.zeros(2, 2), out="film.gif"), dict(
        model="model", z="images", out="path", fps="positive", size="count")),
    "export_model": (dict(model=MODEL, folder="exported"), dict(model="model", folder="path", format="name", tolerance="positive")),
    "refine": (XS | dict(steps=1), dict(model="model", x="images", steps="count", samples="count", lr="positive", seed="seed")),
    "refine of a label": (dict(model=LABELLED, x=X[:4], steps=1, y=0), dict(y="label")),
    "fit_prior": (D, dict(model="model", data="data", kind="name", components="count", seed="seed")),
    "with_prior": (dict(model=MODEL, prior=v.GaussianPrior(2)), dict(model="model", prior="module")),
    "prepare_images": (XS, dict(model="model", x="images")),
    "recipe": (dict(name="burda"), dict(name="name")),
    "Muon": (dict(parameters=list(LINEAR.parameters())), dict(lr="positive", rounds="count")),
    "MeanField": (dict(latent_dim=2), dict(latent_dim="count", floor="positive")),
    "FullCovariance": (dict(latent_dim=2), dict(latent_dim="count", floor="positive")),
    "GaussianPrior": (dict(latent_dim=2), dict(latent_dim="count", scale="positive")),
    "LearnedMixture": (dict(latent_dim=2), dict(latent_dim="count", components="count", floor="positive")),
    "LowRank": (dict(latent_dim=2), dict(latent_dim="count", rank="count", floor="positive")),
    "MixturePosterior": (dict(latent_dim=2), dict(latent_dim="count", components="count", floor="positive")),
    "MixturePrior": (dict(latent_dim=2), dict(latent_dim="count", components="count")),
    "FullCovariancePrior": (dict(latent_dim=2), dict(latent_dim="count")),
    "PixelwiseGaussian": (dict(image_shape=(1, 4, 4)), dict(mean="name", sigma_floor="positive")),
    "ImagewiseGaussian": (dict(image_shape=(1, 4, 4)), dict(mean="name", sigma_floor="positive")),
    "HomoscedasticGaussian": (dict(image_shape=(1, 4, 4)), dict(mean="name", sigma="positive", sigma_floor="positive")),
    "DiscretisedLogistic": (dict(image_shape=(1, 4, 4)), dict(mean="name", scale_floor="positive")),
    "CategoricalLikelihood": (dict(image_shape=(1, 4, 4)), dict(levels="count")),
    "LowRankGaussian": (dict(image_shape=(1, 4, 4)), dict(rank="count", mean="name", sigma_floor="positive")),
    "MLPEncoder": (dict(image_shape=(1, 4, 4), out_shape=(4,)), dict(activation="name", hidden="row")),
    "CNNEncoder": (dict(image_shape=(1, 4, 4), out_shape=(4,)), dict(activation="name", channels="row", kernel_size="count")),
    "MLPDecoder": (dict(latent_dim=2, out_shape=(1, 4, 4)), dict(latent_dim="count", activation="name", hidden="row")),
    "CNNDecoder": (dict(latent_dim=2, out_shape=(1, 4, 4)), dict(latent_dim="count", channels="row", kernel_size="count")),
    "ResNetEncoder": (dict(image_shape=(1, 4, 4), out_shape=(4,)),
                      dict(activation="name", channels="row", kernel_size="count", blocks="seed")),
    "ResNetDecoder": (dict(latent_dim=2, out_shape=(1, 4, 4)),
                      dict(latent_dim="count", channels="row", kernel_size="count", blocks="seed")),
    "IndexedImages": (dict(dataset=list(X)), dict(resize="count or none", workers="seed", prefetch="seed")),
    "Stream": (dict(dataset=list(X)), dict(size="count or none", buffer="count", resize="count or none", prefetch="seed")),
    "VAE.sample": (dict(n=1), dict(n="count")),
    "VAE.prior_predictive": (dict(n=1), dict(n="count")),
    "VAE.sample of a label": (dict(n=3, label="star"), dict(n="count", label="label")),
    "VAE.encode of a label": (dict(x=X[:4], y=0), dict(y="label")),
    "Branches": (dict(main=v.MLPDecoder(2, (1, 4, 4)), side=v.MLPDecoder(2, (1, 4, 4))), dict(main="module", side="module")),
    "Labelled": (dict(network=LINEAR, in_shape=(1,), classes=1), dict(network="module", classes="classes")),
    "VAE.decode": (dict(z=torch.zeros(1, 2)), dict(z="images")),
    "VAE.save": (dict(folder="saved"), dict(folder="path")),
    "VAE.load": (dict(folder="saved"), dict(folder="path")),
    "VAE.push_to_hub": (dict(repo_id="me/x", figures=False), dict(
        repo_id="repository", run="path", data="data or none", private="switch", figures="switch", license="license", token="token",
        endpoint="address")),
    "VAE.from_pretrained": (dict(repo_id="me/x"), dict(
        repo_id="repository", revision="revision", token="token", endpoint="address", cache_dir="path")),
    "model_card": (M | dict(repo_id="me/x", figures=False), dict(
        model="model", repo_id="repository", run="path", data="data or none", license="license", figures="switch", out="path")),
    "evaluating": (M, dict(model="model", seed="seed")),
}


def call(name, arguments):
    model = "labelled" if name.endswith(" of a label") else "model"
    name, arguments = name.partition(" of ")[0], made(arguments)
    if name in ("VAE.load", "VAE.from_pretrained"): return getattr(v.VAE, name[4:])(**arguments)
    if name.startswith("VAE."): return getattr(thing(model), name[4:])(**arguments)
    if name == "evaluating": return v.evaluating(**arguments).__enter__()
    return getattr(v, name)(**arguments)


def rows():
    for name, (right, families) in PYTHON.items():
        for argument, family in families.items():
            for value, words in FAMILIES[family]: yield name, right, argument, value, words


# wrong calls that no family has: (call, arguments, what the message says)
SINGLE = [
    ("fit", dict(model=DATA, data=MODEL), "model is a Data; expected a VAE; these are data: the model comes before them"),
    ("create_vae", dict(image_shape=(1, 4, 4), kernel_size=10001), "kernel_size=10001: expected at most 7"),
    ("create_vae", dict(image_shape=(1, 4, 4), hidden=None, encoder="mlp"), "hidden=None: expected a row of integers"),
    ("create_vae", dict(image_shape=(1, 4, 4), latent_dim=10 ** 9), r"latent_dim=10{9}: expected a smaller model.*GiB"),
    ("create_vae", dict(image_shape=(1, 4, 4), latent_dim=10 ** 15, posterior="full_covariance"), "latent_dim=10{15}: .*smaller"),
    ("create_vae", dict(image_shape=(1, 4, 4), encoder="mlp", decoder="mlp", hidden=(10 ** 6, 10 ** 12)), r"hidden=\(10{6}, 10{12}\)"),
    ("create_vae", dict(image_shape=(1, 4, 4), channels=(10 ** 9, 10 ** 9)), r"channels=\(10{9}, 10{9}\)"),
    ("create_vae", dict(image_shape=(1, 10 ** 5, 10 ** 5)), r"image_shape=\(1, 10{5}, 10{5}\): .* fewer than 2³¹"),
    ("create_vae", dict(image_shape=28), r"image_shape=28: expected three numbers"),
    ("create_vae", dict(image_shape="28"), r"image_shape='28': expected three numbers"),
    ("create_vae", dict(image_shape=(1, 28)), r"image_shape=\(1, 28\): expected three numbers"),
    ("create_vae", dict(image_shape=(1, 4, 4), likelihood="bernoulli", noise="pixelwise"), "noise='pixelwise' belongs to"),
    ("create_vae", dict(image_shape=(1, 4, 4), likelihood="beta", sigma_floor=0.1), "sigma_floor=0.1 belongs to"),
    ("CategoricalLikelihood", dict(image_shape=(1, 4, 4), levels=1), "levels=1: expected an integer of at least 2"),
    ("Data", dict(train=X, valid=X[:0], test=X[:0], labels={"train": torch.zeros(3)}), r"labels\['train'\] has 3 entries; expected 30, one"),
    ("attribute_vector", dict(latents=torch.rand(4, 2), labels=[True] * 4), "labels: 4 of 4 images have the attribute"),
    ("attribute_vector", dict(latents=torch.rand(4, 2), labels=[0, 1, 2, 0]), "labels holds other values than true and false"),
    ("attribute_vector", dict(latents=torch.rand(4, 2), labels=[True, False]), r"labels has shape \(2,\); expected \(4,\)"),
    ("nearest", dict(latents=torch.rand(4, 2), query=torch.rand(3)), "query is a Tensor of shape"),
    ("nearest", dict(latents=torch.rand(4, 2), query=torch.rand(2), n=5), "n=5: latents has 4 rows; expected no more"),
    ("novelty_table", dict(model=MODEL, data=DATA), "score='density_of_states' compares with images like those of the training"),
    ("novelty_table", dict(model=MODEL, data=DATA, reference=X), "reference holds 30 images; expected at least 100"),
    ("novelty_table", dict(model=MODEL, data=DATA, reference="valid"), "reference='valid': expected images"),
    ("write_film", dict(model=MODEL, z=torch.zeros(2, 2), out="film.avi"), "out='film.avi': expected a name that ends in .gif or .mp4"),
    ("report", dict(model=MODEL, data=DATA, modules="a.py:f"), "modules='a.py:f': expected None"),
    ("report", dict(model="nowhere", modules="a.py"), "modules='a.py': expected a file and a function in it"),
    ("compare", dict(runs=[{}, {}]), r"runs\[0\] is no report: it lacks data"),
    ("compare", dict(runs=3), "runs=3: expected a list"),
    ("compare", dict(runs="runs/a"), "runs='runs/a': expected a list"),
    ("compare", dict(runs=[3, 4]), r"runs\[0\]=3: expected a folder"),
    ("compare", dict(runs=["a", "b"]), r"runs\[0\]='a' holds no report.json"),
    ("report", dict(model=MODEL), "data=None"),
    ("report", dict(model=3), "model=3: expected a VAE"),
    ("beta_nll_score", dict(p=None, x=None, beta=2), "beta=2: expected a number between 0"),
    ("novelty_scores", dict(models=[MODEL, 3], x=X), r"models\[1\]=3: expected a VAE"),
    ("novelty_scores", dict(models=[], x=X), "models is empty"),
    ("export_explorer", dict(model=MODEL, path="/no/such/folder/a.txt"), "path='a.txt': expected a name in .html or .js"),
    ("save_figure", dict(figure=3, path="a.png"), "figure=3: expected what a figure function"),
]
EVERYTHING = [*rows(), *((name, arguments, None, None, words) for name, arguments, words in SINGLE)]


def refused(name, arguments):
    "The message of the InputError, or what happened in its place."
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try: call(name, arguments)
        except v.InputError as error: return str(error)
        except Exception as error: return f"{type(error).__name__}, which is no InputError: {error}"
    return "nothing was refused"


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in EVERYTHING))
def test_python(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    faults = []
    with warnings.catch_warnings(action="ignore"):
        for _, right, argument, value, words in (row for row in EVERYTHING if row[0] == name):
            message = refused(name, right if argument is None else {**right, argument: value})
            expected = words if argument is None else rf"^{argument}(\[\w+\])?,? ?{words}"
            if not re.search(expected, message): faults.append(f"{argument}={value!r:.40}: {message}\n    expected {expected}")
    assert not faults, "\n".join(faults)
    assert os.listdir(tmp_path) == []


def test_the_table_is_large_and_covers_what_is_public(record_property):
    "Functions whose arguments are given by `fit` at each step (objectives, annealing), and what draws on axes, are left out."
    record_property("calls", len(EVERYTHING))
    assert len(EVERYTHING) > 1500 and len({row[:4:2] for row in EVERYTHING}) > 200
    from inspect import isfunction
    tried = {name.partition(" of ")[0].partition(".")[0] for name, *_ in EVERYTHING}
    steps = {"beta_nll_score", "cyclical_annealing", "dip_vae", "elbo", "elbo_stl", "free_bits", "info_vae", "iwae", "iwae_dreg",
             "iwae_stl", "kl_decomposition", "kl_per_dimension", "linear_annealing", "mmd", "pixel_log_prob", "tc_vae"}
    drawing = {"draw_image", "draw_latent", "draw_sigma", "figure_style"}
    same = {"calibration_figure", "hard_images_figure", "inpainting_figure"}   # the arguments of calibration and so on
    contracts = {"check_head", "check_network", "check_prior", "dequantised"}  # with calls that fail in their notebooks
    public = {name for name in v.__all__ if isfunction(getattr(v, name))}
    assert public - tried == (steps | drawing | same | contracts) - tried


# the command line

RUN_OPTIONS = {"--limit": "count", "--seed": "seed", "--binarize": "name", "--resize": "size", "--valid": "share", "--test": "share"}
WORDS = {  # family -> (words typed, what the message says of them)
    "count": [("0", "=0"), ("-3", "=-3"), ("2.5", "=2.5"), ("three", "='three'"), ("nan", "=nan"), ("9" * 23, "=9{23}.*2⁶³")],
    "size": [("0", "=0"), ("-3", "=-3"), ("2.5", "=2.5"), ("three", "='three'"), ("4 4 4", r"=\[4, 4, 4\]")],
    "positive": [("0", "=0"), ("-1.5", "=-1.5"), ("nan", "=nan"), ("inf", "=inf"), ("fast", "='fast'")],
    "name": [("nonsense", "='nonsense' is not known"), ("3", "=3 is not known")],
    "share": [("-3", "=-3"), ("2.5", "=2.5"), ("nan", "=nan")],
    "out": [("file", "='file' can't be written: it is a file"), ("file/below", "='file/below' can't be written: .*is a file")],
    "page": [("file/below.html", "='file' can't be written: it is a file")],
    "table": [("file/below.csv", "='file' can't be written: it is a file"), ("a.doc", "='a.doc': expected a name that ends in .csv"),
              ("there.csv", "='there.csv' is there already; name another file, or say --overwrite")],
    "film": [("file/below.gif", "='file' can't be written: it is a file"), ("a.avi", "='a.avi': expected a name that ends in .gif or .mp4")],
    "row": [("0", r"\[0\]=0"), ("4 2.5", r"\[1\]=2.5"), ("x", r"\[0\]='x'")],
    "huge": [("1000000000", "=.?1000000000.?: expected a smaller model"), ("1000000000000000000", "=.?10{18}.?: .*smaller model")],
    "switch": [("nonsense", "='nonsense'")],
    "classes": [("0", "=0"), ("2.5", "=2.5"), ("heart", "='heart'"), ("a a", r"=\('a', 'a'\)"), ("auto", "=auto: the data have no labels")],
    "label": [("3", "='3': expected none"), ("heart", "='heart': expected none")],
    "port": [("0", "=0: expected an integer from 1 to 65535"), ("99999", "=99999: expected an integer from 1 to 65535"),
             ("x", "='x'")],
    "silly": [("", "unrecognized arguments|expected one argument|required|invalid")],
}
WORDS["seed"] = WORDS["count"][1:]
MLP = "train --data pictures --no-progress --encoder mlp --decoder mlp --hidden 4 --batch-size 8 --out new"
COMMANDS = {  # a right command -> its options, and the family of each that is tried
    MLP: {"--epochs": "count", "--batch-size": "count", "--k": "count", "--accumulate": "count", "--patience": "count",
          "--lr": "positive", "--grad-clip": "positive", "--seed": "seed", "--latent-dim": "count", "--classes": "classes", "--objective": "name",
          "--schedule": "name", "--optimizer": "name", "--init": "name", "--prior-after": "name", "--precision": "name", "--compile": "switch",
          "--posterior": "name", "--prior": "name", "--likelihood": "name", "--noise": "name", "--mean": "name", "--activation": "name",
          "--sigma-floor": "positive", "--encoder": "name", "--decoder": "name", "--hidden": "row", "--limit": "count",
          "--valid": "share", "--test": "share", "--binarize": "name", "--resize": "size", "--out": "out"},
    MLP + " ": {"--latent-dim": "huge", "--hidden": "huge"},
    "train --data pictures --no-progress --out new": {"--channels": "row", "--kernel-size": "count"},
    "evaluate run --data pictures --no-progress": RUN_OPTIONS | {
        "--split": "name", "--k": "count", "--n-images": "count", "--likelihood-k": "count", "--out": "out"},
    "figures run --data pictures --no-progress": RUN_OPTIONS | {"--format": "name", "--out": "out"},
    "explore run --data pictures --no-browser": RUN_OPTIONS | {"--port": "port"},
    "sweep --data pictures --no-progress --encoder mlp --decoder mlp --latent-dim 2 3 --out new": {
        "--epochs": "count", "--lr": "positive", "--objective": "name", "--resize": "size", "--out": "out"},
    "encode run --data pictures --no-progress": RUN_OPTIONS | {"--split": "name", "--out": "table"},
    "reconstruct run --data pictures --no-progress": RUN_OPTIONS | {"--split": "name", "--out": "out"},
    "score run --data pictures --no-progress --score elbo": RUN_OPTIONS | {
        "--split": "name", "--score": "name", "--n": "count", "--k": "count", "--out": "table"},
    "walk run --data pictures --no-progress": RUN_OPTIONS | {
        "--n": "count", "--frames": "count", "--fps": "positive", "--size": "count", "--latent": "count", "--out": "film"},
    "sample run": {"--label": "label", "--prior": "name", "--n": "count", "--seed": "seed", "--out": "page", "--npz": "page"},
    "compare run run": {"--out": "page"},
    "demo": {"--seconds": "positive", "--seed": "seed", "--out": "out"},
    "data pictures --no-progress": RUN_OPTIONS,
}
ALONE = {  # whole lines
    "train --beta 0.5": r"--beta 0.5. Did you mean --beta-nll or --kl-weight\?",
    "train --gpu 1": "unrecognized arguments: --gpu 1$", "train --dropout 0.1": "--dropout 0.1$",
    "train --latent 4": r"Did you mean --latent-dim or --latent-channels\?", "train --learning-rate 1": r"Did you mean --lr\?",
    "train --epoch 3": r"Did you mean --epochs\?", "train --kl 3": r"Did you mean --kl-weight\?",
    "train --see 3": r"--see 3. Did you mean --seed\?", "train --lattent-dim 4": r"Did you mean --latent-dim\?",
    "evaluate run --beta 1": "--beta 1$", "sample run --output a.png": r"Did you mean --out\?",
    "evaluate run --js": r"Did you mean --json\?", "demo --second 3": r"Did you mean --seconds\?",
    "train --data nowhere/x": "--data='nowhere/x' does not exist", "train --data file": "--data='file' is a file",
    "evaluate nothing": "folder='nothing' holds no saved model", "evaluate": "required: RUN", "compare": "required: RUNS",
    "push run": "required: REPO_ID", "push run digits": 'repo_id=\'digits\': expected "owner/name"',
    "push run me/x --license 3": "--license=3: expected the name", "push run me/x --token a": "unrecognized arguments: --token a",
    "compare nothing other": r"runs\[0\]='nothing' holds no report.json", "trian": "Did you mean 'train'", "train x": "arguments: x",
    "sample run --n 1000000000000000": "not enough memory.*smaller numbers need less",
    "train --epochs": "--epochs: expected one argument", "sample run --out a.jpg": "--out='a.jpg': expected a name",
}
LINES = [(f"{right} {option} {word}", rf"^vae_nb: error: {option}{words}" if words[:1] in "=\\" else words)
         for right, options in COMMANDS.items() for option, family in options.items() for word, words in WORDS[family]]
LINES += ALONE.items()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A folder with a run, a few pictures, and a file."
    from PIL import Image
    here = tmp_path_factory.mktemp("commands")
    (here / "pictures").mkdir()
    for i, x in enumerate((255 * X).byte().numpy()): Image.fromarray(x[0]).save(here / "pictures" / f"{i}.png")
    for name in ("file", "there.csv"): (here / name).write_text("")
    thing("model").save(here / "run")
    return here


def typed(line):
    "Exit code, and what is said on stderr."
    code, said = 0, StringIO()
    with redirect_stdout(StringIO()), redirect_stderr(said):
        try: main(shlex.split(line))
        except SystemExit as error: code = error.code
        except Exception as error: said.write(f"a traceback: {type(error).__name__}: {error}")
    return code, said.getvalue()


@pytest.mark.parametrize("command", KNOWN_COMMANDS)
def test_command_line(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 1.0)
    before, faults = sorted(folder.rglob("*")), []
    for line, expected in LINES:
        if line.split()[0] != command: continue
        code, said = typed(line)
        errors = [part for part in said.splitlines() if not part.startswith("vae_nb: note:")]
        if code != 2 or len(errors) != 1 or not re.search(expected, errors[0]): faults.append(f"{line}: {code} {said}   expected {expected}")
        if (now := sorted(folder.rglob("*"))) != before: faults.append(f"{line} left {set(now) - set(before)}")
    assert not faults, "\n".join(faults)


def test_there_are_enough_lines_for_all_commands(record_property):
    record_property("lines", len(LINES))
    assert len(LINES) > 250 and {line.split()[0] for line, _ in LINES} >= set(KNOWN_COMMANDS)
    assert typed("trian")[0] == 2


# a full disk

def test_a_full_disk_is_said_with_the_path_and_what_is_left(folder, tmp_path, monkeypatch):
    figure = v.image_grid(X[:2])
    v.save_figure(figure, tmp_path / "a.png")
    thing("model").save(tmp_path / "run")
    before, _ = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}, thing("report")
    def full(path, *_, **__):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    for work, path in ((lambda: v.save_figure(figure, tmp_path / "a.png"), "a.png"),
                       (lambda: thing("model").save(tmp_path / "run"), "config.json"),
                       (lambda: v.compare([thing("report")] * 2, tmp_path / "compare.html"), "compare.html")):
        with pytest.raises(v.InputError) as refused: work()
        assert path in str(refused.value) and "No space left on device" in str(refused.value)
        assert "what was there before is unchanged" in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    monkeypatch.chdir(folder)
    code, said = typed(f"sample run --out {tmp_path}/b.png")
    assert code == 2 and "b.png' can't be written: No space left on device" in said and len(said.splitlines()) == 1


def test_a_folder_that_can_not_be_written_is_said_before_the_work(folder, monkeypatch):
    monkeypatch.chdir(folder)
    def work(*_, **__): raise AssertionError("this is the work")
    monkeypatch.setattr("vae_nb.evaluation.reports.measure_sections", work)
    monkeypatch.setattr("vae_nb.generation.model_figures.varied_images", work)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for line in ("evaluate run --data pictures --no-progress", "figures run --data pictures --no-progress --out new"):
        code, said = typed(line)
        assert code == 2 and "can't be written: you may not write there" in said and len(said.splitlines()) == 1


# names that mean something to a format, tried wherever a name can come in

NASTY = ["_hidden", "$", "a$b$c", r"$\frac{1$", "x^2_{", "\\", "<b>bold</b>", "</script><script>alert(1)</script>", "<!--<script>",
         "&amp;", '" onload="alert(1)', "'", "*a* [b](c) `d`", "two\nlines", "tab\t", "% {0} {name}", "$title ${png}", "--",
         "\u202eback", "é σ", "", " "]


def texts(figure):
    from matplotlib.text import Text
    return [t.get_text() for t in figure.findobj(Text)]


def drawn(figure, *formats):
    "The texts that a reader sees; nothing warns."
    with warnings.catch_warnings(action="error"):
        for format in ("png", *formats): assert figure.encode(format)
    return texts(figure)


def test_plain_labels():
    from matplotlib.cbook import is_math_text
    for name in NASTY:
        shown = plain_label(name)
        assert not is_math_text(shown)
        assert shown.replace(r"\$", "$").strip("\u200b ") == re.sub(r"[\n\t]", " ", name).strip()


def test_names_in_figures():
    shown, many, labels = [plain_label(name) for name in NASTY], len(NASTY), torch.arange(len(NASTY))
    x = torch.rand(many, 1, 4, 4)
    data = v.Data(X[:16], X[16:20], x, name=NASTY[3], classes=tuple(NASTY), labels={"test": labels})
    embedded = v.embedding_figure(thing("model"), data)
    assert [t.get_text() for t in embedded.axes[0].get_legend().get_texts()] == shown
    named = {name: thing("gaps") for name in NASTY}
    for figure in (embedded, v.curves({name: HISTORY for name in NASTY}), v.image_grid(x, columns=1, row_labels=NASTY),
                   v.gaps_figure(named)):
        assert set(shown) <= set(drawn(figure))
    rocs = drawn(v.roc_figure({name: ([0.0, 1.0], [2.0]) for name in NASTY}), "svg", "pdf")
    for label in shown: assert any(text.endswith(label) for text in rocs)


def test_names_in_widgets():
    few = [name for name in NASTY if set(name) & set("$<&\"_")]
    data = v.Data(X[:16], X[16:20], X[20:], classes=(few[0], "b"), labels={"test": torch.arange(10) % 2})
    explorer = v.NoiseExplorer({name: thing("model") for name in few}, data)
    assert {plain_label(name) for name in few} <= set(drawn(explorer.figure()))
    titles = [w.value for w in every_widget(explorer.widget) if isinstance(getattr(w, "value", None), str)]
    for name in few: assert f"<b>{html_escape(f'{name}: mean')}</b>" in titles


def every_widget(widget):
    yield widget
    for child in getattr(widget, "children", ()): yield from every_widget(child)


def test_names_in_pages(tmp_path):
    "A page has the tags that it has with a harmless name, and shows the nasty one as text."
    from html.parser import HTMLParser
    class Reader(HTMLParser):
        def __init__(self, text):
            super().__init__()
            self.tags, self.words = [], []
            self.feed(text)
        def handle_starttag(self, tag, attrs): self.tags.append((tag, [key for key, _ in attrs]))
        def handle_data(self, data): self.words.append(data)
        def handle_comment(self, data): self.tags.append(("comment", []))
    def pages(names):
        data = v.Data(X[:16], X[16:20], X[20:], classes=tuple(names[:10]), labels={"test": torch.arange(10)})
        v.export_explorer(thing("model"), tmp_path / "page.html", data, title=" ".join(names))
        report = thing("report")
        found = [report | {"name": name, "data": report["data"] | {"name": names[8]}} for name in names]
        v.compare(found, tmp_path / "compare.html")
        return [(tmp_path / page).read_text(encoding="utf-8") for page in ("page.html", "compare.html")]
    for text, harmless in zip(pages(NASTY), pages(["harmless"] * len(NASTY))):
        page, other = Reader(text), Reader(harmless)
        assert page.tags == other.tags
        for name in NASTY: assert name.strip() in "".join(page.words)
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        assert len(scripts) == len(re.findall("<script>", harmless))
        assert all("</script" not in part and "<!--" not in part for part in scripts)


# what an explorer keeps

EXPLORERS = {"LatentExplorer": {}, "TraversalExplorer": dict(steps=2), "InterpolationPlayer": {}, "TrainingMonitor": dict(n_images=2),
             "NoiseExplorer": {}}


def explorer_of(kind):
    model, data = v.create_vae((1, 4, 4), **TINY), v.Data(X[:16], X[16:20], X[20:])
    given = {"a": model} if kind == "NoiseExplorer" else model
    explorer = getattr(v, kind)(given, data, **EXPLORERS[kind])
    return explorer, [weakref.ref(model), weakref.ref(data), weakref.ref(explorer)]


@pytest.mark.parametrize("kind", EXPLORERS)
def test_dropped_explorers_are_collected(kind):
    kept = [explorer_of(kind)[1] for _ in range(5)]
    gc.collect()
    assert all(one() is None for few in kept for one in few)


@pytest.mark.parametrize("kind", EXPLORERS)
def test_closed_explorers_free_model_and_data(kind):
    explorer, (model, data, _) = explorer_of(kind)
    widget = explorer.widget
    explorer.close()
    gc.collect()
    assert model() is None and data() is None and widget.comm is None
    with pytest.raises(AttributeError, match=f"{kind} has no .* any more: it was closed"): explorer.figure()


def test_a_living_explorer_still_listens():
    explorer, _ = explorer_of("LatentExplorer")
    gc.collect()
    explorer.index.value = 3
    assert "test image 3" in explorer.status.value
    slider = explorer.sliders[0]
    slider.value = slider.value + 0.25
    assert explorer.z[0].item() == pytest.approx(slider.value)


def test_figures_and_reports_under_warnings_as_errors(tmp_path):
    labelled = v.Data(X[:16], X[16:20], X[20:], labels={"test": torch.arange(10) % 3})
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", "effective sample size|images have|of the images", UserWarning)  # what a report says of its numbers
        v.kl_figure(thing("model"), labelled).encode()
        v.embedding_figure(thing("model"), labelled).encode()
        v.report(thing("model"), labelled, tmp_path, k=1, likelihood_k=4, n_images=4, n_gap_images=2)
