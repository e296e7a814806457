"""Two processes on the CPU, as if they were two devices: they train one model, agree on every number and stop together.

As a program, this file starts the two with `notebook_launcher`; each leaves what it saw in a file."""
import json
import math
import os
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch

from vae_nb.cli import main
from vae_nb.data.built_in import bundled_digits
from vae_nb.data.splits import Data
from vae_nb.distributions.posteriors import MeanField
from vae_nb.models.vae import VAE, create_vae
from vae_nb.training.fit import TrainingStep, fit
from vae_nb.training.objectives import elbo, measure
from vae_nb.training.regularisers import free_bits
from vae_nb.training.runs import RUN_FILES

CLI = "--encoder mlp --decoder mlp --hidden 8 --latent-dim 2 --sigma-floor 0.05 --batch-size 50 --epochs 2 --limit 300"
SEEDS = range(6)


def at_its_mean(head):
    "A posterior whose samples are its mean, so nothing is random."
    class Mean(head):
        def distribution(self, raw):
            q = super().distribution(raw)
            q.rsample = lambda shape=torch.Size(): q.mean.expand(*shape, *q.mean.shape)
            return q
    return Mean


Mean = at_its_mean(MeanField)


def images(train=160, valid=37, **options):
    "Small digits, so many for training and for validation."
    x = torch.from_numpy(bundled_digits()["train_images"][:train + valid + 10, None, ::2, ::2]).contiguous()
    return Data(*x.split([train, valid, 10]), **options)


def new_model(seed=0, posterior=MeanField):
    torch.manual_seed(seed)
    return create_vae((1, 14, 14), 3, "mlp", "mlp", posterior(3), hidden=(16,), noise="homoscedastic")


def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])


# What is the same: two processes with batches of 16, one with batches of 32. (`per` device; the global batch; the rest)
EQUAL = {
    "elbo": (16, {}),
    "iwae": (16, dict(objective="iwae", k=3)),
    "accumulate": (8, dict(accumulate=2)),
    "grad_clip": (16, dict(grad_clip=800.0)),  # some steps are clipped: Adam alone would not notice a wrong scale
    "annealed": (16, dict(kl_weight="linear", schedule="constant")),
}
# What must run, and leave both processes with the same weights
ALSO = dict(
    uneven=dict(data=images(171, 1)),  # a smaller last batch; only one of the two has anything to validate
    dreg=dict(objective="iwae_dreg", k=3), stl=dict(objective="elbo_stl"), tc_vae=dict(objective="tc_vae"),
    dip_vae=dict(objective="dip_vae"), info_vae=dict(objective="info_vae"),
    free_bits=dict(objective=partial(free_bits, nats=0.5)), bf16=dict(precision="bf16"),
    checkpoint_activations=dict(checkpoint_activations=True),
    compiled=dict(compile=True, accumulate=2),
    patience=dict(objective=lambda terms: -elbo(terms), epochs=9, patience=2), without=dict(data=images(160, 0)),
)


def trained(data=None, seed=0, posterior=MeanField, start=0, **options):
    "A model that was trained, and its history."
    model = new_model(start, posterior)
    options = dict(epochs=3, batch_size=16, lr=3e-3, progress=False) | options
    history = fit(model, data or images(), seed=seed, **options)
    return dict(weights=weights(model), history=list(history))


def loop(per, wrap=lambda step: step, rank=0, world=1):
    "The training of the guide for a model in parts: the loss of each step, how many weights are here, and all weights."
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    torch.manual_seed(0)
    model = create_vae((1, 14, 14), 3, "mlp", "mlp", Mean(3), hidden=(16,), sigma_floor=0.05)
    step, curve = wrap(TrainingStep(model, elbo, None, 1)), []
    optimizer = torch.optim.Adam(step.parameters(), lr=3e-3)
    for epoch in range(3):
        for x in images().batches("train", per, epoch, rank=rank, world=world):
            value, _ = step(x)
            (-value / len(x)).backward()
            optimizer.step(); optimizer.zero_grad()
            mean = value.detach() / len(x) / world
            if world > 1: torch.distributed.all_reduce(mean)
            curve.append(mean.item())
    here = sum((p.to_local() if world > 1 else p).numel() for p in step.parameters())
    return dict(curve=curve, here=here, whole=get_model_state_dict(
        step, options=StateDictOptions(full_state_dict=True, cpu_offload=world > 1)))


