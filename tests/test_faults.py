"""Faults from outside: killed processes, full and read-only disks, odd settings, odd names, long trainings."""
import errno
import multiprocessing
import os
import random
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

import vae_nb as v
from vae_nb.cli import main
from vae_nb.models.tensor_files import load_tensors
from vae_nb.training.objectives import elbo
from vae_nb.training.runs import RUN_FILES, read_checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
EPOCHS = 4


def train(out, seed=0, **options):
    "A training of some hundredths of a second."
    torch.manual_seed(seed)
    model = v.create_vae((1, 4, 4), 2, "mlp", "mlp", hidden=(4,))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "there is no checkpoint|the run in .* is finished")
        return v.fit(model, X, **dict(epochs=EPOCHS, batch_size=16, out=out, seed=seed, progress=False) | options)


def content(out):
    "All that a run has learned."
    tensors = {name: load_tensors(out / name)[0] for name in ("model.safetensors", "last.safetensors")}
    return {name: {key: t.numpy().tobytes() for key, t in part.items()} for name, part in tensors.items()}, (
        read_checkpoint(out / "last.safetensors")[1], (out / "history.csv").read_text())


def check_whole(out):
    "A folder that a training has left can be loaded, or holds no model yet."
    if not (out / "history.csv").exists(): return
    assert v.VAE.load(out).latent_dim == 2
    read_checkpoint(out / "last.safetensors")


def files(out): return sorted(path.name for path in out.iterdir()) if out.exists() else []


def forked(work, before=lambda child: None):
    "What a forked process ends with: 0, 1 after an error, or the negative number of a signal that `before` has sent."
    child = os.fork()
    if not child:
        try: work(); os._exit(0)
        except BaseException: os._exit(1)
    before(child)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "A training that nothing disturbs, and its seconds."
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    train(out)
    start = time.monotonic()
    assert not forked(lambda: train(out, overwrite=True))
    return content(out), time.monotonic() - start


@pytest.mark.parametrize("n", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_random_instants(tmp_path, whole, n, record_property):
    "A training is killed, resumed, killed again until it comes to its end: with the same weights. Then the next one."
    draw, kills, runs, fresh = random.Random(n), 0, 0, 0
    def enough(): return kills >= n and 0 < fresh < kills or kills >= 5 * n  # in the first epoch, and later
    while not enough():
        out = tmp_path / f"run-{runs}"
        while not enough():
            def kill(child):
                time.sleep(draw.random() * whole[1] * (1 + kills / n))  # the machine may be slower than it was
                os.kill(child, signal.SIGKILL)
            code = forked(lambda: train(out, resume=True), kill)
            assert code in (0, -signal.SIGKILL)
            check_whole(out)
            if code == 0: break
            kills += 1; fresh += not (out / "history.csv").exists()
        train(out, resume=True)
        assert content(out) == whole[0] and files(out) == sorted(set(RUN_FILES) - {"run.json"})
        runs += 1
    assert 0 < fresh < kills
    record_property("kills", kills)
    record_property("trainings", runs)


WRITES = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


def failing(out, moment, onwards, code):
    "In this process, let the write number `moment` below `out`, or all from it on, fail as on a disk with a fault."
    moments = iter(range(1, 10 ** 6))
    def hook(event, arguments):
        if event not in WRITES or not any(str(a).startswith(str(out)) for a in arguments[:2]): return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR): return
        now = next(moments)
        if now == moment or onwards and now > moment: raise OSError(code, os.strerror(code), str(arguments[0]))
    sys.addaudithook(hook)
    return moments


@pytest.mark.parametrize("onwards", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code, step", [
    pytest.param(errno.EROFS, 25, id="read-only"), pytest.param(errno.ENOSPC, 1, id="full", marks=pytest.mark.slow),
    pytest.param(errno.EACCES, 1, id="denied", marks=pytest.mark.slow)])
