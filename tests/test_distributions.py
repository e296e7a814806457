"""Every prior and every head: expand, leading dimensions, samples, moments, annealing, torch.func."""
import math
import warnings

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import vae_nb as v
from vae_nb.distributions.bounded_pixels import BetaLikelihood, ContinuousBernoulliLikelihood
from vae_nb.distributions.levels import DiscretisedMixture
from vae_nb.distributions.priors import DiagonalMixture, FullCovariancePrior, MixturePrior
from vae_nb.distributions.richer_posteriors import LowRankLatents
from vae_nb.models.inference import RunningWeights

L, SHAPE = 3, (1, 2, 2)
NAMED = ["discretised_logistic", "continuous_bernoulli", "beta", "categorical", "discretised_mixture", "low_rank_gaussian"]


def filled(prior):
    "A prior whose numbers are not those of its start."
    for name, t in prior.state_dict().items():
        if name == "scale_tril": t.copy_((0.3 * torch.randn_like(t)).tril(-1) + (0.5 + torch.rand_like(t[..., 0])).diag_embed())
        elif name == "scale": t.copy_(0.5 + torch.rand_like(t))
        else: t.copy_(torch.randn_like(t))
    return prior


PRIORS = {"gaussian": lambda: v.GaussianPrior(L), "learned mixture": lambda: v.LearnedMixture(L, 4),
          "full covariance": lambda: FullCovariancePrior(L), "mixture": lambda: MixturePrior(L, 4)}
HEADS = {"MeanField": lambda: v.MeanField(L), "FullCovariance": lambda: v.FullCovariance(L),
         "LowRank": lambda: v.LowRank(L, rank=2), "MixturePosterior": lambda: v.MixturePosterior(L, 2),
         "homoscedastic": lambda: v.HomoscedasticGaussian(SHAPE), "fixed": lambda: v.HomoscedasticGaussian(SHAPE, sigma=0.1),
         "imagewise": lambda: v.ImagewiseGaussian(SHAPE), "pixelwise": lambda: v.PixelwiseGaussian(SHAPE, mean="identity"),
         "bernoulli": lambda: v.BernoulliLikelihood(SHAPE), "discretised": lambda: v.DiscretisedLogistic(SHAPE),
         "continuous bernoulli": lambda: ContinuousBernoulliLikelihood(SHAPE), "beta": lambda: BetaLikelihood(SHAPE),
         "categorical": lambda: v.CategoricalLikelihood(SHAPE, levels=5), "discretised mixture": lambda: DiscretisedMixture(SHAPE),
         "low rank": lambda: v.LowRankGaussian(SHAPE, rank=2)}


def distribution(name):
    torch.manual_seed(0)
    if name in PRIORS: return filled(PRIORS[name]())()
    head = HEADS[name]()
    return head(torch.randn(head.param_shape))  # batch ()


ALL = pytest.mark.parametrize("name", [*PRIORS, *HEADS])


@ALL
def test_expand(name):
    p = distribution(name)
    z = p.sample((5, 4, 2))
    one = p.log_prob(z)                                                       # (5, 4, 2)
    for shape in ((2,), (4, 2), (1, 2), (4, 1)):
        many = p.expand((1,)).expand(shape)                                   # also of one that was expanded
        assert type(many) is type(p) and many.batch_shape == shape and many.event_shape == p.event_shape
        torch.testing.assert_close(many.log_prob(z), one)
        torch.testing.assert_close(many.log_prob(z[0, 0, 0]), one[0, 0, 0].expand(shape))  # fewer dimensions than the batch
        for moment in ("mean", "stddev", "variance"):
            torch.testing.assert_close(getattr(many, moment), getattr(p, moment).expand(*shape, *p.event_shape))
        for samples in ((), (3,), (3, 2)): assert many.sample(samples).shape == (*samples, *shape, *p.event_shape)
        assert torch.equal(many.sample((40,)).flatten(0, 2).unique(dim=0).isfinite().all(), torch.tensor(True))
    draws = p.expand((2, 200)).sample().flatten(2).double()                   # each place draws for itself
    assert name in ("bernoulli",) or (draws[0] != draws[1]).any()


