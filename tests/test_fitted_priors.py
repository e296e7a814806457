"""Priors that are fitted to encoded images when a training has ended: what is saved, and what a resumed run does."""
import json
import warnings
from unittest.mock import patch

import pytest
import torch

import vae_nb as v
from vae_nb.models.tensor_files import load_tensors, save_tensors
from vae_nb.models.vae import VAE
from vae_nb.training import fit as training
from vae_nb.training import runs

pytestmark = pytest.mark.usefixtures("one_thread")
SHORT = dict(epochs=3, batch_size=16, lr=5e-3, schedule="constant", progress=False)
X = (torch.linspace(0, 6, 64).reshape(1, 1, 8, 8) * torch.rand(100, 1, 1, 1, generator=torch.Generator().manual_seed(1))).sin().abs()
DATA = v.load_data(X)


def new(seed=0, **options):
    torch.manual_seed(seed)
    return v.create_vae((1, 8, 8), **{**dict(latent_dim=3, encoder="mlp", decoder="mlp", hidden=(8,), sigma_floor=0.1), **options})


def train(model, **options): return v.fit(model, DATA, **{**SHORT, **options})


def resumed(model, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is finished after")
        return train(model, resume=True, **options)


def assert_same(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a: assert torch.equal(a[name], b[name]), name


def no_fit(*_, **__): raise AssertionError("a prior is fitted")


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "flow"])
@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
def test_the_saved_model_has_it(kind, prior, tmp_path):
    model, plain = new(prior=prior), new(prior=prior)
    history = train(model, out=tmp_path / "run", prior_after=kind)
    bare = train(plain, out=tmp_path / "plain")
    again, best = VAE.load(tmp_path / "run"), VAE.load(tmp_path / "plain")
    assert again.config["prior"] == model.config["prior"] and model.config["prior"]["fitted"] == kind
    assert_same(again, model)
    assert_same(again.encoder, best.encoder); assert_same(again.decoder, best.decoder)  # the training is the same
    assert_same(again.prior, v.fit_prior(best, DATA, kind))
    row = history[runs.best_epoch(history) - 1]
    expected = v.evaluate(again, DATA, "valid")["elbo"]
    assert row.pop("fitted_valid_elbo") == pytest.approx(expected, abs=0.5) and history == bare
    state = json.loads(load_tensors(tmp_path / "run" / "last.safetensors")[1]["state"])
    assert state["settings"]["prior_after"] == kind and state["fitted"] == model.config["prior"]
    assert "fitted_valid_elbo" in (tmp_path / "run" / "history.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("patience", [None, 5])
@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_a_finished_run_is_not_fitted_twice(prior, patience, tmp_path):
    model, again = new(prior=prior), new(1, prior=prior)
    options = dict(out=tmp_path / "run", prior_after="mixture", patience=patience)
    history, before = train(model, **options), (tmp_path / "run" / "model.safetensors").read_bytes()
    with patch("vae_nb.training.fit.fit_prior", no_fit): assert resumed(again, **options) == history
    assert_same(again, model)
    assert again.config == model.config and (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_the_best_epoch_gets_it(tmp_path):
    "The last epoch is worse than the first: memory and folder have the weights of the first, and a prior that was fitted to them."
    falling = lambda run, data, device, step: {"valid_elbo": -float(step)}
    with patch("vae_nb.training.fit.validate", falling):
        history = train(model := new(), out=tmp_path / "run", prior_after="gaussian")
        train(plain := new(), out=tmp_path / "plain")
        first = VAE.load(tmp_path / "plain")
        assert "fitted_valid_elbo" in history[0] and "fitted_valid_elbo" not in history[2]
        assert_same(VAE.load(tmp_path / "run"), model)
        assert_same(model.encoder, first.encoder)
        assert_same(model.prior, v.fit_prior(first, DATA))
        assert not torch.equal(next(first.parameters()), next(plain.parameters()))
        resumed(again := new(1), out=tmp_path / "run", prior_after="gaussian")
        assert_same(again, model)
        train(alone := new(), prior_after="gaussian")
        assert_same(alone, model)


@pytest.mark.parametrize("falls", [False, True])
@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_a_run_that_goes_on_takes_it_back(prior, falls, tmp_path):
    "Two epochs and a prior, then two more: the same, to the last bit, as four and a prior."
    validate = training.validate
    def worse(*arguments): return {**validate(*arguments), "valid_elbo": -float(arguments[3])}
    with patch("vae_nb.training.fit.validate", worse if falls else validate):
        parts = dict(out=tmp_path / "parts", prior_after="mixture")
        train(new(prior=prior), **parts, epochs=2)
        (tmp_path / "parts" / "run.json").write_text("{}")
        with patch("vae_nb.training.fit.fit_prior", side_effect=KeyboardInterrupt), pytest.warns(UserWarning, match="no prior was fitted"):
            train(new(1, prior=prior), **parts, epochs=3, resume=True)
        assert VAE.load(tmp_path / "parts").config["prior"] == prior  # that of its training
        model = new(2, prior=prior)
        history = resumed(model, **parts, epochs=4)
        whole = new(prior=prior)
        assert train(whole, out=tmp_path / "whole", prior_after="mixture", epochs=4) == history
    assert_same(model, whole)
    assert (tmp_path / "parts" / "run.json").read_text() == "{}"
    for name in ("model.safetensors", "last.safetensors", "history.csv", "config.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_without_one_may_get_one(tmp_path):
    train(new(), out=tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text("{}")  # of the model as it was
    resumed(model := new(1), out=tmp_path / "run", prior_after="gaussian")
    train(whole := new(), out=tmp_path / "whole", prior_after="gaussian")
    assert_same(model, whole)
    assert_same(VAE.load(tmp_path / "run"), whole)
    assert not (tmp_path / "run" / "report.json").exists()
    for other in ("mixture", None):
        with pytest.raises(v.InputError, match=f"prior_after={other!r}: the run in .* was started with 'gaussian'"):
            resumed(new(), out=tmp_path / "run", prior_after=other)


def test_checkpoints_from_before(tmp_path):
    "They don't say that no prior was to be fitted."
    train(whole := new(), out=tmp_path / "whole"); train(new(), out=tmp_path / "run", epochs=2)
    path = tmp_path / "run" / "last.safetensors"
    tensors, metadata = load_tensors(path)
    state = json.loads(metadata["state"])
    assert state["settings"].pop("prior_after") is None
    save_tensors(path, tensors, {"state": json.dumps(state)})
    resumed(model := new(1), out=tmp_path / "run")
    assert_same(model, whole)


def test_one_that_makes_it_worse_is_said_and_kept(tmp_path):
    far = v.MixturePrior(3, 2)
    far.loc += 100
    with patch("vae_nb.training.fit.fit_prior", lambda *_, **__: far), pytest.warns(UserWarning, match="prior_after='mixture': .*the fitted one is kept"):
        train(model := new(), out=tmp_path / "run", prior_after="mixture")
    assert_same(model.prior, far); assert_same(VAE.load(tmp_path / "run").prior, far)


@pytest.mark.parametrize("where", ["write", "publish"])
def test_a_write_that_fails_leaves_the_trained_model(where, tmp_path):
    def fails(*_, **__): raise OSError("no space left")
    train(new(), out=tmp_path / "run", epochs=3)
    target = dict(write="amend_checkpoint", publish="publish")[where]
    with patch(f"vae_nb.training.runs.{target}", fails), pytest.raises(OSError, match="no space left"):
        resumed(new(1), out=tmp_path / "run", prior_after="gaussian")
    assert VAE.load(tmp_path / "run").config["prior"] is None
    resumed(model := new(1), out=tmp_path / "run", prior_after="gaussian")
    assert_same(VAE.load(tmp_path / "run"), model)


def test_what_can_not_work_is_refused_before(tmp_path):
    for wrong, options, few, message in (
            ("gaussian", dict(posterior="flow"), 100, "prior_after='gaussian' needs a posterior with a known covariance"),
            ("mixture", {}, 9, "prior_after='mixture' with 9 training images: expected at least 10"),
            ("flow", {}, 19, "expected at least 20"), ("gaussain", {}, 100, "Did you mean 'gaussian'"), (7, {}, 100, "prior_after=7")):
        with pytest.raises(v.InputError, match=message), patch.object(training.Run, "complete", no_fit):
            v.fit(new(**options), v.Data(X[:few], X[:0], X[:0]), **{**SHORT, "batch_size": 4}, prior_after=wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failed_fit_leaves_the_trained_model(tmp_path):
    def fails(*_, **__): raise v.InputError("EM has found no mixture")
    with patch("vae_nb.training.fit.fit_prior", fails), pytest.warns(UserWarning, match="keeps its own .EM has found no mixture"):
        train(new(), out=tmp_path / "run", prior_after="mixture")
    assert VAE.load(tmp_path / "run").config["prior"] is None


def test_of_a_conditional_model(tmp_path):
    data = v.load_data(X, labels=torch.arange(100) % 3)
    model = new(classes=3)
    v.fit(model, data, **SHORT, out=tmp_path / "run", prior_after="mixture")
    assert VAE.load(tmp_path / "run").sample(3, label=[0, 1, 2]).shape == (3, 1, 8, 8)


def test_a_damaged_record_is_refused(tmp_path):
    train(new(), out=tmp_path / "run", prior_after="mixture")
    path = tmp_path / "run" / "last.safetensors"
    tensors, metadata = load_tensors(path)
    for fitted, message in (({"fitted": "x"}, "is not known"), ({"own": "A"}, "no checkpoint of fit"), (5, "no checkpoint of fit"),
                            ({"fitted": "mixture", "components": 4}, "prior|shape|architecture")):
        save_tensors(path, tensors, {"state": json.dumps({**json.loads(metadata["state"]), "fitted": fitted})})
        with pytest.raises(v.InputError, match=message): resumed(new(), out=tmp_path / "run", prior_after="mixture")