def test_every_write_may_fail(tmp_path, whole, onwards, code, step, record_property):
    "A disk that becomes read-only or full, at each moment: an error that names the file, and a run that can go on."
    moment, faults = 1, 0
    while True:
        out, said = tmp_path / f"run-{moment}", tmp_path / f"said-{moment}"
        def work():
            sys.stderr = sys.stdout = open(os.devnull, "w")
            text = open(said, "w")
            moments = failing(out, moment, onwards, code)
            try: train(out)
            except (v.InputError, OSError) as e: text.write(f"{type(e).__name__}: {e}")
            text.flush()
            os._exit(3 if next(moments) <= moment else 0)
        ended = forked(work)
        if ended == 3: break
        assert ended == 0, moment
        check_whole(out)
        if text := said.read_text(): assert out.name in text and os.strerror(code) in text, text
        faults += bool(text)
        train(out, resume=True)
        assert content(out) == whole[0] and files(out) == sorted(set(RUN_FILES) - {"run.json"}), moment
        moment += step
    assert moment > 20 and faults > moment // step / 3
    record_property("writes that failed", moment // step)


@pytest.mark.parametrize("limits", [
    [0, 100, 3000], pytest.param([*range(0, 6000, 60)], marks=pytest.mark.slow)], ids=len)
def test_no_file_can_grow(tmp_path, whole, limits, record_property):
    "A disk that takes only the first bytes of a file: nothing half-written, the old run as it was."
    old = tmp_path / "old"
    train(old, seed=1, epochs=1)
    before = content(old)
    for limit in limits:
        for out, how in ((old, dict(overwrite=True)), (tmp_path / f"new-{limit}", {})):
            def work():
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                try: train(out, **how)
                except v.InputError as e: os._exit(3 if str(out) in str(e) else 4)
            ended = forked(work)
            assert ended == 3, (ended, limit)
            if how: assert content(old) == before and files(old) == sorted(set(RUN_FILES) - {"run.json"})
            else: assert not out.exists()
    train(old, overwrite=True)
    assert content(old) == whole[0]
    record_property("sizes", len(limits))


def _train_and_send(pipe, out):
    torch.set_num_threads(1)
    train(out)
    pipe.send(content(out))


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_started_by(how, tmp_path, whole):
    "Two processes at once, started either way, come to the weights of this one."
    context, started = multiprocessing.get_context(how), []
    for i in range(2 if how == "fork" else 1):
        here, there = context.Pipe()
        started.append((here, context.Process(target=_train_and_send, args=(there, tmp_path / f"{how}-{i}"))))
        started[-1][1].start()
    for here, process in started:
        assert here.poll(120) and here.recv() == whole[0]
        process.join()


SCRIPT = """
import shlex, sys
from vae_nb.cli import main
for line in sys.argv[1:]: main(shlex.split(line))
"""
SURROUNDINGS = { # the first is for every day; -O takes longer, since Python compiles all modules anew
    "C locale, warnings are errors": (["-W", "error"], dict(LC_ALL="C", PYTHONHASHSEED="random")),
    "optimised": (["-O", "-W", "error"], dict(PYTHONHASHSEED="0")),
    "C locale without UTF-8": ([], dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONHASHSEED="1")),
    "without docstrings": (["-OO"], dict(PYTHONHASHSEED="2")),
    "Turkish, development mode": (["-X", "dev"], dict(LC_ALL="tr_TR.UTF-8", PYTHONHASHSEED="3"))}
SMALL = "--encoder mlp --decoder mlp --hidden 8 --latent-dim 2 --batch-size 50 --epochs 2 --no-progress"
LINES = (f"train {SMALL} --limit 100 --out rün",
         "evaluate rün --k 2 --no-report --json", "sample rün --n 4 --npz samples.npz")


def results(folder, printed):
    "All files but the pictures, and what `evaluate` has printed."
    found = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"}
    return found | {"numbers": re.search(r"\{.*?\}", printed, re.DOTALL)[0]}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    "What the lines give in this process."
    folder, here = tmp_path_factory.mktemp("surroundings"), os.getcwd()
    torch.set_num_threads(1)
    os.chdir(folder)
    try:
        with redirect_stdout(StringIO()) as printed:
            for line in LINES: main(shlex.split(line))
    finally: os.chdir(here)
    return results(folder, printed.getvalue())


@pytest.mark.parametrize("name", [name if i == 0 else pytest.param(name, marks=pytest.mark.slow)
                                  for i, name in enumerate(SURROUNDINGS)])
