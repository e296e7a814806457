"""Every likelihood that has a name goes through the library: it is trained, measured, saved, drawn and explored, or refused in words."""
import math
import warnings
from functools import cache

import matplotlib.pyplot as plt
import pytest
import torch

import vae_nb as v
from vae_nb.distributions.likelihoods import LocationScale
from vae_nb.models.vae import LIKELIHOOD_OPTIONS
from vae_nb.training.fit import fit

SHAPE = (1, 6, 5)
LEVELS = {name: v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(4,), likelihood=name).decoder.head.levels for name in LIKELIHOOD_OPTIONS}
REFUSED = { # (likelihood, what is asked for): a part of the message
    ("low_rank_gaussian", "calibration"): "whose pixels have no distributions of their own",
    ("low_rank_gaussian", "posterior_given_visible"): "expected an Independent, whose pixels have densities of their own",
    ("low_rank_gaussian", "beta_nll"): "expected an Independent, whose pixels have densities of their own",
}
PAGES = {"gaussian", "bernoulli"} # the likelihoods that a page for the browser knows


@cache
def data(binary):
    "Blobs of two sizes at many places, as bytes."
    torch.manual_seed(0)
    rows, columns = torch.arange(6.)[:, None], torch.arange(5.)
    center, width = 4 * torch.rand(260, 2, 1, 1), 1 + torch.rand(260, 1, 1).round()
    x = (-((rows - center[:, 0]) ** 2 + (columns - center[:, 1]) ** 2) / width ** 2).exp()[:, None]
    x = (255 * (x.round() if binary else x)).round().byte()
    return v.Data(x[:200], x[200:230], x[230:], name="blobs")


@cache
def trained(name):
    torch.manual_seed(0)
    model = v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(16,), likelihood=name)
    history = fit(model, data(LEVELS[name] == 2), epochs=25, batch_size=20, lr=5e-3, progress=False)
    return model, history


NAMES = pytest.mark.parametrize("name", LIKELIHOOD_OPTIONS)


def asked(name, what, call):
    "The result of a call, or None where it is refused in the words of `REFUSED`."
    if (name, what) not in REFUSED: return call()
    with pytest.raises(v.InputError, match=REFUSED[name, what]): call()
    return None


@NAMES
def test_trains_in_both_precisions(name):
    model, history = trained(name)
    assert history[-1]["train_elbo"] > history[0]["train_elbo"] and math.isfinite(history[-1]["valid_elbo"])
    torch.manual_seed(0)
    again = v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(16,), likelihood=name)
    rows = fit(again, data(LEVELS[name] == 2), epochs=10, batch_size=20, lr=5e-3, precision="bf16", progress=False)
    assert rows[-1]["train_elbo"] > rows[0]["train_elbo"]
    assert all(math.isfinite(row["train_elbo"]) for row in (*history, *rows))
    fit(again, data(LEVELS[name] == 2), epochs=1, batch_size=50, compile=False, objective="iwae", k=3, progress=False)


@NAMES
@pytest.mark.filterwarnings("ignore:.*(effective|hang on a few|beta_nll)")
def test_is_measured(name):
    (model, _), images = trained(name), data(LEVELS[name] == 2)
    x = images.test[:6]
    numbers = v.evaluate(model, images)
    assert all(math.isfinite(n) for n in numbers.values() if isinstance(n, float))
    by_samples = v.log_likelihood(model, x, k=2000)
    by_annealing = v.annealed_importance(model, x, chains=16, steps=60, leapfrog=4)
    assert (by_annealing["log_likelihood"] > by_samples - 4 * by_annealing["standard_error"] - 1).all()  # both are low, if anything
    assert v.bidirectional(model, 3, chains=4, steps=20, leapfrog=3)["gap"].isfinite().all()
    found = asked(name, "calibration", lambda: v.calibration(model, images))
    if found: assert 0 <= found["varying"]["calibration_error"] <= 0.5
    z = asked(name, "posterior_given_visible", lambda: v.posterior_given_visible(model, x, torch.ones(SHAPE).bool().triu(1), burn_in=6, draws=4))
    if z: assert z["z"].isfinite().all()
    if LEVELS[name] == 256: assert (v.bits_per_dimension(model, x, k=50) > 0).all()  # of probabilities, which are below one
    else:
        with pytest.raises(v.InputError, match="densities are not probabilities|probabilities to 2 values"): v.bits_per_dimension(model, x)
    report = v.report(model, images, k=1, likelihood_k=20, n_images=6, n_gap_images=2)
    assert math.isfinite(report["numbers"]["elbo"])
    with warnings.catch_warnings(action="ignore"):
        asked(name, "beta_nll", lambda: fit(v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(4,), likelihood=name), images, epochs=1,
                                            beta_nll=0.5, progress=False))


@NAMES
def test_is_saved_drawn_and_explored(name, tmp_path):
    (model, _), images = trained(name), data(LEVELS[name] == 2)
    x = images.test[:6]
    model.save(tmp_path / "model")
    again = v.VAE.load(tmp_path / "model")
    with v.evaluating(model), v.evaluating(again):
        p, q = model.reconstruct(x), again.reconstruct(x)
        assert torch.equal(p.log_prob(model.prepare(x)), q.log_prob(model.prepare(x))) and torch.equal(p.stddev, q.stddev)
    for figure in (v.pipeline_figure(model, x, seed=0), v.prior_figure(model, 4), v.traversal_figure(model, x[:4], steps=3),
                   v.neighbourhood_figure(model, x[0], n=3)): assert figure is not None
    plt.close("all")
    explorer = v.LatentExplorer(model, images)
    assert explorer is not None
    torch.manual_seed(0)
    drawn = model.sample(50)
    assert drawn.shape == (50, *SHAPE) and drawn.isfinite().all()
    if LEVELS[name]: model.decoder.head.check_data(drawn)
    elif name in ("continuous_bernoulli", "beta"): assert drawn.min() >= -0.002 and drawn.max() <= 1.002
    gaussian = isinstance(model.decoder.head, LocationScale)               # a Gaussian may have simulated such images, with a warning
    for values in (*([] if gaussian else [x.float() / 255 + 0.5]), x.float()):
        with pytest.raises(v.InputError), warnings.catch_warnings(action="ignore"):
            model.decoder.head.check_data(values)
            model(values)
    if name in PAGES: v.export_explorer(model, tmp_path / "page.html", images, presets=2)
    else:
        with pytest.raises(v.InputError, match="the likelihood is a .*; a page knows"): v.export_explorer(model, tmp_path / "page.html", images)