def test_expand_where_batch_components_and_latents_are_as_many():
    p = v.LearnedMixture(2, 2)()
    z = p.sample((5, 2))
    torch.testing.assert_close(p.expand((2,)).log_prob(z), p.log_prob(z))
    torch.testing.assert_close(p.expand((2,)).log_prob(z[0, 0]), p.log_prob(z[0, 0]).expand(2))


@ALL
def test_log_prob_of_leading_dimensions(name):
    p = distribution(name)
    z = p.sample((3, 2, 2))
    if name == "beta": z = z.clamp(0, 1)                                     # beyond, float32 has too few pixels for a steep density
    together = p.log_prob(z)
    assert together.shape == (3, 2, 2)
    alone = torch.stack([p.log_prob(one) for one in z.flatten(0, 2)]).reshape(3, 2, 2)
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.double(), wide(p).log_prob(z.double()), rtol=1e-5, atol=1e-4)


def wide(p):
    "The same distribution in float64."
    if isinstance(p, Independent): return type(p)(wide(p.base_dist), p.reinterpreted_batch_ndims)
    if isinstance(p, MixtureSameFamily):
        return MixtureSameFamily(wide(p.mixture_distribution), wide(p.component_distribution))
    if isinstance(p, LowRankLatents): return LowRankLatents(p.loc.double(), p.scale.double(), p.factor.double())
    names = {"MultivariateNormal": ("loc", "scale_tril"), "CholeskyGaussian": ("loc", "scale_tril"), "Normal": ("loc", "scale"),
             "GreyLevels": ("loc", "scale"), "Bernoulli": ("logits",), "Categorical": ("logits",),
             "CutExponential": ("logits",), "SqueezedBeta": ("center", "concentration"), "LevelTable": ("logits",),
             "LowRankNormal": ("loc", "scale", "factors")}[type(p).__name__]
    return type(p)(**{name: getattr(p, name).double() for name in names}, validate_args=False)


@ALL
def test_moments_are_those_of_its_samples(name):
    p, n = distribution(name), 100_000
    draws = p.sample((n,)).double()
    mean, stddev = p.mean.double(), p.stddev.double()
    assert ((draws.mean(0) - mean).abs() <= 4.5 * draws.std(0) / n ** 0.5 + 1e-6).all()
    kurtosis = ((draws - draws.mean(0)) ** 4).mean(0) / draws.var(0).clamp(min=1e-12) ** 2
    error = ((kurtosis - 1).clamp(min=0) / (4 * n)).sqrt() + 2 / n            # of the logarithm of a standard deviation
    assert ((draws.std(0) / stddev - 1).abs() <= 4.5 * error + 1e-5).all()
    torch.testing.assert_close(p.variance, p.stddev.square())


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("options", [dict(posterior="full_covariance", likelihood="bernoulli"), dict(noise="pixelwise"),
                                     dict(noise="imagewise"), dict(noise="homoscedastic"),
                                     dict(noise="optimal"), dict(noise="faithful"), dict(likelihood="laplace"),
                                     *(dict(likelihood=name) for name in NAMED)], ids=lambda o: [*o.values()][-1])