def test_surroundings(name, tmp_path, expected, root):
    "Train, evaluate and sample give the same bytes, whatever the locale, the hash seed and the switches of Python."
    switches, variables = SURROUNDINGS[name]
    surroundings = os.environ | dict(OMP_NUM_THREADS="1", PYTHONPATH=str(root)) | variables
    done = subprocess.run([sys.executable, *switches, "-c", SCRIPT, *LINES], cwd=tmp_path, env=surroundings,
                          capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    found = results(tmp_path, done.stdout)
    assert found.keys() == expected.keys() > {*RUN_FILES, "samples.npz"}
    assert [name for name in found if found[name] != expected[name]] == []


NAMES = ["a b", " x ", "it's", 'a "b"', "a\nb", "a\tb", "süß–日本", "a" * 200, "-dash", "--out", "%s {x} $HOME", "a;b&c",
         "a.b.", "*?[x]", "#1", "back\\slash", "~nobody-of-this-name", "e\u0301", "🦜", "\u202egnp"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_odd_names(name, tmp_path, monkeypatch, capsys):
    "A folder of any name takes a run, a model and figures, from Python and the command line, and nothing else comes."
    monkeypatch.chdir(tmp_path)
    train(name, epochs=1)
    train(name, epochs=1, resume=True)
    model = v.VAE.load(name)
    model.save(f"{name}/{name}")
    assert v.VAE.load(Path(name, name)).latent_dim == 2
    word = f"./{name}"  # as a shell needs it too
    main(["sample", word, f"--out={word}/{name[:190]}.png", f"--npz={word}/samples.npz"])
    assert files(tmp_path) == [name]
    assert set(files(Path(name))) > {"samples.npz", f"{name[:190]}.png", name}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_all_commands_with_odd_names(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pictures = f"./{name}/{name}"
    Path(pictures).mkdir(parents=True)
    for i, x in enumerate((255 * X).byte().numpy()): Image.fromarray(x[0]).save(f"{pictures}/{i}.png")
    run, data = f"./{name}/run", f"--data={pictures}"
    for line in (["train", data, f"--out={run}", *SMALL.replace("50", "8").split()],
                 ["evaluate", run, "--n-images=3", "--likelihood-k=3", f"--out={run}/{name}"],
                 ["figures", run, f"--out={run}/{name}"], ["data", pictures],
                 ["compare", f"{run}/{name}", f"{run}/{name}", f"--out={run}/{name}/compare.html"]): main(line)
    assert set(files(Path(run, name))) > {"report.html", "report.json", "compare.html", "history.png"}
    assert files(tmp_path) == [name]


def test_home(tmp_path, monkeypatch, capsys):
    "`~` is the home folder wherever a name comes in; an unknown user's is a name like others."
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train("~/run", epochs=1)
    history = train("~/run", epochs=1, resume=True)
    history.save("~/history.csv")
    v.VAE.load("~/run").save("~/model")
    v.image_grid(X[:4], save="~/a.png")
    v.report("~/model", X, "~/report", n_images=3, likelihood_k=3, n_gap_images=2)
    v.compare(["~/report"] * 2, "~/compare.html")
    main(shlex.split("sample '~/run' --out '~/b.png' --npz '~/c.npz'"))
    assert files(tmp_path / "home") == "a.png b.png c.npz compare.html history.csv model report run".split()
    assert files(tmp_path / "here") == []
    for source in ("~nobody-of-this-name/x", "~nobody-of-this-name"):
        with pytest.raises(v.InputError, match="~nobody"): v.load_data(source)


@pytest.mark.slow
def test_a_long_training_holds_no_more_and_more(tmp_path, record_property):
    "100,000 steps: neither memory nor open files grow."
    process, seen = psutil.Process(), []
    def watched(terms):
        watched.steps += 1
        if watched.steps % 1000 == 0:
            seen.append((process.memory_info().rss, (process.num_fds(), process.num_threads())))
        return elbo(terms)
    watched.steps = 0
    torch.manual_seed(0)
    model = v.create_vae((1, 4, 4), 2, "mlp", "mlp", hidden=(4,))
    data = v.load_data(torch.rand(9000, 1, 4, 4), valid=0, test=0.1)
    v.fit(model, data, epochs=100, batch_size=8, objective=watched, out=tmp_path / "run", progress=False)
    early, late = seen[20:30], seen[-10:]
    grown = max(rss for rss, _ in late) - max(rss for rss, _ in early)
    assert len(seen) >= 100 and grown < 2 ** 22, grown
    assert {counts for _, counts in early} == {counts for _, counts in late}
    record_property("steps", watched.steps)
    record_property("bytes more between step 20,000 and the last", grown)
