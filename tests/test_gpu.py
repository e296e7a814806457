"""On a GPU: the batches, the training and the numbers of a CPU, whichever way a step is run.

As a program, this file trains on the CPU and leaves what it saw in a file. Without a GPU, all of this is skipped."""
import os
import subprocess
import sys
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch

import vae_nb as v
from test_devices import at_its_mean, weights
from test_devices import images as small_digits
from vae_nb.data.splits import Data
from vae_nb.distributions.posteriors import FullCovariance, MeanField
from vae_nb.training.acceleration import COMPILE_MODES

GPU = torch.device("cuda", 0)
if __name__ != "__main__" and not torch.cuda.is_available(): pytest.skip("no GPU", allow_module_level=True)


images = partial(small_digits, 320)
MODELS = {
    "mlp": dict(encoder="mlp", decoder="mlp", hidden=(16,), likelihood="bernoulli"),
    "cnn": dict(channels=(8, 12), likelihood="bernoulli"), "gaussian": dict(channels=(8, 12), sigma_floor=0.05),
    "logistic": dict(channels=(8, 12), likelihood="discretised_logistic"),
    "optimal": dict(channels=(8, 12), noise="optimal"), "faithful": dict(channels=(8, 12), noise="faithful"),
    "student": dict(channels=(8, 12), likelihood="student_t"),
    "full covariance": dict(channels=(8, 12), likelihood="bernoulli", posterior=FullCovariance),
    "mixture": dict(channels=(8, 12), likelihood="bernoulli", prior=partial(v.LearnedMixture, 3, 4)),
}


def trained(name="mlp", posterior=lambda head: head, **options):
    "A model of a kind that was trained, and its history."
    model = dict(posterior=MeanField, latent_dim=3) | MODELS[name]
    torch.manual_seed(0)
    if "prior" in model: model["prior"] = model["prior"]()
    model = v.create_vae((1, 14, 14), **model | dict(posterior=posterior(model["posterior"])(3)))
    options = dict(epochs=3, batch_size=48, lr=3e-3, progress=False) | options  # 320 images: the last batch is smaller
    return model, v.fit(model, images(), **options)


if __name__ == "__main__":
    runs = {name: trained(name, posterior=at_its_mean) for name in MODELS}
    torch.save({name: (weights(model), list(history)) for name, (model, history) in runs.items()}, sys.argv[1])


@pytest.fixture(scope="module", autouse=True)
def all_float32():
    "Without TF32, in which PyTorch's convolutions compute as a rule."
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    "What the same trainings are on a CPU."
    out = tmp_path_factory.mktemp("cpu") / "runs.pt"
    subprocess.run([sys.executable, __file__, out], check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    return torch.load(out, weights_only=False)


def same(history, other, rel=1e-4):
    "All numbers of two histories agree."
    assert len(history) == len(other)
    for a, b in zip(history, other): assert a == pytest.approx(b, rel=rel, abs=1e-4)


# ---- batches ----

def streams():
    plain = images()
    return {"plain": plain, "dynamic": images(binarize="dynamic"), "dequantised": v.dequantised(plain),
            "floats": Data(*(plain[s] / 255 for s in ("train", "valid", "test"))),
            "read as needed": Data(v.IndexedImages(plain.train), plain.valid, plain.test)}


@pytest.mark.parametrize("name", streams())
@pytest.mark.parametrize("split", ["train", "valid"])
def test_batches(name, split):
    "Moved or not, those of the CPU, but for how a GPU divides by 255."
    data = streams()[name]
    wanted = list(data.batches(split, 50, epoch=1))
    for source in (data, data.on(GPU)):
        found = list(source.batches(split, 50, epoch=1, device=GPU))
        assert {x.device for x in found} == {GPU} and len(found) == len(wanted)
        for a, b in zip(wanted, found): torch.testing.assert_close(b.cpu(), a, rtol=1e-6, atol=0)


def test_moved_once_and_only_if_there_is_room():
    data = images()
    there = data.on(GPU)
    assert there.train.is_cuda and there.valid.is_cuda and not there.test.is_cuda and not data.train.is_cuda
    assert data.on(GPU, most=1e-9) is data
    dynamic = images(binarize="dynamic").on(GPU)
    assert dynamic.valid.is_cuda and not dynamic.train.is_cuda


# ---- training ----

@pytest.mark.parametrize("name", MODELS)
def test_the_training_of_a_cpu(name, on_cpu):
    model, history = trained(name, posterior=at_its_mean)
    expected, expected_history = on_cpu[name]
    assert not next(model.parameters()).is_cuda  # it is back where it was
    same(history, expected_history, rel=1e-3)
    torch.testing.assert_close(weights(model), expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("mode", COMPILE_MODES)
@pytest.mark.parametrize("options", [{}, dict(accumulate=2), dict(k=2, objective="iwae", kl_weight=1.0),
                                     dict(kl_weight="linear"), dict(checkpoint_activations=True), dict(grad_clip=100.0),
                                     dict(objective="iwae_dreg", k=2), dict(optimizer="muon")], ids=str)
def test_compiled(mode, options, recwarn):
    "The same noise, so the same training."
    if mode.startswith("max") and options: pytest.skip("one such training is enough")
    torch.compiler.reset()
    expected, found = trained(**options), trained(compile=mode, **options)
    same(found[1], expected[1])
    torch.testing.assert_close(weights(found[0]), weights(expected[0]), rtol=1e-3, atol=1e-3)
    assert not [w for w in recwarn if "can't be compiled" in str(w.message)]


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mlp"])
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_models(mode, name, recwarn):
    torch.compiler.reset()
    expected, found = trained(name), trained(name, compile=mode)
    same(found[1], expected[1], rel=1e-3)
    assert not [w for w in recwarn if "can't be compiled" in str(w.message)]


def test_a_cuda_graph_is_replayed(monkeypatch):
    torch.compiler.reset()
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(1), replay(graph)))
    found, expected = trained(compile="reduce-overhead", epochs=4), trained(epochs=4)
    same(found[1], expected[1])
    assert len(replays) == 4 * 5 - 3  # of 7 steps, one reports on pixels and one is small


