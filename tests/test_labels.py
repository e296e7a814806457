"""Conditional models: known densities, labels that follow their images everywhere, and refusals in the place of wrong numbers."""
import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from test_compiled import graphs_on_cpu, no_code  # noqa: F401, fixtures
from torch.distributions import MultivariateNormal

import vae_nb as v
from vae_nb.basics.checks import InputError
from vae_nb.cli import main
from vae_nb.data.splits import Data
from vae_nb.models.tensor_files import load_tensors
from vae_nb.models.vae import VAE, batches_for
from vae_nb.training.objectives import measure

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = dict(encoder="mlp", decoder="mlp", hidden=(16,))


def small(classes=3, shape=(1, 8, 8), seed=0, **options):
    torch.manual_seed(seed)
    return v.create_vae(shape, 2, classes=classes, **(SMALL | options))


def told(n=90, classes=3, step=100, seed=0):
    "Images whose middle says the label, and whose corner differs, with their labels."
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = np.zeros((n, 1, 8, 8), np.uint8)
    x[:, 0, :1, :2] = rng.integers(0, 256, (n, 1, 2))
    x[:, 0, 2:6, 2:6] = step * y[:, None, None]
    return x, y


def read(x, step=100): return (255 * x[..., 0, 3, 3] / step).round().long()


# What is known


@pytest.fixture
def linear():
    "p(x|z, y) and q(z|x, y) are linear, with numbers of any size; the images of two pixels, and their labels."
    torch.manual_seed(0)
    model = v.create_vae((1, 1, 2), 2, encoder="mlp", decoder="mlp", hidden=(), noise="homoscedastic", sigma=0.6,
                         mean="identity", classes=3).double().eval()
    with torch.no_grad():
        for p in model.decoder.parameters(): p.copy_(0.5 * torch.randn_like(p))
        for p in model.encoder.parameters(): p.copy_(0.1 * torch.randn_like(p))
    return model, torch.rand(6, 1, 1, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 0])


def known_density(model, y):
    "p(x|y), from the weights by hand."
    layer, e = model.decoder.network.network.layers[0].layer, model.decoder.network.embedding.weight
    W, b = layer.weight.detach(), layer.bias.detach()
    return MultivariateNormal(b + e[y].detach() @ W[:, 2:].T, W[:, :2] @ W[:, :2].T + 0.36 * torch.eye(2).double())


def test_log_likelihood_of_the_label(linear):
    model, x, y = linear
    found = v.log_likelihood(model, x, k=20_000, details=True, y=y)
    off = (found["log_likelihood"] - known_density(model, y).log_prob(x.flatten(1))) / found["standard_error"]
    assert off.abs().max() < 4 and found["believed"].all()
    assert (found["log_likelihood"] - known_density(model, y.flip(0).roll(1)).log_prob(x.flatten(1))).abs().max() > 0.05
    for one in range(3):
        alike = v.log_likelihood(model, x, k=20_000, details=True, y=one)
        exact = known_density(model, torch.full((6,), one)).log_prob(x.flatten(1))
        assert ((alike["log_likelihood"] - exact) / alike["standard_error"]).abs().max() < 4


def test_annealing_agrees(linear):
    model, x, y = linear
    found = v.annealed_importance(model.given(y), x, chains=64, steps=100)
    off = (found["log_likelihood"] - known_density(model, y).log_prob(x.flatten(1))) / found["standard_error"]
    assert off.abs().max() < 4
    bounds = v.bidirectional(model.given(y), n=6, chains=64, steps=100)
    exact = known_density(model, y).log_prob(bounds["x"].flatten(1))
    assert (bounds["lower"] - exact).abs().max() < 0.5 and (bounds["upper"] - exact).abs().max() < 0.5


def test_elbo_of_the_label(linear):
    "E_q[log p(x|z, y)] − KL, with both in closed form by hand."
    model, x, y = linear
    k = 20_000
    terms = model(x, k, y=y)
    samples = terms.log_px - terms.kl
    q, layer = model.encode(x, y), model.decoder.network.network.layers[0].layer
    e = model.decoder.network.embedding.weight[y]
    W, c = layer.weight[:, :2], e @ layer.weight[:, 2:].T + layer.bias
    square = (x.flatten(1) - q.mean @ W.T - c).square().sum(1) + (q.variance @ W.square().T).sum(1)
    reconstruction = -square / (2 * 0.36) - np.log(2 * np.pi * 0.36)
    kl = (q.variance + q.mean ** 2 - 1 - q.variance.log()).sum(1) / 2
    off = (samples.mean(0) - (reconstruction - kl)) / (samples.std(0) / k ** 0.5)
    assert off.abs().max() < 4
    assert (samples.mean(0) < known_density(model, y).log_prob(x.flatten(1)) + 0.05).all()


