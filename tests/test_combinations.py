"""Everything goes with everything: each trains forty steps on one batch, in float32 and with bfloat16 networks."""
from functools import partial
from itertools import product

import pytest
import torch

from vae_nb import create_vae, elbo, iwae
from vae_nb.distributions.beta_nll import beta_nll_score
from vae_nb.training.acceleration import PRECISIONS
from vae_nb.training.fit import TrainingStep

LIKELIHOODS = {"bernoulli": (dict(likelihood="bernoulli"), None),
               **{f"{noise}{' β' if beta else ''}": (dict(noise=noise), beta)
                  for noise in ("homoscedastic", "imagewise", "pixelwise") for beta in (None, 0.5)},
               **{name: (dict(likelihood=name), None) for name in (
                   "discretised_logistic", "continuous_bernoulli", "beta", "discretised_mixture", "low_rank_gaussian", "categorical")}}
SHAPES = {"28×28×1": (1, 28, 28), "17×23×3": (3, 17, 23)}


def true_elbo(model, x):
    "The ELBO of the batch, in float32 and always with the same noise."
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        terms = model(x, k=4)
        for name in ("log_px", "kl", "score"): assert getattr(terms, name).isfinite().all(), f"{name} is not finite"
        return (terms.log_px.mean(0) - terms.kl).mean().item()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("posterior", ["mean_field", "full_covariance"])
@pytest.mark.parametrize("encoder, decoder", list(product(["mlp", "cnn"], repeat=2)))
def test_trains(encoder, decoder, posterior, likelihood):
    options, beta = LIKELIHOODS[likelihood]
    score = None if beta is None else partial(beta_nll_score, beta=beta)
    for shape, precision in product(SHAPES.values(), ("fp32", "bf16")):
        torch.manual_seed(0)
        x = torch.rand(8, *shape)
        if likelihood == "bernoulli": x = x.round()
        if likelihood in ("categorical", "discretised_logistic", "discretised_mixture"): x = (x * 255).round() / 255
        model = create_vae(shape, 3, encoder, decoder, posterior, hidden=(16,), channels=(4, 4), **options)
        before = true_elbo(model, x)
        step = TrainingStep(model, elbo, score, k=1, dtype=PRECISIONS[precision])
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
        for _ in range(40):
            optimizer.zero_grad()
            value, sums = step(x)
            (-value / len(x)).backward()
            optimizer.step()
            assert sums.isfinite().all(), (shape, precision)
        assert true_elbo(model, x) > before, (shape, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("posterior, prior", [
    *((posterior, "normal") for posterior in ("low_rank", "mixture", "flow")),
    *(("mean_field", prior) for prior in ("mixture", "vamp", "flow")), ("mixture", "flow"), ("flow", "vamp"), ("low_rank", "vamp")])
def test_posteriors_and_priors_train(posterior, prior, precision):
    torch.manual_seed(0)
    x = torch.rand(8, 1, 6, 6)
    model = create_vae((1, 6, 6), 3, "mlp", "mlp", posterior, hidden=(16,), prior=prior)
    before = true_elbo(model, x)
    step = TrainingStep(model, elbo, None, k=1, dtype=PRECISIONS[precision])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    for _ in range(60):
        optimizer.zero_grad()
        value, sums = step(x)
        (-value / len(x)).backward()
        assert sums.isfinite().all() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert true_elbo(model, x) > before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("latent_dim, objective, k",
                         [(1, elbo, 1), (32, elbo, 1), (128, elbo, 1), (32, iwae, 3), (128, iwae, 3)])
def test_full_covariance_is_stable(latent_dim, objective, k, precision):
    "From the first step on, at a learning rate that is too high, for latents up to 128."
    torch.manual_seed(0)
    x = torch.rand(16, 1, 12, 12)
    model = create_vae((1, 12, 12), latent_dim, "mlp", "mlp", "full_covariance", hidden=(32,))
    step = TrainingStep(model, objective, None, k, PRECISIONS[precision])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    before = true_elbo(model, x)
    for _ in range(300):
        optimizer.zero_grad()
        value, _ = step(x)
        assert value.isfinite()
        (-value / len(x)).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
    assert true_elbo(model, x) > before
