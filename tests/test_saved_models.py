"""Saved models: what config.json can't rebuild is refused at save; what a stranger's folder asks for, at load."""
import json
import time

import pytest
import torch
from torch import nn

import vae_nb as v
from vae_nb.models import vae
from vae_nb.models.vae import VAE, check_rebuildable

SMALL = dict(image_shape=(1, 8, 8), latent_dim=3, hidden=(8,), channels=(4,))
OPTIONS = {
    "cnn": {}, "mlp": dict(encoder="mlp", decoder="mlp"), "full covariance": dict(posterior="full_covariance"),
    **{f"{name} posterior": dict(posterior=name) for name in ("low_rank", "mixture")},
    **{f"{name} prior": dict(prior=name) for name in ("normal", "mixture", "vamp", "flow")},
    **{noise: dict(noise=noise) for noise in ("pixelwise", "imagewise", "homoscedastic")},
    "fixed sigma": dict(noise="homoscedastic", sigma=0.1), "identity": dict(mean="identity"),
    "optimal": dict(noise="optimal", scope="channelwise"), "faithful": dict(noise="faithful", scope="imagewise", sigma=0.2),
    "student": dict(likelihood="student_t", df=3.5, noise="imagewise"), "laplace": dict(likelihood="laplace", noise="channelwise"),
    "rough": dict(roughness=True),
    "bernoulli": dict(likelihood="bernoulli"), "discretised": dict(likelihood="discretised_logistic"),
    **{name: dict(likelihood=name) for name in ("continuous_bernoulli", "beta", "categorical", "discretised_mixture", "low_rank_gaussian")},
    "own activation": dict(activation=nn.PReLU), "own function": dict(activation=lambda: nn.Sequential(nn.PReLU(), nn.Tanh())),
    "own prior": dict(prior=v.LearnedMixture(3, 4)), "own posterior": dict(posterior=v.FullCovariance(3, floor=0.1)),
    "own likelihood": dict(likelihood=v.PixelwiseGaussian((1, 8, 8), sigma_floor=0.2)),
    "own rank": dict(likelihood=v.LowRankGaussian((1, 8, 8), rank=3)), "own levels": dict(likelihood=v.CategoricalLikelihood((1, 8, 8), levels=4)),
    "own encoder": dict(encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 6)))}


def make(**options): return v.create_vae(**{**SMALL, **options})


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(name, dtype, tmp_path):
    "Buffers that are not saved, and parts of the user's own, are right after loading too."
    options = OPTIONS[name]
    model = make(**options).to(dtype).eval()
    model.save(tmp_path)
    x = torch.rand(4, 1, 8, 8, dtype=dtype)
    own = {key: options[key] for key, value in model.config.items() if isinstance(value, dict)}
    before = model.decode(model.encode(x).mean).log_prob(x.round()), model.encode(x).stddev
    again = VAE.load(tmp_path, **own)
    assert torch.equal(again.decode(again.encode(x).mean).log_prob(x.round()), before[0])
    assert torch.equal(again.encode(x).stddev, before[1])
    assert not any(t.is_meta for t in (*again.parameters(), *again.buffers()))


def put(path, module): return lambda m: m.set_submodule(path, module)


def give(path, name, value): return lambda m: setattr(m.get_submodule(path), name, value)


def norm(weight_norm): return lambda m: weight_norm(m.encoder.network.layers[0])


