"""A training that is killed or interrupted, and resumed, gives the result of one that never stopped."""
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vae_nb.cli import main
from vae_nb.models.tensor_files import load_tensors
from vae_nb.models.vae import VAE
from vae_nb.training.fit import TrainingStep
from vae_nb.training.runs import RUN_FILES

SMALL = "train --encoder mlp --decoder mlp --hidden 64 --latent-dim 4 --sigma-floor 0.05 --no-progress"


@pytest.fixture(autouse=True)
def one_thread():
    "The same sums in the same order, here and in other processes."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def test_killed_interrupted_resumed(tmp_path):
    "One run is killed in its second epoch or later, resumed, stopped by Ctrl-C, and resumed again."
    options = "--batch-size 32 --epochs 12 --binarize dynamic --beta-nll 0.5 --seed 2"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loaded = []

    def look():  # a model can be loaded at any moment, from its first epoch on
        if rows(parts): loaded.append(VAE.load(parts))

    child = process(f"{SMALL} {options} --out {parts}")
    try:
        wait_for_epoch(child, parts, 2, look)
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


class PowerCut(BaseException): pass


def test_every_moment_of_writing(tmp_path, monkeypatch, capsys):
    "The power fails before each of the moments in which a file takes its place."
    options = "--batch-size 50 --epochs 2 --limit 100"
    moments, limit, replace = [], [None], os.replace

    def cut(source, target):
        moments.append(Path(target).name)
        if len(moments) == limit[0]: raise PowerCut
        replace(source, target)

    monkeypatch.setattr(os, "replace", cut)
    assert call(f"{SMALL} {options} --out {tmp_path / 'whole'}") == 0
    names = list(moments)
    assert {*RUN_FILES, ".probe"} == {*names} and len(names) >= 9
    for limit[0] in range(1, len(names) + 1):
        moments.clear()
        run = tmp_path / f"cut-{limit[0]}"
        with pytest.raises(PowerCut): call(f"{SMALL} {options} --out {run}")
        if "model.safetensors" in names[:limit[0] - 1]: assert VAE.load(run)
        limit[0] = None
        assert call(f"{SMALL} {options} --resume --out {run}") == 0
        assert_same(tmp_path / "whole", run)
        assert files(run) == sorted(RUN_FILES)


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