def test_what_cannot_be_captured():
    "An objective that reads a number from the GPU: a warning, the same training, and a GPU that can be used."
    torch.compiler.reset()
    def curious(terms):
        value = v.elbo(terms)
        return value * 1.0 if value.sum().item() < 0 else value
    with pytest.warns(UserWarning, match="can't be captured"):
        found = trained(objective=curious, compile="reduce-overhead")
    same(found[1], trained()[1])
    assert torch.rand(3, device=GPU).sum().isfinite()


def test_a_model_on_the_gpu_stays_there():
    model = trained(epochs=1)[0].to(GPU)
    v.fit(model, images(), epochs=1, batch_size=32, progress=False)
    assert {p.device for p in model.parameters()} == {GPU}


@pytest.mark.parametrize("compile", [False, "reduce-overhead"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_precision(precision, compile, recwarn):
    "Nearly the same training; the switch is put back."
    torch.compiler.reset()
    before, epochs = torch.get_float32_matmul_precision(), 6
    expected = trained("cnn", epochs=epochs)[1][-1]["valid_elbo"]
    found = trained("cnn", epochs=epochs, precision=precision, compile=compile)[1][-1]["valid_elbo"]
    assert found == pytest.approx(expected, rel=0.02) and found != expected
    assert torch.get_float32_matmul_precision() == before
    assert not [w for w in recwarn if "precision" in str(w.message) or "can't be compiled" in str(w.message)]


def test_resumed(tmp_path):
    whole, history = trained(epochs=4, schedule="constant")
    trained(epochs=2, schedule="constant", out=tmp_path)
    again, resumed = trained(epochs=4, schedule="constant", out=tmp_path, resume=True)
    same(resumed, history, rel=1e-6)
    torch.testing.assert_close(weights(again), weights(whole), rtol=1e-6, atol=1e-6)
    assert not any(p.is_cuda for p in v.VAE.load(tmp_path, posterior=MeanField(3)).parameters())


def test_random_state_is_left_alone():
    model, draws = trained(epochs=1)[0], []
    for compile in (None, False, "reduce-overhead"):
        torch.cuda.manual_seed(3)
        if compile is not None: v.fit(model, images(), epochs=1, batch_size=32, compile=compile, progress=False)
        draws.append(torch.rand(2, device=GPU))
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])


def test_what_breaks_is_named():
    with pytest.raises(FloatingPointError, match="first value that is not finite"): trained(lr=1e30, schedule="constant")


# ---- evaluation ----

@pytest.fixture(scope="module")
def pairs():
    "Models on the GPU, and the same in float64 on the CPU."
    found = {}
    for name in MODELS:
        model, _ = trained(name)
        found[name] = model.to(GPU), deepcopy(model).cpu().double()
    return found


def pixels(name):
    "Test images as the model wants them."
    x = images().test
    return (x > 127).float() if MODELS[name].get("likelihood") == "bernoulli" else x / 255


@pytest.mark.parametrize("name", MODELS)
def test_densities_and_gradients(name, pairs):
    "At the same latents."
    z = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    def numbers(model, dtype, device):
        latents, x = z.to(device, dtype).requires_grad_(), pixels(name).to(device, dtype)
        log_px, q = model.decode(latents).log_prob(x), model.encode(x)
        gradient, = torch.autograd.grad(log_px.sum(), latents)
        found = log_px, gradient, q.log_prob(latents), model.prior().log_prob(latents)
        return [t.detach().cpu().double() for t in found]
    for a, b in zip(numbers(pairs[name][0], torch.float32, GPU), numbers(pairs[name][1], torch.float64, "cpu")):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-3)


