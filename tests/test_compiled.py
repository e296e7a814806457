"""A compiled or captured training step is the same step, with every part of the library: loss, sums and gradients."""
import shutil
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo import lookup_backend
from torch.distributions import Normal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vae_nb import create_vae, fit
from vae_nb.data.splits import Data
from vae_nb.distributions.beta_nll import beta_score
from vae_nb.distributions.priors import LearnedMixture
from vae_nb.training.acceleration import PRECISIONS, checkpointed, compiled_step, patched_forward
from vae_nb.training.fit import TrainingStep, make_objective

SHAPE = (1, 9, 8)
WHOLE = { # options of the model and of the step, which becomes one program
    "elbo": ({}, {}), "iwae": ({}, dict(objective="iwae", k=3)), "free_bits": ({}, dict(objective="free_bits")),
    "elbo_stl": ({}, dict(objective="elbo_stl")), "full covariance, iwae_stl":
        (dict(posterior="full_covariance"), dict(objective="iwae_stl", k=3)),
    "tc_vae": ({}, dict(objective="tc_vae")), "info_vae": ({}, dict(objective="info_vae")),
    "own": ({}, dict(objective=lambda terms: (terms.log_px + terms.log_pz - terms.log_qz).mean(0))),
    "cnn": (dict(encoder="cnn", decoder="cnn"), {}), "full covariance": (dict(posterior="full_covariance"), {}),
    "mixture": (dict(prior=partial(LearnedMixture, 3, 4)), {}), "low rank": (dict(posterior="low_rank"), {}),
    "mixture posterior": (dict(posterior="mixture"), {}), "vamp": (dict(prior="vamp"), {}),
    "logistic": (dict(likelihood="discretised_logistic"), {}),
    "optimal": (dict(likelihood="gaussian", noise="optimal"), {}), "faithful": (dict(likelihood="gaussian", noise="faithful"), {}),
    **{name: (dict(likelihood=name), {}) for name in ("continuous_bernoulli", "beta", "categorical", "discretised_mixture", "low_rank_gaussian")},
    **{noise: (dict(likelihood="gaussian", noise=noise), {}) for noise in ("homoscedastic", "imagewise", "pixelwise")},
    "beta_nll": (dict(likelihood="gaussian"), dict(beta_nll=0.5)), "bf16": ({}, dict(precision="bf16")),
    "bf16 cnn": (dict(encoder="cnn", decoder="cnn"), dict(precision="bf16")),
    "checkpointed": ({}, dict(checkpoint_activations=True)),
}
PARTS = { # the same; only the networks become programs
    "iwae_dreg": ({}, dict(objective="iwae_dreg", k=3)), "dip_vae": ({}, dict(objective="dip_vae")),
}
COMPILER = any(map(shutil.which, ("g++", "clang++", "cl")))


def make(model, objective="elbo", k=1, beta_nll=None, precision="fp32", checkpoint_activations=False):
    "A new step, and the ways in which its networks are to run."
    torch.manual_seed(0)
    options = dict(encoder="mlp", decoder="mlp", hidden=(16,), channels=(4, 8), likelihood="bernoulli") | model
    if callable(options.get("prior")): options["prior"] = options["prior"]()
    model, ways = create_vae(SHAPE, 3, **options), ExitStack()
    score = None if beta_nll is None else beta_score(beta_nll, model.decoder.head)
    if checkpoint_activations:
        for part in (model.encoder, model.decoder): ways.enter_context(patched_forward(part.network, checkpointed))
    return TrainingStep(model, make_objective(objective, n_images=100), score, k, PRECISIONS[precision]), ways


def outcome(step, x):
    "Loss, sums and gradients of the second of two batches; the first also reports on the pixels."
    torch.manual_seed(1)
    step(x, pixel_stats=True)
    loss, sums = step(x)
    step.zero_grad()
    loss.backward()
    return [loss.detach(), sums, *(p.grad for p in step.parameters())]


def compare(model, options):
    torch.compiler.reset()
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2)).round()
    step, ways = make(model, **options)
    with ways:
        expected = outcome(step, x)
        with compiled_step(step, len(x)): found = outcome(step, x)
    close = dict(rtol=0.05, atol=0.05) if options.get("precision") == "bf16" else dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found, expected, **close)


@pytest.fixture
def no_code(monkeypatch):
    "All of the compiler, but for the writing of code; a list of the programs that it would have written."
    original, programs, write = torch.compile, [], lookup_backend("aot_eager")
    def count(graph, inputs): programs.append(graph); return write(graph, inputs)
    monkeypatch.setattr(torch, "compile", lambda f, options, **others: original(f, backend=count, **others))
    return programs


@pytest.mark.parametrize("name", [*WHOLE, *PARTS])
def test_same_step(name, no_code, recwarn):
    compare(*(WHOLE | PARTS)[name])
    assert len(no_code) == (1 if name in WHOLE else 2)
    assert not [w for w in recwarn if "can't be compiled" in str(w.message)]


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler is installed")
@pytest.mark.parametrize("name", [name if name in ("elbo", "iwae_dreg") else pytest.param(name, marks=pytest.mark.slow)
                                  for name in WHOLE | PARTS])
def test_same_step_as_a_program(name, recwarn):
    compare(*(WHOLE | PARTS)[name])
    assert not [w for w in recwarn if "can't be compiled" in str(w.message)]


@pytest.mark.parametrize("options", [{}, dict(kl_weight="linear"), dict(accumulate=2), dict(k=2, objective="iwae"),
                                     dict(checkpoint_activations=True),
                                     dict(objective="iwae_dreg", patience=3)], ids=str)
