"""Posteriors and priors that know no moments: a flow, a relaxed categorical; training, evaluating and drawing."""
import copy
import sys
from functools import partial

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn
from torch.distributions import (Distribution, Independent, Normal, RelaxedOneHotCategorical, Transform,
                                 TransformedDistribution, constraints)

import vae_nb as v
from vae_nb.distributions.vamp import VampPrior
from vae_nb.core import moments_of
from vae_nb.distributions.flows import spline_type
from vae_nb.models.fitted_priors import fit_prior
from vae_nb.training import regularisers
from vae_nb.training.gradient_estimators import elbo_stl, iwae_dreg

L = 3


class Sinh(Transform):
    domain, codomain, bijective, sign = constraints.real, constraints.real, True, 1
    def _call(self, x): return x.sinh()
    def _inverse(self, y): return y.asinh()
    def log_abs_det_jacobian(self, x, y): return x.cosh().log()


class Flow(v.MeanField):
    def distribution(self, raw): return TransformedDistribution(super().distribution(raw), Sinh())


class Relaxed(v.Head):
    "A point on the simplex of L corners."
    def __init__(self): super().__init__((L,), (L,))
    def distribution(self, raw): return RelaxedOneHotCategorical(torch.tensor(0.7), logits=raw, validate_args=False)


class FlowPrior(v.GaussianPrior):
    def forward(self): return TransformedDistribution(super().forward(), Sinh())


class SimplexPrior(v.GaussianPrior):
    def forward(self): return RelaxedOneHotCategorical(self.scale[0], logits=self.loc, validate_args=False)


PAIRS = {"flow": (Flow(L), FlowPrior(L)), "relaxed": (Relaxed(), SimplexPrior(L))}


@pytest.fixture(params=PAIRS)
def model(request):
    torch.manual_seed(0)
    head, prior = PAIRS[request.param]
    return v.create_vae((1, 6, 6), L, "mlp", "mlp", hidden=(16,), posterior=head, prior=prior, likelihood="bernoulli")


@pytest.fixture(scope="module")
def x(): return (torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(0)) < 0.5).byte() * 255


def test_heads(): v.check_head(Flow(L), wild=1); v.check_head(Relaxed(), wild=1)


@pytest.mark.parametrize("objective", ["elbo", elbo_stl, "iwae", iwae_dreg, regularisers.info_vae])
def test_trains(model, x, objective):
    history = v.fit(model, x, epochs=1, batch_size=12, objective=objective, k=1 if objective == "elbo" else 2,
                    progress=False)
    assert all(torch.tensor(value).isfinite() for value in history[-1].values())


@pytest.mark.parametrize("objective", [regularisers.dip_vae, regularisers.tc_vae, regularisers.free_bits])
def test_refused_where_moments_need_gradients(model, x, objective):
    with pytest.raises(v.InputError, match="posterior is (a )?(TransformedDistribution|RelaxedOneHotCategorical)"):
        v.fit(model, x, epochs=1, batch_size=12, objective=objective, progress=False)


def test_evaluates_and_draws(model, x):
    found = v.evaluate(model, x)
    assert found == v.evaluate(model, x) and found["rmse"] < 1  # the moments are drawn from the seed of evaluating
    v.log_likelihood(model, x[:4], k=10)
    if isinstance(model.prior, FlowPrior):
        assert torch.tensor(v.inference_gaps(model, x[:6], k=20, steps=3)["inference_gap"]).isfinite()
        assert v.annealed_importance(model, x[:3], chains=2, steps=3)["log_likelihood"].isfinite().all()
    else:
        for wrong in (lambda: v.inference_gaps(model, x[:6]), lambda: v.annealed_importance(model, x[:3]),
                      lambda: v.bidirectional(model, 2)):
            with pytest.raises(v.InputError, match="the prior, a RelaxedOneHotCategorical, has the support"): wrong()
    for figure in (v.neighbourhood_figure(model, x[0]), v.embedding_figure(model, x), v.pipeline_figure(model, x[:3]),
                   v.prior_figure(model), v.traversal_figure(model, x[:4], steps=3)):
        assert figure.axes
    assert v.LatentExplorer(model, v.load_data(x)) and v.LatentExplorer(model)
    for wrong in (lambda: v.latent_numbers(model, x), lambda: fit_prior(model, x)):
        with pytest.raises(v.InputError, match="marginals are not known|known covariance|independent normal"): wrong()
    assert fit_prior(model, x, kind="mixture", components=2)().batch_shape == ()


def test_moments_of_samples():
    "A flow's estimated moments against those of a long run, and the caller's random state."
    torch.manual_seed(0)
    q = Flow(L)(torch.randn(7, 2 * L))
    draws = q.sample((100_000,))
    torch.manual_seed(1); found = moments_of(q, 4000)
    torch.manual_seed(1); again = moments_of(q, 4000)
    assert torch.equal(found.mean, again.mean) and not found.exact and not found.mean.requires_grad
    assert ((found.mean - draws.mean(0)) / draws.std(0)).abs().max() < 4.5 / 4000 ** 0.5
    kurtosis = ((draws - draws.mean(0)) ** 4).mean(0) / draws.var(0) ** 2
    assert ((found.stddev / draws.std(0) - 1) / ((kurtosis - 1) / 4 / 4000).sqrt()).abs().max() < 4.5
    class Far(Normal):
        mean = property(lambda self: Distribution.mean.fget(self))

    far = moments_of(Far(torch.full((2,), 1e5), torch.tensor(0.1)))
    assert not far.exact and (far.stddev - 0.1).abs().max() < 0.01  # nothing cancels


