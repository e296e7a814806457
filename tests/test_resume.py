"""A training that is killed or interrupted, and resumed, gives the result of one that never stopped."""
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vae_nb.cli import main
from vae_nb.basics.checks import InputError
from vae_nb.models.tensor_files import load_tensors
from vae_nb.models.vae import VAE
from vae_nb.training.fit import TrainingStep
from vae_nb.training.runs import RUN_FILES, read_checkpoint, read_record

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = "train --encoder mlp --decoder mlp --hidden 64 --latent-dim 4 --sigma-floor 0.05 --no-progress"


def call(line):
    "Run a command here and return its exit code."
    try: main(shlex.split(line))
    except SystemExit as e: return e.code
    return 0


def process(line):
    "Run a command in a process of its own."
    return subprocess.Popen([sys.executable, "-m", "vae_nb.cli", *shlex.split(line)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, encoding="utf-8",
                            env=os.environ | {"OMP_NUM_THREADS": "1"})


def rows(run):
    "How many epochs the history of a run tells of."
    path = run / "history.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def wait_for_epoch(child, run, n, look=lambda: None):
    "Wait until the history has `n` rows, and a little longer, into the next epoch."
    end = time.monotonic() + 120
    while rows(run) < n and child.poll() is None and time.monotonic() < end:
        look()
        time.sleep(0.005)
    time.sleep(0.1)
    assert child.poll() is None and rows(run) >= n, child.communicate()


def content(run):
    "All that a run has learned: the best model, the last weights with the state of the optimizer, and the history."
    last, metadata = load_tensors(run / "last.safetensors")
    return ({"best": load_tensors(run / "model.safetensors")[0], "last": last}, metadata["state"],
            (run / "history.csv").read_text())


def assert_same(a, b):
    "The same to the last bit."
    (tensors_a, *texts_a), (tensors_b, *texts_b) = content(a), content(b)
    assert texts_a == texts_b
    for name in tensors_a:
        assert tensors_a[name].keys() == tensors_b[name].keys()
        for key, t in tensors_a[name].items(): assert torch.equal(t, tensors_b[name][key]), key


def files(run): return sorted(path.name for path in run.iterdir())


def test_killed_interrupted_resumed(tmp_path, capsys):
    "One run is killed in its second epoch or later, resumed, stopped by Ctrl-C, and resumed again."
    options = "--batch-size 32 --epochs 12 --binarize dynamic --beta-nll 0.5 --seed 2"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loaded = []

    def look():  # a model can be loaded at any moment, from its first epoch on
        if rows(parts): loaded.append(VAE.load(parts))

    child = process(f"{SMALL} {options} --out {parts}")
    try:
        wait_for_epoch(child, parts, 2, look)
        child.send_signal(signal.SIGSTOP)  # it is alive, and can't come to its end before it is killed
        for how in ("--overwrite", "--resume", ""):  # nobody else trains there meanwhile
            assert call(f"train {how} --out {parts}") == 2
            assert f"is in use: process {child.pid} on" in capsys.readouterr().err
        child.send_signal(signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL
    finally: child.kill()
    killed = rows(parts)
    assert 2 <= killed < 12 and len(loaded) > 1 and VAE.load(parts)
    for name in RUN_FILES: (parts / f".{name}.half").write_bytes(b"half")  # as if it had been writing just then

    child = process(f"train --resume --out {parts} --no-progress")
    try:
        wait_for_epoch(child, parts, killed + 1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally: child.kill()
    assert child.returncode == 130 and "Traceback" not in err and "goes on with the training" in out and "elbo" in out
    assert killed < rows(parts) < 12 and files(parts) == sorted(RUN_FILES)  # what was half-written is gone

    assert call(f"train --resume --out {parts} --no-progress") == 0
    assert call(f"{SMALL} {options} --out {whole}") == 0
    assert_same(whole, parts)
    assert files(whole) == files(parts) == sorted(RUN_FILES) and rows(parts) == 12


def killed_at(moment, line):
    "Run a command in a process that ends, as if killed, before one of the moments in which a file takes its place."
    child = os.fork()
    if child: return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    moments = iter(range(1, 1000))

    def cut(move):
        def either(source, target):
            if next(moments) == moment: os._exit(9)
            move(source, target)
        return either

    try:
        os.replace, os.rename = cut(os.replace), cut(os.rename)
        os._exit(call(line))
    finally: os._exit(1)


def test_every_moment_of_writing(tmp_path, capsys):
    "What was whole before stays whole; the next training cleans up and goes on, or has nothing to go on with."
    options = f"{SMALL} --batch-size 50 --epochs 2 --limit 100"
    assert call(f"{options} --out {tmp_path / 'whole'}") == 0
    moment, outcomes = 0, []
    while True:
        run, moment = tmp_path / f"cut-{moment}", moment + 1
        if killed_at(moment, f"{options} --out {run}") == 0: break
        if (run / "history.csv").exists(): assert VAE.load(run)
        outcomes.append(call(f"train --resume --no-progress --out {run}"))
        if outcomes[-1]: assert call(f"{options} --out {run}") == 0
        assert_same(tmp_path / "whole", run)
        assert files(run) == sorted(RUN_FILES)
    assert outcomes == [2, *[0] * (len(outcomes) - 1)] and len(outcomes) >= 14  # before the first there was no record


def test_every_moment_of_replacing(tmp_path, capsys):
    "The old run, or the new one."
    options = f"{SMALL} --batch-size 50 --epochs 1 --limit 100"
    for seed, name in enumerate(("old", "new")): assert call(f"{options} --seed {seed} --out {tmp_path / name}") == 0
    (tmp_path / "old" / "report.json").write_text("of the old run")
    moment, seeds = 0, []
    while True:
        run, moment = tmp_path / f"cut-{moment}", moment + 1
        shutil.copytree(tmp_path / "old", run)
        if killed_at(moment, f"{options} --seed 1 --overwrite --out {run}") == 0: break
        assert call(f"train --resume --no-progress --out {run}") == 0
        seeds.append(read_record(run)["fit"]["seed"])
        old = seeds[-1] == 0
        assert_same(tmp_path / ("old" if old else "new"), run)
        assert files(run) == sorted([*RUN_FILES, *["report.json"] * old])
    assert seeds == sorted(seeds) and {0, 1} == {*seeds}


@pytest.mark.parametrize("n", [300, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files(tmp_path, capsys, n, record_property):
    "No changed bit, no cut and no exchange in a file of a run goes unnoticed, and all are said in words."
    run, draw = tmp_path / "run", random.Random(n)
    small = SMALL.replace("--hidden 64", "--hidden 2")
    assert call(f"{small} --binarize static --limit 100 --batch-size 50 --epochs 1 --out {run}") == 0
    names = [name for name in RUN_FILES if name != "history.csv"]  # a copy, for people
    whole = {name: (run / name).read_bytes() for name in names}

    def opened(): return VAE.load(run), read_checkpoint(run / "last.safetensors")[1], read_record(run)

    record = opened()[2]
    for _ in range(n):
        name, kind = draw.choice(names), draw.choice(("flip", "head", "cut", "swap", "exchange"))
        x = bytearray(whole[name])
        i, j = draw.randrange(len(x)), draw.randrange(len(x))
        if kind == "flip": x[i] ^= 1 << draw.randrange(8)
        elif kind == "head": x[i % min(2000, len(x))] ^= 1 << draw.randrange(8)  # few of a model's bytes are no numbers
        elif kind == "cut": del x[i:]
        elif kind == "swap": x[i], x[j] = x[j], x[i]
        else: x = whole[draw.choice(names)]
        if x == whole[name]: continue
        (run / name).write_bytes(x)
        try: found = opened()
        except (InputError, FileNotFoundError) as e: assert str(run) in str(e)
        else: assert name == "run.json" and found[2] == record, (name, kind, i, j)  # the same in other letters
        (run / name).write_bytes(whole[name])
    assert opened()[2] == record
    record_property("flips, cuts, swaps and exchanges", n)


def test_what_can_not_go_on(tmp_path, capsys, monkeypatch):
    "A mistyped folder is not begun, and a run is not overwritten without a word."
    monkeypatch.chdir(tmp_path)
    small = f"{SMALL} --limit 100 --batch-size 50 --epochs 1"
    for line in ("train --resume --out typo", "train --resume"):
        assert call(line) == 2 and "holds no run that could go on" in capsys.readouterr().err and files(tmp_path) == []
    assert call(f"{small} --out run") == 0
    before = content(Path("run"))
    capsys.readouterr()
    for line in (f"{small} --out run", f"{small} --overwrite --resume --out run"):
        assert call(line) == 2 and capsys.readouterr().err.count("\n") == 1
    assert call(f"{small} --out run --overwrite --lr 1e30") == 1
    assert content(Path("run"))[1:] == before[1:]
    assert files(Path("run")) == sorted(RUN_FILES)


def test_interrupted_in_the_first_epoch(tmp_path, capsys, monkeypatch):
    "What was reached is kept; there is no whole epoch to go on from, so resuming starts again."
    options = f"{SMALL} --limit 100 --batch-size 10 --epochs 2"
    step, count = TrainingStep.forward, []

    def interrupted(self, x, **options):
        count.append(x)
        if len(count) == 4: raise KeyboardInterrupt
        return step(self, x, **options)

    monkeypatch.setattr(TrainingStep, "forward", interrupted)
    assert call(f"{options} --out {tmp_path / 'parts'}") == 130
    assert "stopped in its first epoch" in capsys.readouterr().out
    assert (files(tmp_path / "parts") == ["config.json", "model.safetensors", "run.json"]
            and VAE.load(tmp_path / "parts"))
    assert call(f"train --resume --no-progress --out {tmp_path / 'parts'}") == 0
    assert call(f"{options} --out {tmp_path / 'whole'}") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
