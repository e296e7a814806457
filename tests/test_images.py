"""One door for images: every function that takes images from a user refuses what can be none, in the same words."""
import warnings

import numpy as np
import pytest
import torch

import vae_nb as v
from vae_nb.data.splits import Data
from vae_nb.evaluation.inpainting import posterior_given_visible
from vae_nb.evaluation.novelty import DensityOfStates
from vae_nb.models.vae import check_images_for, prepare_images

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return v.create_vae(SHAPE, 3, "mlp", "mlp", hidden=(8,), noise="imagewise")


def pixels(n=4): return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def with_pixel(value):
    x = pixels()
    x[2, 0, 0, 0] = value
    return x


WRONG = { # name -> images, and what the message says
    "0…255": (255 * pixels(), r"has pixels from .*expected floats from 0 to 1: x / 255"),
    "[-1, 1]": (2 * pixels() - 1, r"has pixels from .*expected floats from 0 to 1: \(x \+ 1\) / 2"),
    "NaN": (with_pixel(torch.nan), "has NaN or infinite pixels, first in image 2"),
    "infinite": (with_pixel(torch.inf), "has NaN or infinite pixels, first in image 2"),
    "channels last": (pixels().movedim(1, -1), r"the channels seem to come last|The channels seem to come last"),
    "other size": (pixels()[..., :7], r"shape.*\(4, 3, 8, 7\)"),
    "integers": ((255 * pixels()).long(), r"has dtype torch.int64; expected uint8")}

visible = torch.arange(64).reshape(8, 8).expand(SHAPE) < 32
TAKES = { # name -> function of model and images
    "call": lambda m, x: m(x), "encode": lambda m, x: m.encode(x), "reconstruct": lambda m, x: m.reconstruct(x),
    "prepare": lambda m, x: m.prepare(x), "prepare_images": prepare_images, "pipeline_figure": v.pipeline_figure,
    "traversal_figure": v.traversal_figure, "neighbourhood_figure": lambda m, x: v.neighbourhood_figure(m, x[2:3]),
    "log_likelihood": lambda m, x: v.log_likelihood(m, x, k=2),
    "annealed_importance": lambda m, x: v.annealed_importance(m, x, chains=2, steps=2, leapfrog=1),
    "likelihood_regret": lambda m, x: v.likelihood_regret(m, x, steps=1), "novelty_scores": v.novelty_scores,
    "density of states": lambda m, x: DensityOfStates(m).states(x),
    "inference_gaps": lambda m, x: v.inference_gaps(m, x, k=2, steps=1),
    "posterior_given_visible": lambda m, x: posterior_given_visible(m, x, visible, 4, 1, 1, 1),
    "inpainting_figure": lambda m, x: v.inpainting_figure(m, x, draws=4, burn_in=1, thin=1, leapfrog=1),
    "explorer": lambda m, x: v.LatentExplorer(m).encode(x[2])}


@pytest.mark.parametrize("takes", TAKES)
@pytest.mark.parametrize("wrong", WRONG)
def test_refused(model, takes, wrong):
    images, words = WRONG[wrong]
    if takes == "traversal_figure" and wrong == "channels last": words = "shape"
    if takes in ("explorer", "neighbourhood_figure"): words = words.replace(", first in image 2", "").replace("4, 3, 8, 7", r"(1, )?3, 8, 7")
    with pytest.raises(ValueError, match=words): TAKES[takes](model, images)


@pytest.mark.parametrize("takes", TAKES)
def test_bytes_mean_v_over_255(model, takes):
    "Bytes are accepted by all."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few samples
        TAKES[takes](model, (255 * pixels()).byte())


WHOLE = { # name -> function of model and Data, whose test images are wrong
    "evaluate": v.evaluate, "calibration": v.calibration, "predictive_check": v.predictive_check, "hard_images": v.hard_images,
    "inpainting_calibration": v.inpainting_calibration, "latent_numbers": v.latent_numbers,
    "embedding_figure": v.embedding_figure, "report": v.report}


@pytest.mark.parametrize("takes", WHOLE)
@pytest.mark.parametrize("wrong", ["0…255", "[-1, 1]", "NaN", "infinite"])
def test_data_put_together_by_hand(model, takes, wrong):
    "`Data` takes tensors as they are; whoever measures them looks."
    data = Data(pixels(), pixels()[:0], WRONG[wrong][0])
    with pytest.raises(ValueError, match=WRONG[wrong][1]): WHOLE[takes](model, data)
    with pytest.raises(ValueError, match="data.train " + WRONG[wrong][1]): v.fit(model, Data(WRONG[wrong][0], *[pixels()] * 2), batch_size=2)
    with pytest.raises(ValueError, match="data.valid " + WRONG[wrong][1]): v.fit(model, Data(pixels(), WRONG[wrong][0], pixels()), batch_size=2)


def test_arrays(model):
    "NumPy arrays where they were taken before."
    x = (255 * pixels()).byte()
    assert torch.equal(prepare_images(model, x.numpy()), prepare_images(model, x))
    with pytest.raises(ValueError, match="has NaN"): prepare_images(model, np.full((1, *SHAPE), np.nan))


def test_training_steps_go_past_the_door(model, monkeypatch):
    "The images of `fit` are checked once for each split, not in its steps."
    seen = []
    monkeypatch.setattr("vae_nb.training.fit.check_images_for", lambda m, x, name: seen.append(name) or check_images_for(m, x, name))
    def door(m, x, name="x"):
        if torch.is_grad_enabled(): seen.append(len(x))  # steps have gradients, what is measured has none
    monkeypatch.setattr("vae_nb.models.vae.check_images_for", door)
    v.fit(v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(4,)), Data(pixels(40), pixels(0), pixels(0)), epochs=2, batch_size=2,
          progress=False)
    assert seen == ["data.train", "data.valid"]


def test_images_of_a_model(model):
    "What a Gaussian model simulated passes: quietly where its mean is any number, else with a warning."
    for mean, count in (("identity", 0), ("sigmoid", 1)):
        own = v.create_vae(SHAPE, 2, "mlp", "mlp", hidden=(), noise="homoscedastic", mean=mean, sigma=0.3)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.manual_seed(0)
            assert own.encode(own.sample(20)).mean.isfinite().all()
        assert len(caught) == count


def test_compiled_by_the_user(model):
    "The check leaves no break in a compiled graph."
    found = []
    def backend(graph, inputs):
        found.append(graph)
        return graph.forward
    torch._dynamo.reset()
    with torch.no_grad(): torch.compile(lambda x: model.encode(x).mean, backend=backend, fullgraph=True)(pixels())
    assert len(found) == 1