def sharded(step):
    "As accelerate does with FSDP2: the networks in parts, and what is left in parts."
    from torch.distributed.fsdp import fully_shard
    for network in (step.model.encoder.network, step.model.decoder.network): fully_shard(network)
    return fully_shard(step)


# one of the two processes

def outcome(call):
    "The name and the message of the error that a call raises."
    try: return call()
    except (Exception, SystemExit) as e: return type(e).__name__, str(e)


def at(step, do, rank=1):
    "An ELBO that does something at one of its calls, in one of the processes."
    calls = []
    def objective(terms, kl_weight=1.0):
        calls.append(1)
        value = elbo(terms, kl_weight)
        return do(value) if len(calls) == step and rank == int(os.environ["RANK"]) else value
    objective.__name__, objective.__module__ = "elbo", elbo.__module__  # a checkpoint takes it for our own
    return objective


def ctrl_c(value):
    os.kill(os.getpid(), signal.SIGINT)
    return value


def writes(found, folder):
    "From now on, note every file in the folder that this process opens for writing, moves, makes or removes."
    def hook(event, arguments):
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"): return
        changes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if changes and str(arguments[0]).startswith(str(folder)): found.append(f"{event} {arguments[0]}")
    sys.addaudithook(hook)


def command(line):
    "The command line in this process: its exit code and what it printed."
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = outcome(lambda: main(line.split()))
    return dict(code=code, out=out.getvalue(), err=err.getvalue())


def process(folder):
    "All that is tried with two processes."
    from accelerate.tracking import GeneralTracker
    from torch.nn.parallel import DistributedDataParallel
    torch.set_num_threads(1)
    original = torch.compile
    torch.compile = lambda f, options, **others: original(f, backend="aot_eager", **others)  # but for writing code
    folder, rank, saw, found = Path(folder), int(os.environ["RANK"]), {}, []
    os.chdir(folder)
    writes(found, folder / "run")

    for name, (per, options) in EQUAL.items():
        saw[name] = trained(batch_size=per, posterior=Mean, start=rank, **options)
    for name, options in ALSO.items(): saw[name] = outcome(lambda: trained(**dict(epochs=1) | options))
    saw["sampled"] = [trained(seed=seed, start=seed)["history"][-1]["valid_elbo"] for seed in SEEDS]

    noise = []
    def noted(terms): noise.append((terms.z - terms.q.mean) / terms.q.stddev); return elbo(terms)
    trained(epochs=1, objective=noted)
    saw["noise"] = torch.cat(noise, 1).detach()

    exchanges, forward = [], DistributedDataParallel.forward
    def watched(self, *a, **o): exchanges.append(self.require_backward_grad_sync); return forward(self, *a, **o)
    DistributedDataParallel.forward = watched
    trained(epochs=1, batch_size=8, accumulate=2)
    DistributedDataParallel.forward, saw["exchanges"] = forward, exchanges

    class Notebook(GeneralTracker):
        name, requires_logging_directory, main_process_only = "notebook", False, True
        def __init__(self): super().__init__(); self.rows = []
        tracker = property(lambda self: self.rows)
        def store_init_configuration(self, values): pass
        def log(self, values, step, **_): self.rows.append(step)
    tracker = Notebook()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(tracker=tracker, beta_nll=0.5, kl_weight=0.1, epochs=1)
    saw["rows"], saw["warnings"] = tracker.rows, [str(w.message) for w in caught if "meant for" in str(w.message)]

    saw["sharded"] = loop(16, sharded, rank, 2)

    # what ends a run in one process
    saw["nan"] = outcome(lambda: trained(objective=at(7, lambda value: value * math.nan), out=folder / "nan"))
    saw["step"] = outcome(lambda: trained(lr=1e30, schedule="constant"))
    saw["main"] = outcome(lambda: trained(out=folder / "file" / "below"))  # only the main process tries to write there
    saw["small"] = outcome(lambda: trained(batch_size=81))
    run = folder / "run"
    saw["whole"] = trained(epochs=4)
    saw["stopped"] = trained(epochs=4, out=run, objective=at(8, ctrl_c))
    saw["resumed"] = trained(epochs=4, out=run, resume=True, start=5)
    saw["again"] = trained(epochs=4, out=run, resume=True, start=6)

    saw["train"] = command(f"train {CLI} --no-progress --data mnist-10k")
    saw["second"] = command(f"train {CLI} --no-progress --binarize dynamic")
    saw["resume"] = command("train --resume --no-progress")
    saw["mistake"] = command(f"train {CLI} --no-progress --out {folder / 'file'}")
    saw["broken"] = command(f"train {CLI} --no-progress --lr 1e30")
    saw["evaluate"] = command("evaluate runs/mnist-10k")
    saw["writes"] = found
    torch.save(saw, folder / f"{rank}.pt")