# Labels follow their images


LOADED = { # options of load_data
    "plain": {}, "a share for validation": dict(valid=0.25, test=0.2), "counts": dict(valid=11, test=7), "limit": dict(limit=50),
    "groups": dict(groups=[str(i // 4) for i in range(90)], valid=0.3), "another seed": dict(seed=5),
    "resized": dict(resize=(8, 8)), "augmented": dict(augment="flip+shift"), "static": dict(binarize="static"),
    "dynamic": dict(binarize="dynamic"), "dynamic, augmented": dict(binarize="dynamic", augment="flip+shift")}


@pytest.mark.parametrize("name", LOADED)
def test_labels_follow_images(name):
    options, step = LOADED[name], 255 if "binarize" in LOADED[name] else 100
    x, y = told(classes=2 if step == 255 else 3, step=step)
    data, model = v.load_data(x, labels=y, progress=False, **options), small(2 if step == 255 else 3)
    seen = 0
    for split in ("train", "valid", "test"):
        for how in (dict(), dict(epoch=3, seed=4), dict(shuffle=False), dict(rank=1, world=2), dict(drop_last=True)):
            for batch in batches_for(model, data, split, 7, **how):
                assert torch.equal(read(batch["x"], step), batch["y"]), (split, how)
                seen += len(batch["y"])
    assert seen > 200


def test_labels_of_a_data_set_that_is_read_lazily():
    x, y = told()
    pairs = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    data = v.load_data(v.IndexedImages(pairs), valid=20, test=20)
    for split in ("train", "valid", "test"):
        for batch in batches_for(small(), data, split, 7, epoch=2): assert torch.equal(read(batch["x"]), batch["y"])
    assert sorted(data.labels["train"].tolist() + data.labels["valid"].tolist() + data.labels["test"].tolist()) == sorted(y.tolist())


def watched(monkeypatch, stop_at=None):
    "Each pass with labels is checked; the number of passes. At `stop_at`, Ctrl-C is pressed."
    passes, original = [], VAE.forward_unchecked
    def forward(self, x, k=1, score=None, y=None):
        labels = y if self.y is None else self.y
        assert torch.equal(read(self.as_floats(x)), labels.cpu())
        passes.append(len(x))
        if len(passes) == stop_at: raise KeyboardInterrupt
        return original(self, x, k, score, y)
    monkeypatch.setattr(VAE, "forward_unchecked", forward)
    return passes


@pytest.mark.parametrize("options", [{}, dict(accumulate=3, batch_size=8), dict(batch_size=23), dict(checkpoint_activations=True),
                                     dict(objective="iwae", k=3), dict(batch_size=1, epochs=1), dict(precision="bf16")], ids=str)
def test_training_sees_the_right_labels(options, monkeypatch):
    x, y = told()
    passes = watched(monkeypatch)
    v.fit(small(), v.load_data(x, labels=y, valid=21), **{**dict(epochs=2, batch_size=16, progress=False), **options})
    assert sum(passes) > 90


def test_resumed(monkeypatch, tmp_path):
    "After Ctrl-C and resume, bit for bit the same; with other labels, refused."
    x, y = told()
    data = v.load_data(x, labels=y, valid=21)
    how = dict(epochs=4, batch_size=16, progress=False)
    v.fit(small(), data, out=tmp_path / "whole", **how)
    with monkeypatch.context() as patch:
        watched(patch, stop_at=17)
        v.fit(small(), data, out=tmp_path / "cut", **how)
    with monkeypatch.context() as patch:
        assert sum(watched(patch)) == 0
        v.fit(small(), data, out=tmp_path / "cut", resume=True, **how)
        watched(patch)
    for name in ("model.safetensors", "last.safetensors"):
        one, other = (load_tensors(tmp_path / run / name)[0] for run in ("whole", "cut"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "whole/history.csv").read_text() == (tmp_path / "cut/history.csv").read_text()
    other = v.load_data(x, labels=(y + 1) % 3, valid=21)
    with pytest.raises(InputError, match="labels"): v.fit(small(), other, out=tmp_path / "cut", resume=True, **{**how, "epochs": 4})


def trainings(compile, **options):
    "The histories of a training as it is and of a compiled one, with labels that change from batch to batch."
    x, y = told(60)
    data, histories = Data(torch.tensor(x[:50]), torch.tensor(x[50:]), torch.tensor(x[:0]),
                           labels={"train": torch.tensor(y[:50]), "valid": torch.tensor(y[50:])}), []
    for how in (False, compile):
        torch.compiler.reset()
        histories.append(v.fit(small(likelihood="discretised_logistic"), data, epochs=3, batch_size=8, compile=how, progress=False,
                               **options))
    return zip(*histories)


def test_whole_step_is_one_program(no_code):  # noqa: F811
    for one, other in trainings(True): assert other == pytest.approx(one, rel=1e-4)
    assert len(no_code) == 1


def test_captured(graphs_on_cpu):  # noqa: F811
    "A step that is recorded and played again takes the labels of its own batch."
    for one, other in trainings("reduce-overhead"): assert other == pytest.approx(one, rel=1e-4)
    assert len(graphs_on_cpu) == 1


def test_names_count_not_numbers():
    "A folder that lacks a class numbers the others anew."
    x, y = told()
    model = small(["a", "b", "c"])
    data = v.load_data(x, labels=np.array(["a", "b", "c"])[y])
    few = v.load_data(x[y > 0], labels=np.array(["a", "b", "c"])[y[y > 0]], valid=0, test=0)
    assert few.classes == ("b", "c")
    for batch in batches_for(model, few, "train", 9): assert torch.equal(read(batch["x"]), batch["y"])
    for batch in batches_for(model, data, "test", 9): assert torch.equal(read(batch["x"]), batch["y"])
    with pytest.raises(InputError, match="2 classes"): v.evaluate(small(3), few, "train")
    with pytest.raises(InputError, match="'c'"): v.evaluate(small(["a", "b"]), few, "train")


# Numbers of a data set


def test_functions_over_data_use_the_labels():
    x, y = told(120)
    data, model = v.load_data(x, labels=y, valid=30, test=40), small()
    v.fit(model, data, epochs=2, batch_size=16, progress=False)
    images, labels = data.test, data.labels["test"]
    encoded = v.encode_all(model, data, batch_size=9)["mean"]
    with v.evaluating(model): torch.testing.assert_close(encoded, model.encode(images, labels).mean)
    own = v.load_data(images, labels=labels.numpy(), valid=0, test=0)
    torch.testing.assert_close(v.evaluate(model, own, "train")["rmse"], v.evaluate(model, data)["rmse"])
    whole = measure(model, [{"x": images, "y": labels}])
    assert v.evaluate(model, data, batch_size=40) == pytest.approx(whole, rel=1e-5)
    assert v.evaluate(model, data, batch_size=7)["rmse"] == pytest.approx(whole["rmse"], rel=1e-5)
    assert v.evaluate(model.given(0), data)["rmse"] != whole["rmse"]
    parts = v.log_likelihood(model, images, 50, y=labels)
    assert parts.shape == (40,)
    for function in (v.calibration, v.predictive_check, v.latent_numbers):
        assert "images" in function(model, data) and function(model, data)["images"] == 40
    assert v.hard_images(model, data, count=2)["images"] == 40
    v.hard_images_figure(model, data, count=2); v.embedding_figure(model, data)
    assert v.inpainting_calibration(model, data, limit=4, draws=4, burn_in=2)["images"] == 4
    v.inpainting_figure(model.given(labels[:3]), images[:3], draws=4, burn_in=2)
    assert set(v.inference_gaps(model.given(labels[:4]), images[:4], k=50, steps=5)) > {"log_likelihood"}
    assert v.likelihood_regret(model.given(labels[:4]), images[:4], steps=3).shape == (4,)
    assert v.with_prior(model, v.fit_prior(model, data)).sample(3, label=[0, 1, 2]).shape == (3, 1, 8, 8)
    report = v.report(model, data, n_images=20, likelihood_k=20)
    assert report["likelihood"].endswith("given the label")
    reasons = {name: part["reason"] for name, part in report.items() if isinstance(part, dict) and "reason" in part}
    assert set(reasons) <= {"bits_per_dimension"}, reasons


def test_parts_have_their_own_labels(monkeypatch):
    "Functions that take their images in parts."
    x, y = (torch.tensor(a) for a in told(30))
    model = small().eval()
    whole = v.log_likelihood(model, x, 4, y=y, max_memory=1e-3)
    monkeypatch.setattr("vae_nb.evaluation.importance.IMAGES", 7)
    monkeypatch.setattr("vae_nb.evaluation.importance.PIECE", 1)
    seen = []
    original = VAE.encode
    def encode(self, x, y=None):
        seen.append(torch.equal(read(self.prepare(x)), self.y))
        return original(self, x, y)
    monkeypatch.setattr(VAE, "encode", encode)
    assert v.log_likelihood(model, x, 4, y=y).shape == whole.shape
    assert len(seen) > 1 and all(seen)


@pytest.mark.parametrize("options", [dict(init="data_mean"), dict(optimizer="muon"), dict(beta_nll=0.5, kl_weight=0.1),
                                     dict(objective="iwae_dreg", k=2), dict(objective="tc_vae"), dict(patience=1, kl_weight="linear")], ids=str)
def test_all_kinds_of_training(options, monkeypatch):
    x, y = told(60)
    watched(monkeypatch)
    data = v.load_data(x, labels=y, valid=20)
    monitor = v.TrainingMonitor(model := small(), data)
    assert len(v.fit(model, data, epochs=2, batch_size=10, tracker=monitor, progress=False, **options))


def test_networks_are_programs(no_code):  # noqa: F811
    "Where the whole step can't be one."
    for one, other in trainings(True, objective="dip_vae"): assert other == pytest.approx(one, rel=1e-4)
    assert len(no_code) == 2


# Refusals


def images_and_model():
    x, y = told(60)
    return small().eval(), v.load_data(x, labels=y, valid=10, test=20), torch.tensor(x[:4])


UNKNOWING = { # what needs labels, or one label, and is called without
    "model(x)": lambda m, d, x: m(x), "encode": lambda m, d, x: m.encode(x), "decode": lambda m, d, x: m.decode(torch.zeros(3, 2)),
    "reconstruct": lambda m, d, x: m.reconstruct(x), "log_likelihood": lambda m, d, x: v.log_likelihood(m, x, 20),
    "evaluate, no labels": lambda m, d, x: v.evaluate(m, x), "fit, no labels": lambda m, d, x: v.fit(m, x, progress=False),
    "encode_all, no labels": lambda m, d, x: v.encode_all(m, x), "annealed": lambda m, d, x: v.annealed_importance(m, x),
    "bidirectional": lambda m, d, x: v.bidirectional(m, 2), "scores": lambda m, d, x: v.novelty_scores(m, x),
    "regret": lambda m, d, x: v.likelihood_regret(m, x), "gaps": lambda m, d, x: v.inference_gaps(m, x),
    "pipeline": lambda m, d, x: v.pipeline_figure(m, x), "traversal": lambda m, d, x: v.traversal_figure(m, x),
    "traversal, four labels": lambda m, d, x: v.traversal_figure(m.given([0, 1, 2, 0]), x, steps=4),
    "neighbourhood": lambda m, d, x: v.neighbourhood_figure(m, x[0]), "export": lambda m, d, x: v.export_model(m, "nowhere"),
    "web": lambda m, d, x: v.export_explorer(m.given(1), "page.html", d), "fit, given": lambda m, d, x: v.fit(m.given(1), d, progress=False),
    "traversal widget": lambda m, d, x: v.TraversalExplorer(m, d), "player": lambda m, d, x: v.InterpolationPlayer(m, d),
    "noise widget": lambda m, d, x: v.NoiseExplorer({"a": m}, d), "explorer, many": lambda m, d, x: v.LatentExplorer(m.given([0, 1]), d),
    "stream": lambda m, d, x: v.fit(m, v.load_data(v.Stream(list(x)), valid=0, test=0), progress=False),
    "transformer": lambda m, d, x: v.VAETransformer(2, model=dict(classes=3)).fit(x.numpy()),
    "inpainting": lambda m, d, x: v.inpainting_figure(m, x), "bits": lambda m, d, x: v.bits_per_dimension(
        small(likelihood="discretised_logistic"), x, 20),
    "evaluate, given many": lambda m, d, x: v.evaluate(m.given(d.labels["test"]), d),
}


@pytest.mark.parametrize("name", UNKNOWING)
def test_refused_in_words(name):
    with pytest.raises(InputError, match="label|given|classes"): UNKNOWING[name](*images_and_model())


def test_wrong_labels_are_refused_before_training():
    x, y = told()
    for labels, words in ((y + 1, "holds 3"), (np.where(y == 1, -1, y), "missing"), (None, "no labels")):
        with pytest.raises(InputError, match=words): v.fit(small(), v.load_data(x, labels=labels), progress=False)


# Files and the command line


def test_saved(tmp_path):
    for classes in (3, ["a", "b", "c"]):
        for options in ({}, dict(encoder="cnn", decoder="cnn", channels=(4,))):
            model = small(classes, **options).eval()
            model.save(tmp_path)
            assert json.loads((tmp_path / "config.json").read_text())["create_vae"]["classes"] == classes
            again, z = VAE.load(tmp_path), torch.randn(3, 2)
            assert again.labels == model.labels
            assert torch.equal(again.decode(z, [2, 0, 1]).mean, model.decode(z, [2, 0, 1]).mean)
    small(None).save(tmp_path)
    assert "classes" not in json.loads((tmp_path / "config.json").read_text())["create_vae"]
    config = json.loads((tmp_path / "config.json").read_text())
    config["create_vae"]["classes"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="do not belong together"): VAE.load(tmp_path)


def test_saved_with_networks_of_ones_own(tmp_path):
    def own(): return v.Labelled(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(128, 4)), (1, 8, 8), 3)
    model = small(encoder=own()).eval()
    model.save(tmp_path)
    again, x = VAE.load(tmp_path, encoder=own()), torch.rand(2, 1, 8, 8)
    assert torch.equal(again.encode(x, [1, 2]).mean, model.encode(x, [1, 2]).mean)
    with pytest.raises(InputError, match="parts of your own"): VAE.load(tmp_path)


def test_too_many_classes_for_the_machine():
    with pytest.raises(InputError, match="classes=100000: expected a smaller model"): v.create_vae((1, 3000, 3000), 2, classes=100_000)


def test_exported_with_one_label(tmp_path):
    model = small().eval()
    v.export_model(model.given(2), tmp_path)
    z = torch.randn(3, 2)
    mean, _ = torch.export.load(tmp_path / "decoder.pt2").module()(z)
    torch.testing.assert_close(mean, model.decode(z, 2).mean)


def test_command_line(tmp_path, capsys):
    x, y = told(120)
    for name in ("heart", "square", "star"): (tmp_path / "images" / name).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(x, y)):
        Image.fromarray(image[0]).save(tmp_path / "images" / ("heart", "square", "star")[label] / f"{i}.png")
    run = tmp_path / "run"
    line = f"--data {tmp_path / 'images'} --epochs 2 --batch-size 16 --encoder mlp --decoder mlp --hidden 16 --latent-dim 2 --no-progress"
    main(shlex.split(f"train {line} --classes auto --out {run}"))
    model = VAE.load(run)
    assert model.classes == ("heart", "square", "star")
    main(shlex.split(f"sample {run} --label star --n 4 --npz {tmp_path / 'star.npz'}"))
    found = np.load(tmp_path / "star.npz")
    assert found["y"].tolist() == [2] * 4
    with v.evaluating(model): mean = model.decode(torch.from_numpy(found["z"]), "star").mean
    np.testing.assert_allclose(found["mean"], mean.numpy(), atol=1e-6)
    main(shlex.split(f"figures {run}"))
    assert {path.stem for path in (run / "figures").iterdir()} >= {"class", "pipeline", "prior", "traversal", "neighbourhood"}
    main(shlex.split(f"evaluate {run} --n-images 20 --likelihood-k 20"))
    capsys.readouterr()
    (tmp_path / "more").mkdir()
    Image.fromarray(x[0, 0]).save(tmp_path / "more" / "0.png")
    for words, message in ((f"train {line} --classes auto --test {tmp_path / 'more'} --out {tmp_path / 'c'}", "no labels for its test images"),
                           (f"sample {run} --label hart", "Did you mean 'heart'"), (f"train {line} --classes 2 --out {tmp_path / 'b'}", "3 classes")):
        with pytest.raises(SystemExit): main(shlex.split(words))
        assert message in capsys.readouterr().err


# The widget


def test_explorer_chooses_the_label():
    model, data, _ = images_and_model()
    explorer = v.LatentExplorer(model, data)
    assert explorer.label.options == (("0", 0), ("1", 1), ("2", 2))
    assert explorer.label.value == int(data.labels["test"][0]) == int(explorer.model.y)
    z = explorer.z
    other = (explorer.label.value + 1) % 3
    explorer.label.value = other
    assert int(explorer.model.y) == other and torch.equal(explorer.z, z)
    for i in range(6):
        explorer.encode_index(i)
        assert explorer.label.value == int(data.labels["test"][i]) == int(explorer.model.y)
    explorer.draw_fitted(); explorer.draw_prior(); explorer.figure()
    assert v.LatentExplorer(model).label.value == 0
    assert v.LatentExplorer(model.given(1), data).label is None and v.LatentExplorer(small(None), data).label is None