@pytest.mark.parametrize("name", ["mlp", "full covariance", "mixture"])
def test_log_likelihood(name, pairs):
    a, b = (v.log_likelihood(model, pixels(name), k=4000, details=True) for model in pairs[name])
    error = (a["standard_error"].cpu().square() + b["standard_error"].square()).sqrt()
    assert ((a["log_likelihood"].cpu() - b["log_likelihood"]).abs() < 5 * error + 1e-3).all()


def numbers_in(found):
    "All numbers in what a function gave."
    if isinstance(found, dict): found = list(found.values())
    if isinstance(found, (list, tuple)): return [x for part in found for x in numbers_in(part)]
    if isinstance(found, torch.Tensor): return found.detach().double().flatten().tolist()
    return [found] if isinstance(found, float) else []


few = dict(draws=4, burn_in=5, limit=20)
EVALUATED = { # name: (a kind of model, what is computed with it and some images)
    "evaluate": ("gaussian", lambda model, data: v.evaluate(model, data, k=3)),
    "latent_numbers": ("gaussian", lambda model, data: v.latent_numbers(model, data, samples=2)),
    "calibration": ("gaussian", lambda model, data: v.calibration(model, data)),
    "predictive_check": ("gaussian", lambda model, data: v.predictive_check(model, data, draws=3)),
    "hard_images": ("gaussian", lambda model, data: v.hard_images(model, data, count=3)),
    "inpainting_calibration": ("gaussian", lambda model, data: v.inpainting_calibration(model, data, **few)),
    "posterior_given_visible": ("gaussian", lambda model, data: v.posterior_given_visible(
        model, data.test, torch.rand(model.image_shape) > 0.5, draws=4, burn_in=5)),
    "fit_prior": ("gaussian", lambda model, data: v.evaluate(v.with_prior(model, v.fit_prior(model, data)), data)),
    "fit_mixture": ("gaussian", lambda model, data: v.evaluate(
        v.with_prior(model, v.fit_prior(model, data, "mixture", 3)), data)),
    "annealed_importance": ("mlp", lambda model, data: v.annealed_importance(model, data.test, steps=10)),
    "bidirectional": ("mlp", lambda model, data: v.bidirectional(model, 4, steps=10)),
    "inference_gaps": ("mlp", lambda model, data: v.inference_gaps(model, data.test, k=50, steps=20)),
    "novelty_scores": ("mlp", lambda model, data: v.novelty_scores(model, data.test, k=8, steps=5)),
    "bits_per_dimension": ("logistic", lambda model, data: v.bits_per_dimension(model, data.test, k=50)),
    "samples": ("gaussian", lambda model, data: [model.prior_predictive(5).mean, model.reconstruct(data.test).stddev]),
}


def data_for(name):
    data = images(labels={"test": torch.arange(10)})
    if name != "mlp": return data
    return Data(*((data[split] > 127).byte() * 255 for split in ("train", "valid", "test")), labels=data.labels)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EVALUATED)
def test_evaluated_on_a_gpu_with_images_on_the_cpu(name, pairs):
    kind, compute = EVALUATED[name]
    numbers = numbers_in(compute(pairs[kind][0], data_for(kind)))
    assert numbers and np.isfinite(numbers).all()
    assert next(pairs[kind][0].parameters()).device == GPU  # still


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gaussian", "mlp", "full covariance"])
def test_drawn_and_written(kind, pairs, tmp_path):
    import matplotlib.pyplot as plt
    model, data = pairs[kind][0], data_for("mlp" if kind != "gaussian" else kind)
    figures = [v.pipeline_figure(model, data.test[:3]), v.prior_figure(model, 3),
               v.traversal_figure(model, data.test[:4]), v.neighbourhood_figure(model, data.test[0]),
               v.kl_figure(model, data), v.calibration_figure(model, data), v.embedding_figure(model, data),
               v.gaps_figure(v.inference_gaps(model, data.test, k=20, steps=5)),
               v.inpainting_figure(model, data.test[:2])]
    for figure in figures: plt.close(figure)
    written = v.report(model, data, out=tmp_path, likelihood_k=20, n_images=10, n_gap_images=3)
    reasons = [part["reason"] for part in written.values() if isinstance(part, dict) and "reason" in part]
    assert not any("device" in reason or "cuda" in reason.lower() for reason in reasons), reasons
    v.export_explorer(model, tmp_path / "explorer.html", data)


def test_command_line(tmp_path, monkeypatch, capsys):
    from vae_nb.cli import main
    monkeypatch.chdir(tmp_path)
    for line in ("train --data mnist-10k --limit 300 --epochs 2 --batch-size 50 --hidden 32 --encoder mlp "
                 "--decoder mlp --no-progress --out run", "evaluate run --n-images 20",
                 "figures run", "sample run"):
        try: main(line.split())
        except SystemExit as e: assert not e.code, (line, capsys.readouterr())