if __name__ == "__main__":
    from accelerate import notebook_launcher
    notebook_launcher(process, (sys.argv[1],), num_processes=2, use_port=sys.argv[2])


# what they saw

def start(*words, folder):
    "A program with a time limit; when it is up, its children end with it."
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    child = subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, env=environment, text=True,
                             encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try: out, err = child.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        pytest.fail("two processes wait for each other:\n" + "".join(child.communicate()))
    assert child.returncode == 0, out + err
    return out, err


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def pair(folder):
    "What the two processes saw."
    (folder / "file").write_text("")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    start(__file__, folder, port, folder=folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("name", EQUAL)
def test_two_are_one_with_the_same_global_batch(pair, name):
    "With z at the mean: the same curve, the same weights, though one of the two began with other weights."
    per, options = EQUAL[name]
    one, two = trained(batch_size=2 * per, posterior=Mean, **options), pair[0][name]
    torch.testing.assert_close(two["history"], one["history"], rtol=2e-5, atol=1e-5)  # 37 images to validate: 19 and 18
    torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", [*EQUAL, *ALSO, "whole"])
def test_both_have_the_same_model_and_history(pair, name):
    a, b = (saw[name] for saw in pair)
    assert isinstance(a, dict), a
    assert a["history"] == b["history"] and torch.equal(a["weights"], b["weights"])
    assert all(math.isfinite(value) for row in a["history"] for value in row.values())


def test_sampling_agrees_statistically(pair):
    one = torch.tensor([trained(batch_size=32, seed=seed, start=seed)["history"][-1]["valid_elbo"] for seed in SEEDS])
    two = torch.tensor(pair[0]["sampled"])
    error = ((one - two).var() / len(SEEDS)).sqrt()  # of the mean difference, pairs with the same weights at the start
    first = measure(new_model(), images().batches("valid", 32))["elbo"]
    assert (one - two).mean().abs() < 4 * error and error < 0.02 * (one.mean() - first), (one, two)
    a, b = (saw["noise"] for saw in pair)
    assert a.shape == b.shape and not (a == b).any()  # each device has noise of its own


def test_gradients_are_exchanged_once_a_step(pair):
    for saw in pair: assert saw["exchanges"] == [False, True] * 5


def test_a_model_in_two_parts(pair):
    "TrainingStep under FSDP: half of the weights each, the same curve, and the main process gathers the same model."
    one, two = loop(32), pair[0]["sharded"]
    assert (two["here"] + pair[1]["sharded"]["here"] == one["here"]
            and abs(2 * two["here"] - one["here"]) < 0.01 * one["here"])
    torch.testing.assert_close(two["curve"], one["curve"], rtol=2e-5, atol=1e-4)
    torch.testing.assert_close(two["whole"], one["whole"], rtol=1e-4, atol=2e-5)
    assert one["curve"][-1] > one["curve"][0] + 10 and pair[1]["sharded"]["whole"] == {}


def test_only_the_main_process_writes_and_warns(pair):
    assert any("model.safetensors" in text for text in pair[0]["writes"]) and pair[1]["writes"] == []
    assert pair[0]["rows"] == [5] and pair[1]["rows"] == []
    assert len(pair[0]["warnings"]) == 1 and pair[1]["warnings"] == []


def test_what_breaks_in_one_ends_both(pair, folder):
    assert pair[0]["nan"] == pair[1]["nan"] and pair[0]["step"] == pair[1]["step"]
    kind, message = pair[0]["nan"]
    assert kind == "FloatingPointError" and "in epoch 2 at step 7: the first value that is not finite is the objective" in message
    assert "on device 1" in message and "The checkpoint of epoch 1 is in" in message
    assert pair[0]["step"][0] == "FloatingPointError"
    assert len((folder / "nan" / "history.csv").read_text().splitlines()) == 2
    for saw in pair: assert saw["main"][0] == "InputError" and "can't be written" in saw["main"][1]
    for saw in pair:
        assert saw["small"] == ("InputError",
                                "batch_size=81 is larger than the data: train has 160 images for 2 devices")


def test_interrupted_and_resumed(pair, folder):
    for saw in pair:
        assert len(saw["stopped"]["history"]) == 1 and saw["stopped"]["history"] == saw["whole"]["history"][:1]
        for name in ("resumed", "again"):
            assert saw[name]["history"] == saw["whole"]["history"]
            assert torch.equal(saw[name]["weights"], saw["whole"]["weights"])
    assert (sorted(path.name for path in (folder / "run").iterdir())
            == sorted(name for name in RUN_FILES if name != "run.json"))
    message = outcome(lambda: trained(epochs=4, out=folder / "run", resume=True))
    assert message[0] == "InputError" and message[1].startswith("devices=1: the run in"), message


def test_accelerates_own_settings_change_nothing(monkeypatch):
    from accelerate.state import AcceleratorState
    plain = trained(epochs=1)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "3")
    AcceleratorState._reset_state(reset_partial_state=True)
    try: assert torch.equal(trained(epochs=1)["weights"], plain["weights"])
    finally: AcceleratorState._reset_state(reset_partial_state=True)