def test_same_training(options, no_code):
    "With a smaller last batch and a validation in each epoch; the model is left as it was."
    torch.compiler.reset()
    images = (torch.rand(58, *SHAPE, generator=torch.Generator().manual_seed(3)) > 0.5).to(torch.uint8) * 255
    data, histories = Data(train=images[:50], valid=images[50:], test=images[:0]), []
    for compile in (False, True):
        step, _ = make({})
        histories.append(fit(step.model, data, epochs=3, batch_size=8, compile=compile, progress=False, **options))
        assert not any("forward" in vars(module) for module in step.modules())
    for one, other in zip(*histories): assert other == pytest.approx(one, rel=1e-4)
    assert len(no_code) == (2 if options.get("objective") == "iwae_dreg" else 1)


def test_errors_are_the_step_s_own(no_code):
    "An objective that gives the wrong shape says so, compiled or not."
    torch.compiler.reset()
    images = (torch.rand(40, *SHAPE) > 0.5).to(torch.uint8) * 255
    step, _ = make({})
    data, wrong = Data(train=images, valid=images[:0], test=images[:0]), lambda terms: terms.log_px.sum()
    with pytest.raises(ValueError, match="one number per image"):
        fit(step.model, data, objective=wrong, epochs=1, batch_size=8, compile=True, progress=False)


def test_one_program_though_no_kl_was_computed_before(no_code):
    "Torch forgets the formulas that it found as soon as a new one is registered."
    torch.compiler.reset()
    torch.distributions.register_kl(type("Mine", (Normal,), {}), Normal)(lambda q, p: 0)
    step, _ = make({})
    with compiled_step(step, 6):
        for _ in range(2): step(torch.rand(6, *SHAPE).round())
    assert len(no_code) == 1


class Tape(TorchDispatchMode):
    "Like a CUDA graph on a GPU: operations that were seen once, and are done again in the same places of memory."
    def __init__(self): super().__init__(); self.done = []

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        out = operation(*arguments, **keywords or {})
        self.done.append((operation, arguments, keywords or {}, out))
        return out

    def replay(self):
        with torch._C._AutoDispatchBelowAutograd():
            for operation, arguments, keywords, out in self.done:
                again = operation(*arguments, **keywords)
                for old, new in zip(*map(tree_leaves, (out, again))):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr(): old.copy_(new)


@pytest.fixture
def graphs_on_cpu(monkeypatch):
    "The CPU as a GPU that captures and replays steps, without a compiler; a list of the tapes."
    tapes, noise = [], torch.default_generator
    def tape(): tapes.append(Tape()); return tapes[-1]
    generator = SimpleNamespace(get_state=noise.get_state, graphsafe_set_state=noise.set_state)
    monkeypatch.setattr("vae_nb.training.acceleration.can_capture", lambda device: True)
    monkeypatch.setattr("vae_nb.training.acceleration.compiled_step", lambda *_: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", tape)
    monkeypatch.setattr(torch.cuda, "default_generators", {None: generator})
    @contextmanager
    def graph(tape, capture_error_mode):  # on a GPU, nothing is computed during the capture
        before = noise.get_state()
        with tape: yield
        noise.set_state(before)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return tapes


@pytest.mark.parametrize("options", [{}, dict(kl_weight="linear"), dict(accumulate=2), dict(k=2, objective="iwae"),
                                     dict(grad_clip=50.0), dict(objective="iwae_dreg"), dict(optimizer="muon")],
                         ids=str)
def test_same_training_captured(options, graphs_on_cpu, recwarn):
    "From the fourth whole batch on, but for those that report on pixels and the smaller last ones."
    torch.compiler.reset()
    images = (torch.rand(58, *SHAPE, generator=torch.Generator().manual_seed(3)) > 0.5).to(torch.uint8) * 255
    data, histories = Data(train=images[:50], valid=images[50:], test=images[:0]), []
    for compile in (False, "reduce-overhead"):
        step, _ = make({})
        histories.append(fit(step.model, data, epochs=3, batch_size=8, compile=compile, progress=False, **options))
    for one, other in zip(*histories): assert other == pytest.approx(one, rel=1e-4)
    assert len(graphs_on_cpu) == ("accumulate" not in options)
    assert not [w for w in recwarn if "captured" in str(w.message)]


def test_what_cannot_be_captured(graphs_on_cpu, monkeypatch):
    "A warning, and the same training; the generator of random numbers is put back to its state before the capture."
    torch.compiler.reset()
    images, histories = (torch.rand(40, *SHAPE) > 0.5).to(torch.uint8) * 255, []
    data, restored = Data(train=images, valid=images[:0], test=images[:0]), []
    class Stubborn(Tape):
        def __exit__(self, *error):  # as on a GPU, where it comes out at the end
            super().__exit__(*error)
            raise RuntimeError("operation not permitted when stream is capturing")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Stubborn)
    copied = lambda device: SimpleNamespace(set_state=lambda state: SimpleNamespace(graphsafe_get_state=lambda: state))
    monkeypatch.setattr(torch, "Generator", copied)
    def restore(state): restored.append(1); torch.default_generator.set_state(state)
    torch.cuda.default_generators[None].graphsafe_set_state = restore
    for compile in (False, "reduce-overhead"):
        step, _ = make({})
        with pytest.warns(UserWarning, match="can't be captured .*not permitted") if compile else nullcontext():
            histories.append(fit(step.model, data, epochs=3, batch_size=8, compile=compile, progress=False))
    for one, other in zip(*histories): assert other == pytest.approx(one, rel=1e-4)
    assert len(restored) == 1