@pytest.mark.parametrize("build", ["create_vae", "VAE"])
def test_without_rsample(build):
    class Counts(v.MeanField):
        def distribution(self, raw):
            return Independent(torch.distributions.Poisson(raw[..., :L].exp(), validate_args=False), 1)

    class Quiet(v.MeanField):
        def distribution(self, raw): return super().distribution(raw.detach())

    for head in (Counts(L), Quiet(L)):
        with pytest.raises(v.InputError, match=f"{type(head).__name__}: .* carry no gradient"):
            if build == "create_vae": v.create_vae((1, 6, 6), L, posterior=head)
            else: v.VAE(v.Conditional(nn.Sequential(nn.Flatten(), nn.Linear(36, 2 * L)), head, (1, 6, 6)),
                        v.create_vae((1, 6, 6), L).decoder, v.GaussianPrior(L))
        with pytest.raises(v.InputError): v.check_head(head)


NAMED = [("low_rank", "normal"), ("mixture", "normal"), ("flow", "normal"), ("mean_field", "mixture"), ("mean_field", "vamp"),
         ("mean_field", "flow"), ("low_rank", "vamp"), ("flow", "vamp"), ("mixture", "flow"), ("flow", "flow")]


@pytest.fixture(scope="module", params=NAMED, ids="-".join)
def named(request, x, tmp_path_factory):
    "A model of each family, trained for a moment, and its folder."
    torch.manual_seed(0)
    posterior, prior = request.param
    model = v.create_vae((1, 6, 6), L, "mlp", "mlp", hidden=(16,), posterior=posterior, prior=prior, likelihood="bernoulli")
    out = tmp_path_factory.mktemp("run")
    history = v.fit(model, x, epochs=1, batch_size=12, progress=False, out=out)
    assert all(torch.tensor(value).isfinite() for value in history[-1].values())
    return v.VAE.load(out), out


def test_named_families_are_saved_and_loaded(named, x, tmp_path):
    model, _ = named
    model.save(tmp_path)
    again = v.VAE.load(tmp_path)
    assert v.evaluate(model, x) == v.evaluate(again, x) and again.config == model.config
    if isinstance(model.prior, VampPrior): assert again.prior.posteriors().batch_shape == (50,)
    twin = copy.deepcopy(again).double()
    assert twin(x[:3] / 255.0).log_pz.dtype == torch.float64
    v.fit(again, x, epochs=1, batch_size=12, progress=False)
    assert v.evaluate(model, x) != v.evaluate(again, x)


def test_named_families_are_measured_and_drawn(named, x):
    model, _ = named
    assert v.log_likelihood(model, x[:4], k=20).isfinite().all()
    assert v.annealed_importance(model, x[:3], chains=2, steps=3, leapfrog=1)["log_likelihood"].isfinite().all()
    assert v.bidirectional(model, 2, chains=2, steps=3, leapfrog=1)["gap"].isfinite().all()
    assert torch.tensor(v.inference_gaps(model, x[:4], k=20, steps=3)["inference_gap"]).isfinite()
    for figure in (v.neighbourhood_figure(model, x[0]), v.embedding_figure(model, x), v.pipeline_figure(model, x[:3]),
                   v.prior_figure(model), v.traversal_figure(model, x[:4], steps=3)):
        assert figure.axes
        plt.close(figure)
    assert v.LatentExplorer(model, v.load_data(x)) and fit_prior(model, x, kind="mixture", components=2)().batch_shape == ()
    known = moments_of(model.encode(x), 2).exact
    for refused, call in ((not known, lambda: fit_prior(model, x)),
                          (model.config["posterior"] not in ("mean_field", "low_rank") or model.config["prior"] != "normal",
                           lambda: v.latent_numbers(model, x))):
        if not refused: call()
        else:
            with pytest.raises(v.InputError, match="marginals are not known|known covariance|independent normal"): call()


@pytest.mark.parametrize("objective", [elbo_stl, "iwae", iwae_dreg, regularisers.info_vae, regularisers.dip_vae,
                                       regularisers.tc_vae, regularisers.free_bits], ids=lambda o: getattr(o, "__name__", o))
@pytest.mark.parametrize("posterior", ["low_rank", "mixture", "flow"])
def test_objectives_of_named_posteriors(posterior, objective, x):
    model = v.create_vae((1, 6, 6), L, "mlp", "mlp", hidden=(16,), posterior=posterior, likelihood="bernoulli")
    train = partial(v.fit, model, x, epochs=1, batch_size=12, objective=objective, k=2, progress=False)
    gaussian = objective in (regularisers.tc_vae, regularisers.free_bits)
    if posterior == "low_rank" or not gaussian and (posterior, objective) != ("flow", regularisers.dip_vae):
        assert torch.tensor(train()[-1]["train_elbo"]).isfinite()
    else:
        with pytest.raises(v.InputError, match="posterior is (a )?(ReparameterisedMixture|FlowDistribution)"): train()


def test_without_zuko(monkeypatch):
    "The line to write, where the model is made, and where it is loaded; other models need no zuko."
    spline_type.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]: monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zuko", None)
    for options in (dict(posterior="flow"), dict(prior="flow")):
        with pytest.raises(v.MissingPackageError, match=r"pip install vae_nb\[flows\]"): v.create_vae((1, 6, 6), L, **options)
    assert v.create_vae((1, 6, 6), L, posterior="mixture", prior="vamp")
    spline_type.cache_clear()