def test_the_command_line(pair, folder):
    a, b = pair
    for name in ("train", "second", "resume"):
        assert (a[name]["code"] is b[name]["code"] is None
                and a[name]["out"].count("The model is in runs/mnist-10k") == 1)
        assert b[name]["out"] == b[name]["err"] == ""
        said = a[name]["err"].splitlines()  # an epoch a line, and that a finished run is finished
        assert ([line.split(":")[0] for line in said] == ["epoch 1/2", "epoch 2/2"] if name != "resume" else
                len(said) == 1 and "is finished after 2 epochs" in said[0])
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["mnist-10k", "mnist-10k-2"]
    assert "in runs/mnist-10k-2 (" in a["resume"]["out"]  # the last one
    for name, code in dict(mistake="2", broken="1", evaluate="2").items():
        assert a[name]["code"] == b[name]["code"] == ("SystemExit", code)
        assert a[name]["err"].count("\n") == 1 and b[name]["out"] == b[name]["err"] == ""
    assert "can't be written: it is a file" in a["mistake"]["err"] and "training stopped in epoch 1" in a["broken"]["err"]
    assert "evaluate is the work of one process" in a["evaluate"]["err"]


def test_accelerate_launch(tmp_path):
    "Started from outside: one folder, one printout, and the record of two devices."
    out, err = start("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", 0,
                     "-m", "vae_nb.cli", "train", *CLI.split(), folder=tmp_path)
    assert (out.count("The model is in runs/mnist-10k (epoch 2 of 2") == 1
            and out.count("mnist-10k: images of shape") == 1)
    assert err.count("epoch 2/2") >= 1 and "Traceback" not in err
    run = tmp_path / "runs" / "mnist-10k"
    assert (sorted(path.name for path in run.iterdir()) == sorted(RUN_FILES)
            and len(list((tmp_path / "runs").iterdir())) == 1)
    assert json.loads((run / "run.json").read_text())["fit"]["batch_size"] == 50 and VAE.load(run)
    steps = [int(line.split(",")[1]) for line in (run / "history.csv").read_text().splitlines()[1:]]
    assert steps == [3, 6]  # 300 images: three steps of two batches of 50