def test_annealing(prior, options):
    torch.manual_seed(0)
    model = v.create_vae(SHAPE, L, "mlp", "mlp", hidden=(4,), prior=filled(PRIORS[prior]()), **options)
    by_prior = RunningWeights(3)
    with v.evaluating(model):
        x = model.sample(3).clamp(0, 1)
        by_prior.add(model.decode(model.prior().sample((40_000, 1))).log_prob(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few chains
        found = v.annealed_importance(model, x, chains=100, steps=15, leapfrog=2)
        v.annealed_importance(model, x, chains=2, steps=3, leapfrog=1, start="posterior")
    error = 4.5 * (found["standard_error"] ** 2 + by_prior.standard_error ** 2).sqrt() + 0.02
    assert ((found["log_likelihood"] - by_prior.log_likelihood).abs() < error).all()
    for start in ("prior", "posterior"):
        assert v.bidirectional(model, 2, chains=4, steps=4, leapfrog=1, start=start)["gap"].isfinite().all()


@pytest.mark.parametrize("L, width, spread", [(16, 0.05, 3), (50, 0.01, 5), (2, 0.01, 50)])
@pytest.mark.parametrize("precision", ["highest", "high"])  # "high" allows TF32 where there is a GPU
def test_narrow_mixtures(L, width, spread, precision):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    loc, scale, logits = spread * torch.randn(100, L), torch.full((100, L), width), torch.randn(100)
    ours, plain = (kind(Categorical(logits=logits.to(device, dtype)), Independent(Normal(loc.to(device, dtype),
                   scale.to(device, dtype)), 1)) for kind, dtype in ((DiagonalMixture, torch.float32),
                                                                     (MixtureSameFamily, torch.float64)))
    z = ours.sample((1000,)).requires_grad_()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        found = ours.log_prob(z)
        slope, = torch.autograd.grad(found.sum(), z)
        many = ours.expand((10,)).log_prob(z.reshape(100, 10, L)).flatten()
    finally: torch.set_float32_matmul_precision(before)
    exact = z.detach().double().requires_grad_()
    value = plain.log_prob(exact)
    expected, = torch.autograd.grad(value.sum(), exact)
    assert (found.double() - value).abs().max() < 1e-4 and torch.equal(many, found)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-4, atol=1e-4 / width)


@pytest.mark.filterwarnings("ignore:.*(index_copy|jit.script|resized)")  # of PyTorch's own rules
@pytest.mark.parametrize("network", ["mlp", "cnn"])
@pytest.mark.parametrize("posterior", ["mean_field", "full_covariance"])
@pytest.mark.parametrize("options", [dict(noise="pixelwise"), dict(noise="imagewise"), dict(noise="homoscedastic"),
                                     dict(noise="faithful"), dict(likelihood="logistic"), dict(likelihood="student_t"),
                                     dict(likelihood="bernoulli"), *(dict(likelihood=name) for name in NAMED)],
                         ids=lambda o: [*o.values()][0])
def test_torch_func(network, posterior, options):
    "vmap, jacfwd, jvp and hessian through a whole model, against plain autograd, one image at a time."
    torch.manual_seed(0)
    model = v.create_vae((1, 5, 4), 2, network, network, posterior, hidden=(4,), channels=(3,), activation="silu",
                         prior=v.LearnedMixture(2, 3), **options).double()
    x = (torch.rand(3, 1, 5, 4, dtype=torch.float64) * 255).round() / 255
    if options.get("likelihood") == "bernoulli": x = x.round()
    z, normal = torch.randn(3, 2, dtype=torch.float64), v.GaussianPrior(2).double()()
    def joint(z): return model.decode(z).log_prob(x[0]) + model.prior().log_prob(z)
    def image(z): return torch.stack([model.decode(z).mean, model.decode(z).stddev])
    def entropy(x): return model.encode(x).log_prob(z[0])
    def kl(x): return kl_divergence(model.encode(x), normal)

    def plain(f, z): return torch.autograd.functional.hessian(f, z)
    for f, points in ((joint, z), (entropy, x), (kl, x)):
        exact = torch.stack([plain(f, point) for point in points])
        torch.testing.assert_close(vmap(hessian(f))(points), exact)
        torch.testing.assert_close(hessian(f)(points[0]), exact[0])
        slope = torch.stack([torch.autograd.functional.jacobian(f, point) for point in points])
        torch.testing.assert_close(vmap(grad(f))(points), slope)
        value, along = jvp(f, (points[0],), (points[1],))
        torch.testing.assert_close(along, (slope[0] * points[1]).sum())
        torch.testing.assert_close(value, f(points[0]))
    for way in (jacfwd, jacrev):
        torch.testing.assert_close(vmap(way(image))(z), torch.stack([torch.autograd.functional.jacobian(image, one) for one in z]))
    assert math.isfinite(joint(z[0]).item())