CHANGES = { # what is done to the model, and the name that the message must have
    "sigma_floor=0.3": give("decoder.head", "sigma_floor", 0.3), "posterior=…": give("encoder.head", "floor", 0.3),
    "layers.1 is Tanh": put("encoder.network.layers.1", nn.Tanh()), "HomoscedasticGaussian": put(
        "decoder.head", v.HomoscedasticGaussian((1, 8, 8))), "with_prior": put("prior", v.LearnedMixture(3, 2)),
    "prior.loc has shape": lambda m: m.prior.register_buffer("loc", torch.zeros(1)),
    "link is Identity": give("decoder.head", "link", nn.Identity()), "stride": give("encoder.network.layers.0", "stride", 1),
    "link is tanh": give("decoder.head", "link", torch.tanh),
    "negative_slope": lambda m: None, "ParametrizedConv2d": norm(nn.utils.parametrizations.weight_norm),
    "weight has shape None": norm(nn.utils.weight_norm), "layers.1 is Flatten": lambda m: m.encoder.network.layers.pop(1),
    "layers.5 is Identity": lambda m: m.encoder.network.layers.append(nn.Identity()),
    "forward is <lambda>": give("encoder.network", "forward", lambda x: x),
    "heteroscedastic": give("decoder.head", "heteroscedastic", False), "float16 and float32": lambda m: m.encoder.half(),
    "out_shape": lambda m: m.config.update(latent_dim=5), "can't be built": lambda m: m.config.update(hidden=0, encoder="x"),
    "the model is Other": lambda m: setattr(m, "__class__", type("Other", (VAE,), {}))}


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("message", CHANGES)
def test_changed_models_are_refused(message, tmp_path):
    model = make(activation="leaky_relu") if message == "negative_slope" else make()
    if message == "negative_slope": model.encoder.network.layers[1].negative_slope = 0.5
    model.save(tmp_path) if message == "x" else CHANGES[message](model)
    with pytest.raises(v.InputError, match=message.replace("(", r"\(")): model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    if message != "the model is Other":
        with pytest.raises(v.InputError, match="not the one that its config.json would give back"):
            v.fit(model, torch.rand(20, 1, 8, 8), epochs=1, batch_size=10, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()


def test_own_parts_are_compared_by_class(tmp_path):
    model = make(prior=v.LearnedMixture(3, 4))
    model.prior = v.LearnedMixture(3, 7)  # may be one that the user gave
    model.save(tmp_path)
    model.prior = v.GaussianPrior(3)
    with pytest.raises(v.InputError, match="prior is a GaussianPrior, and not a LearnedMixture"): model.save(tmp_path)


def test_costs_little():
    "A large model is compared without a copy of its numbers, and without PyTorch's slow first use of its compiler."
    with torch.device("meta"): model = v.create_vae((3, 256, 256), 256)
    check_rebuildable(model)
    start = time.process_time()
    for _ in range(5): check_rebuildable(model)
    assert time.process_time() - start < 5  # it takes 0.1 s


FITTED = {"gaussian": dict(kind="gaussian"), "mixture": dict(kind="mixture", components=3), "flow": dict(kind="flow")}


@pytest.fixture(scope="module")
def encoded():
    "A small model, and images to fit priors to."
    torch.manual_seed(0)
    return make(posterior="full_covariance").eval(), torch.rand(60, 1, 8, 8)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fitted_priors_are_loaded_by_themselves(kind, dtype, encoded, tmp_path):
    model, x = encoded
    prior = v.fit_prior(model, x, **FITTED[kind])
    better = v.with_prior(model, prior).to(dtype)
    better.save(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())["create_vae"]["prior"]
    assert record == {"fitted": kind, **({"components": 3} if kind == "mixture" else {})}
    again, z = VAE.load(tmp_path), torch.randn(5, 3, dtype=dtype)
    assert type(again.prior) is type(prior) and again.config == better.config
    assert torch.equal(again.prior().log_prob(z), better.prior().log_prob(z))
    again.save(tmp_path / "again")  # from file to file
    assert torch.equal(VAE.load(tmp_path / "again").prior().log_prob(z), better.prior().log_prob(z))
    with_code = VAE.load(tmp_path, prior=type(prior)(3))  # as it was needed before
    assert torch.equal(with_code.prior().log_prob(z), better.prior().log_prob(z))
    with pytest.raises(v.InputError, match="prior is a GaussianPrior; the saved model has a fitted"):
        VAE.load(tmp_path, prior=v.GaussianPrior(3))
    with pytest.raises(v.InputError, match="given to load were"): VAE.load(tmp_path, encoder=nn.Flatten())
    assert v.with_prior(again, again.prior).config == again.config


def test_files_from_before_fitted_priors_had_names(encoded, tmp_path):
    "They name the class, and are refused or loaded as they were."
    model, x = encoded
    better = v.with_prior(model, v.fit_prior(model, x, "mixture", 3))
    better.config["prior"] = {"own": "MixturePrior"}
    better.save(tmp_path)
    with pytest.raises(v.InputError, match="parts of your own: {'prior': 'MixturePrior'}"): VAE.load(tmp_path)
    again, z = VAE.load(tmp_path, prior=v.MixturePrior(3, 3)), torch.randn(5, 3)
    assert torch.equal(again.prior().log_prob(z), better.prior().log_prob(z))
    assert again.config["prior"] == {"own": "MixturePrior"}


def test_other_priors_stay_the_users_own(encoded):
    class Wider(v.MixturePrior): pass
    from vae_nb.distributions.flows import FlowPrior
    for prior in (Wider(3, 2), FlowPrior(3, layers=2), v.GaussianPrior(3), v.LearnedMixture(3, 2)):
        assert v.with_prior(encoded[0], prior).config["prior"] == {"own": type(prior).__name__}


def test_a_fitted_prior_that_was_changed_is_refused(encoded, tmp_path):
    model, x = encoded
    better = v.with_prior(model, v.fit_prior(model, x, "mixture", 3))
    better.prior = v.MixturePrior(3, 7)
    with pytest.raises(v.InputError, match=r"prior.logits has shape \(7,\), and not \(3,\)"): better.save(tmp_path / "m")
    better.prior = v.GaussianPrior(3)
    with pytest.raises(v.InputError, match="prior is GaussianPrior, and not MixturePrior"): better.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


CRAFTED = { # settings of a stranger's config.json beside the weights of a small model, and what is said
    "latent_dim": (dict(latent_dim=10 ** 9), "another architecture"),
    "full covariance": (dict(latent_dim=10 ** 9, posterior="full_covariance"), "can't be followed|another architecture"),
    "image_shape": (dict(image_shape=[1, 10 ** 5, 10 ** 5]), "fewer than 2³¹ numbers"),
    "mlp": (dict(image_shape=[1, 10 ** 4, 10 ** 4], encoder="mlp", decoder="mlp"), "another architecture|a smaller model"),
    "channels": (dict(channels=[8] * 10 ** 6), "asks for another channels"),
    "hidden": (dict(hidden=[8] * 10 ** 6, encoder="mlp", decoder="mlp"), "asks for another hidden"),
    "wide": (dict(hidden=[10 ** 12, 10 ** 12], encoder="mlp", decoder="mlp"), "another architecture|can't be followed"),
    "beyond 64 bits": (dict(latent_dim=10 ** 30), "asks for another latent_dim"),
    "many digits": (dict(image_shape=[1, 10 ** 4000, 1]), "asks for another image_shape"),
    "kernel": (dict(kernel_size=10 ** 9 + 1), "expected at most"),
    "unknown": (dict(colour="red"), "can't be followed: TypeError"), "negative": (dict(latent_dim=-1), "latent_dim=-1"),
    "text": (dict(hidden="wide", encoder="mlp"), "hidden"), "prior": (dict(prior=5), "prior=5"),
    "float": (dict(kernel_size=1e300), "asks for another kernel_size"), "list": (dict(encoder=["cnn"]), "encoder"),
    "own": (dict(prior={}), "parts of your own"), "fitted encoder": (dict(encoder={"fitted": "mixture"}), "parts of your own"),
    "fitted": (dict(prior={"fitted": "x"}), "prior='x' is not known"), "fitted list": (dict(prior={"fitted": []}), "one of 'gaussian'"),
    "fitted more": (dict(prior={"fitted": "flow", "bins": 3}), "expected a record such as {'fitted': 'flow'}"),
    "fitted less": (dict(prior={"fitted": "mixture"}), "'components': 10"),
    "fitted none": (dict(prior={"fitted": "mixture", "components": 0}), "components=0"),
    "fitted other": (dict(prior={"fitted": "gaussian"}), "another architecture"),
    "fitted many": (dict(prior={"fitted": "mixture", "components": 10 ** 10}), "another architecture"),
    "fitted beyond": (dict(prior={"fitted": "mixture", "components": 10 ** 30}), "asks for another prior"),
    "fitted text": (dict(prior={"fitted": "mixture", "components": "all"}), "components='all'")}


@pytest.fixture
def crafted(tmp_path, monkeypatch):
    def write(settings):
        model = make(posterior="full_covariance") if "full" in str(settings) else make()
        model.config = {**model.config, **settings}
        with monkeypatch.context() as m:
            m.setattr(vae, "check_rebuildable", lambda model: None)
            model.save(tmp_path / "crafted")
        return tmp_path / "crafted"
    return write


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_recipes_are_refused(name, crafted):
    settings, message = CRAFTED[name]
    folder, start = crafted(settings), time.process_time()
    with pytest.raises(v.InputError, match=message): VAE.load(folder)
    assert time.process_time() - start < 20  # it takes milliseconds; the memory that is asked for isn't there


def test_a_large_image_with_small_weights(tmp_path):
    "Weights of a few kilobytes that fit: what is built takes no more than they do, though one image has 400 MB."
    model = vae.build({**{k: p.default for k, p in vae.inspect.signature(v.create_vae).parameters.items()}, "latent_dim": 2,
                       "image_shape": (1, 10 ** 4, 10 ** 4), "channels": (1,) * 14, "likelihood": "bernoulli"})
    model.save(tmp_path)
    assert VAE.load(tmp_path).image_shape == (1, 10 ** 4, 10 ** 4)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_unreadable_files(file, tmp_path):
    make().save(tmp_path)
    path, content = tmp_path / file, (tmp_path / file).read_bytes()
    path.unlink(); path.mkdir()
    with pytest.raises(v.InputError, match=f"{file} can't be read: is a directory"): VAE.load(tmp_path)
    path.rmdir()
    with pytest.raises(FileNotFoundError, match="missing"): VAE.load(tmp_path)
    path.write_bytes(content); path.chmod(0)
    try: path.open("rb").close()
    except PermissionError:  # root may read everything
        with pytest.raises(v.InputError, match=f"{file} can't be read: permission denied"): VAE.load(tmp_path)
    path.chmod(0o600)
    VAE.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "null", '{"format": 3}', "\udcff", ""])
def test_damaged_configurations(text, tmp_path):
    make().save(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(v.InputError, match="damaged"): VAE.load(tmp_path)


def test_files_are_json(tmp_path):
    make().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["create_vae"]["latent_dim"] == 3
