"""The command line as its users meet it: words in, lines and exit codes out."""
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from inspect import signature
from io import StringIO
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from fastcore.docments import docments
from PIL import Image

from vae_nb.basics.checks import InputError, InputTypeError, MissingPackageError
from vae_nb.cli import COMMANDS, LIST_OPTIONS, create_parser, documented_parameters, function_from_source, main
from vae_nb.data.built_in import BUILT_IN, bundled_digits
from vae_nb.data.loading import KNOWN_NAMES, load_data
from vae_nb.distributions.likelihoods import Imagewise
from vae_nb.distributions.optimal_and_faithful import OptimalGaussian
from vae_nb.evaluation.metrics import evaluate
from vae_nb.explore.films import tour
from vae_nb.models.fitted_priors import fit_prior, with_prior
from vae_nb.models.vae import VAE, create_vae
from vae_nb.training.fit import fit
from vae_nb.training.objectives import METRICS
from vae_nb.training.runs import RUN_FILES, History, read_record

TINY = ("--encoder mlp --decoder mlp --hidden 16 --latent-dim 3 --sigma-floor 0.05 "
        "--batch-size 50 --epochs 2 --no-progress")
OPEN = TINY.replace("--epochs 2 ", "")
NUMBERS = ["elbo", "reconstruction", "kl", "rmse", "sigma"]
FIGURES = ["history.png", "neighbourhood.png", "pipeline.png", "prior.png", "traversal.png"]


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    "`cli(line)` runs a command in an empty folder and returns its exit code and what it printed."
    monkeypatch.chdir(tmp_path)
    def call(line):
        code = 0
        try: main(shlex.split(line) if isinstance(line, str) else line)
        except SystemExit as e: code = e.code or 0
        return code, *capsys.readouterr()
    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A run, with options that are not the defaults."
    out = tmp_path_factory.mktemp("trained") / "run"
    main(shlex.split(f"train {TINY} --limit 200 --binarize static --seed 3 --valid 0.05 --out {out}"))
    return out


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options): raise OSError("the network is off")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def outside(*words, folder, **environment):
    "A process of its own."
    return subprocess.run([sys.executable, *words], cwd=folder, env=os.environ | environment, capture_output=True,
                          text=True, encoding="utf-8", timeout=200)


def files(folder): return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def weights(run): return torch.cat([p.detach().flatten() for p in VAE.load(run).parameters()])


# help

def test_help_needs_no_torch(tmp_path):
    code = """
import sys
from vae_nb.cli import COMMANDS, main
main([])
for words in [["--help"], *([name, "--help"] for name in COMMANDS)]:
    try: main(words)
    except SystemExit as e: assert not e.code
heavy = {"torch", "numpy", "matplotlib", "pandas", "accelerate"} & set(sys.modules)
assert not heavy, heavy"""
    done = outside("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in COMMANDS: assert f"\n  {name} " in done.stdout and f"usage: vae_nb {name} " in done.stdout


def test_modules_are_the_command_too(tmp_path):
    "python -m vae_nb, and python -m vae_nb.cli for launchers."
    for module in ("vae_nb", "vae_nb.cli"):
        done = outside("-m", module, "train", "--latent-dim", "0", folder=tmp_path)
        expected = "vae_nb: error: --latent-dim=0: expected an integer of at least 1\n"
        assert (done.returncode, done.stderr) == (2, expected)
        done = outside("-m", module, folder=tmp_path)
        assert done.returncode == 0 and done.stdout.startswith("usage: vae_nb COMMAND [options]")


def test_options_are_those_of_the_living_functions():
    "What is read off the source of a function is what docments and inspect find in it once it is imported."
    for function in (load_data, create_vae, fit):
        read = documented_parameters(function_from_source(f"{function.__module__}:{function.__name__}"))
        living, comments = signature(function).parameters, docments(function)
        assert [p.name for p, _ in read] == list(living)
        for p, comment in read:
            assert comment == comments[p.name] and len(comment) > 3, f"{p.name} has no comment"
            default = living[p.name].default
            assert p.default == default or vars(sys.modules[function.__module__])[p.default] == default
            if isinstance(default, tuple): assert p.name in LIST_OPTIONS


def test_the_help_reads_well():
    "Names without quotes, switches as switches, defaults as they are typed."
    text = " ".join(create_parser("train").format_help().split())
    for words in ("--schedule X", "--hidden [N ...]", "(default: 512 256)", "(default: elbo)", "--resume go on",
                  "--progress, --no-progress show", "--compile [MODE]", "--epochs N", "--checkpoint-activations keep"):
        assert words in text, words
    for wrong in ('"', "Literal", "nn.Module", "module from", "Head", "()", "--model "):
        assert wrong not in text, wrong
    for command in COMMANDS:
        help = create_parser(command).format_help()
        assert "(default: None)" not in help and "(default: True)" not in help and "(default: False)" not in help


def test_a_terminal_without_greek_letters(tmp_path):
    done = outside("-m", "vae_nb.cli", "train", "--help", folder=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0 and "smallest ? of a Gaussian pixel" in done.stdout and done.stderr == ""


def test_the_installed_command(settings, tmp_path):
    name, _, target = settings["console_scripts"].partition("=")
    assert (name, target) == ("vae_nb", "vae_nb.cli:main")
    script = Path(sys.executable).with_name(name)
    if not script.exists(): pytest.skip("the package is not installed here, so there is no command vae_nb")
    done = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == f"vae_nb {settings['version']}\n"


def test_every_option_is_there():
    for command, functions in dict(train=(load_data, create_vae, fit), evaluate=(load_data,),
                                   data=(load_data,)).items():
        known = {action.dest: action for action in create_parser(command)._actions}
        for name in {name for function in functions for name in signature(function).parameters}:
            if name in ("image_shape", "model", "data"): continue  # no words could give them
            flag = "--" + {"source": "data"}.get(name, name).replace("_", "-")
            assert known[name].help and (flag in known[name].option_strings or (command, name) == ("data", "source"))


def test_every_value_reaches_its_function(cli, monkeypatch):
    got = {}
    def spy(module, function):
        def call(*arguments, **options):
            got.setdefault(function.__name__, options)  # the first call is ours
            if function is fit:
                arguments[0].save(options["out"])
                return History([dict(epoch=1, train_elbo=0.0)])
            return function(*arguments, **{name: value for name, value in options.items() if name != "key"})  # is for arrays
        call.__name__, call.__signature__ = function.__name__, signature(function)
        monkeypatch.setattr(module, function.__name__, call)
    for function in (load_data, create_vae, fit): spy(sys.modules[function.__module__], function)
    digits = bundled_digits()["test_images"]
    for folder in ("images", "more"):
        Path(folder).mkdir()
        for i in range(12): Image.fromarray(digits[i]).save(f"{folder}/{i}.png")
    Path("labels.txt").write_text("\n".join("abcdefghijkl"))
    expected = dict(
        load_data=dict(source=str(Path("images").absolute()), root=str(Path("cache").absolute()), limit=9, valid=2,
                       binarize="dynamic", seed=7, resize=[14, 12], progress=False, test=str(Path("more").absolute()),
                       fit="pad", mode="L", background="#000000", scale=255, pages="first", key="7",
                       labels=str(Path("labels.txt").absolute()), groups=str(Path("labels.txt").absolute()), augment="flip+shift", skip_broken=True, cache=False),
        create_vae=dict(latent_dim=3, encoder="mlp", decoder="cnn", posterior="low_rank", prior="vamp", likelihood="gaussian",
                        noise="homoscedastic", hidden=[32, 8], channels=[4, 4], kernel_size=5, activation="gelu",
                        mean="identity", sigma=0.2, sigma_floor=0.01, classes=None, roughness=True),
        fit=dict(epochs=1, batch_size=4, lr=0.002, noise_warmup=0.0, objective="iwae", k=2, beta_nll=None, kl_weight=1,
                 schedule="constant", grad_clip=1.5, patience=3, precision="bf16", compile=True,
                 checkpoint_activations=True, accumulate=2, out=Path("out"), tracker="x", optimizer="muon",
                 init="data_mean", seed=7, progress="lines", overwrite=True, prior_after="mixture"))
    code, out, err = cli(
        "train --data images --root cache --limit 9 --valid 2 --binarize dynamic --seed 7 --resize 14 12 --no-progress "
        "--test more --latent-dim 3 --encoder mlp --decoder cnn --posterior low_rank --prior vamp --likelihood gaussian "
        "--noise homoscedastic --hidden 32 8 --channels 4 4 --kernel-size 5 --activation gelu --mean identity "
        "--sigma 0.2 --sigma-floor 0.01 --classes none --roughness --epochs 1 --batch-size 4 --lr 2e-3 --objective iwae --k 2 --beta-nll none --noise-warmup 0 "
        "--kl-weight 1 --schedule constant --grad-clip 1.5 --patience 3 --precision bf16 --compile --accumulate 2 "
        "--fit pad --mode L --background #000000 --scale 255 --pages first --key 7 --labels labels.txt --groups labels.txt "
        "--augment flip+shift --skip-broken --no-cache --tracker x --out out --overwrite --optimizer muon --init data_mean --prior-after mixture --checkpoint-activations")
    assert (code, err) == (0, "") and got == expected
    for function in (load_data, create_vae, fit):  # no option was forgotten in this test
        given = {name for name, p in signature(function).parameters.items() if p.default is not p.empty}
        elsewhere = {"resume", "latent_channels", "scope", "df"}  # below, or not with the others
        assert given - elsewhere == set(expected[function.__name__])


def test_latents_with_places_from_the_terminal(cli, monkeypatch):
    monkeypatch.setattr("vae_nb.cli.train_model", lambda model, data, out, options, name: models.append(model) or [])
    models = []
    cli("train --limit 100 --encoder resnet --channels 4 4 --latent-channels 3")
    assert (models[0].latent_dim, models[0].config["latent_channels"]) == (3 * 7 * 7, 3)


def test_noise_and_families_from_the_terminal(cli, monkeypatch):
    monkeypatch.setattr("vae_nb.cli.train_model", lambda model, data, out, options, name: models.append(model) or [])
    models = []
    cli("train --limit 100 --encoder mlp --decoder mlp --hidden 4 --noise optimal --scope channelwise")
    cli("train --limit 100 --encoder mlp --decoder mlp --hidden 4 --likelihood student_t --df 3 --noise imagewise --no-roughness")
    optimal, student = (model.decoder.head for model in models)
    assert isinstance(optimal, OptimalGaussian) and optimal.mean_variance.shape == (1, 1, 1)
    assert isinstance(student, Imagewise) and student.family.df == 3 and "roughness" not in models[1].config
    assert "df=1: expected more than 2" in cli("train --limit 100 --likelihood student_t --df 1")[2]


def test_what_is_left_open_follows_from_the_images(cli, monkeypatch):
    monkeypatch.setattr("vae_nb.training.fit.STEPS", 12)
    code, out, err = cli("train --data mnist-10k --limit 100 --encoder mlp --decoder mlp --hidden 4 --latent-dim 2")
    assert code == 0 and "chosen by the number of images: epochs=10, batch_size=32, lr=0.002, schedule='warmup', noise_warmup=0.2" in out
    assert "σ ≥ 0.01" in out  # digits are flat
    record = json.loads(Path("runs/mnist-10k/run.json").read_text())["fit"]
    assert [record[name] for name in ("epochs", "batch_size", "lr", "schedule", "noise_warmup")] == [10, 32, 0.002, "warmup", 0.2]
    assert cli("train --resume --out runs/mnist-10k")[0] == 0  # it is finished


def test_minutes_make_epochs(cli, monkeypatch):
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 10.0)
    code, out, _ = cli(f"train {OPEN} --limit 100 --minutes 0.51 --out timed")
    assert code == 0 and "epochs=3" in out
    assert json.loads(Path("timed/run.json").read_text())["fit"]["epochs"] == 3
    for words, message in (("--minutes 0.1", "takes about 0.17 minutes here"), ("--minutes 1 --epochs 2", "expected one of them"),
                           ("--minutes -1", "--minutes=-1"), ("--minutes 1 --resume --out timed", "expected no resume")):
        code, _, err = cli(f"train {OPEN} --limit 100 {words}")
        assert code == 2 and message in err, err


def test_the_time_is_kept_on_a_machine_that_becomes_slower(cli, monkeypatch):
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 1e-5)
    code, out, _ = cli(f"train {OPEN} --limit 100 --minutes 0.05 --out timed")
    assert code == 0 and "Time is up." in out and "goes on with the training" in out


def test_recipes_by_name(cli, monkeypatch):
    got = []
    monkeypatch.setattr("vae_nb.cli.train_model", lambda model, data, out, options, name: got.append((model, data, options)) or [])
    for words in ("--recipe icons", "--recipe photos --latent-dim 3"): cli(f"train --limit 100 --encoder mlp --decoder mlp --hidden 4 {words}")
    (icons, _, _), (photos, data, options) = got
    assert icons.latent_dim == 128 and icons.config["sigma_floor"] == 0.01
    assert photos.latent_dim == 3 and options["augment"] == "flip" and data.augment == "flip"
    assert "did you mean 'icons'" in cli("train --recipe icon")[2].lower()


def test_a_switch_that_may_have_a_value(cli, monkeypatch):
    "--compile, alone or with a mode."
    got = []
    monkeypatch.setattr("vae_nb.cli.train_model", lambda model, data, out, options, name: got.append(options) or [])
    for words in ("", "--compile", "--compile reduce-overhead --k 2"): cli(f"train {TINY} --limit 100 {words}")
    assert [options.get("compile") for options in got] == [None, True, "reduce-overhead"]


def test_single_values_of_rows(cli):
    code, out, _ = cli("data mnist-10k --resize 14 --limit 5")
    assert code == 0 and "(1, 14, 14)" in out and out.count(" 5") == 3
    assert cli(f"train {TINY} --limit 100 --hidden --channels none --resize none --epochs 1")[0] == 0
    assert cli(f"train {TINY} --limit 100 --hidden none --epochs 1")[0] == 0  # as the help says
    for run in ("mnist-10k", "mnist-10k-2"):
        config = json.loads(Path(f"runs/{run}/config.json").read_text())["create_vae"]
        assert (config["hidden"], config["channels"]) == ([], None)


# train, and what follows

def test_train_is_what_python_does(trained):
    data = load_data("mnist-10k", limit=200, binarize="static", seed=3, valid=0.05)
    torch.manual_seed(3)
    model = create_vae(data, 3, "mlp", "mlp", hidden=[16], sigma_floor=0.05)
    history = fit(model, data, epochs=2, batch_size=50, seed=3, progress=False)
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), weights(trained))
    assert (trained / "history.csv").read_text() == history.table().to_csv(index=False)
    assert files(trained) == sorted(RUN_FILES)


def test_evaluate(cli, trained):
    data = load_data("mnist-10k", limit=200, binarize="static", seed=3, valid=0.05)
    for words, options in (("", {}), ("--split valid --k 3", dict(split="valid", k=3))):
        code, out, err = cli(f"evaluate {trained} {words} --json --no-report")
        assert (code, err) == (0, "")
        assert json.loads(out) == {name: evaluate(VAE.load(trained), data, **options)[name] for name in NUMBERS}
    code, out, err = cli(f"evaluate {trained} --no-report")
    table = {line.split()[0]: float(line.split()[1].replace(",", "")) for line in out.splitlines()[1:]}
    numbers = evaluate(VAE.load(trained), data)
    assert list(table) == [name for name in METRICS if name in NUMBERS]
    for name in table: assert table[name] == pytest.approx(numbers[name], abs=0.006)
    for name in table: assert METRICS[name].unit in out and METRICS[name].meaning in out
    other = json.loads(cli(f"evaluate {trained} --data mnist-10k --limit 50 --json --no-report")[1])  # grey again
    assert other["elbo"] == evaluate(VAE.load(trained), load_data("mnist-10k", limit=50))["elbo"]


def test_report_and_compare(cli, trained, tmp_path, chromium):
    quick = "--n-images 20 --likelihood-k 10"
    code, out, err = cli(f"evaluate {trained} {quick} --out here --split valid")
    assert (code, err) == (0, "") and "here/report.html" in out and files("here") == ["report.html", "report.json"]
    found = json.loads(Path("here/report.json").read_text())
    data = load_data("mnist-10k", limit=200, binarize="static", seed=3, valid=0.05)
    assert found["numbers"] == evaluate(VAE.load(trained), data, "valid") | dict(k=1, images=len(data.valid), seed=0)
    assert (found["training"]["epochs"] == 2 and found["log_likelihood"]["k"] == 10
            and "reason" in found["bits_per_dimension"])
    assert cli(f"evaluate {trained} {quick} --out there --json")[0] == 0
    code, out, err = cli("compare here there here")
    assert ((code, err) == (0, "") and "compare.html" in out
            and out.count("test images of") == out.count("valid images of") == 1)
    for path in ("here/report.html", "compare.html"): check_page(chromium, tmp_path / path)
    assert cli(["compare", "here", str(trained)])[0] == 2 and cli("compare here")[0] == 2
    assert not (trained / "report.json").exists()


def check_page(chromium, path):
    "A page that asks for nothing, says nothing on the console, fits a phone, and shows all of its pictures."
    from axe_playwright_python.sync_playwright import Axe
    for scheme, width in (("light", 1000), ("dark", 390)):
        page, said = chromium.new_page(viewport=dict(width=width, height=800), color_scheme=scheme), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request",
                lambda request: said.append(request.url) if not request.url.startswith(("data:", "file:")) else None)
        page.goto(path.as_uri())
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert widths and all(widths) and said == []
        assert all(page.evaluate("[...document.images].map(image => image.alt.length > 10)"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.close()


def test_a_run_can_be_read_from_anywhere(cli, tmp_path):
    Path("digits").mkdir()
    for i, image in enumerate(bundled_digits()["test_images"][:60]): Image.fromarray(image).save(f"digits/{i}.png")
    code, _, err = cli(f"train {TINY} --data digits --batch-size 10")
    assert code == 0 and len(err.splitlines()) == 2
    assert files("runs") == ["digits"] + sorted(f"digits/{name}" for name in RUN_FILES)
    before = cli("evaluate runs/digits --json --no-progress --no-report")
    Path("runs/digits").rename(tmp_path / "moved")
    os.chdir("digits")
    assert cli(f"evaluate {tmp_path}/moved --json --no-progress --no-report") == before and before[0] == 0


def test_samples_of_a_fitted_density(cli, trained):
    "It is fitted when it is asked for; a run that has one says so."
    code, out, err = cli(f"sample {trained} --prior mixture --n 5 --seed 3 --out a.png --npz a.npz")
    model, data = VAE.load(trained), load_data(**read_record(trained)["load_data"])
    assert (code, err) == (0, "") and "drawn from a fitted mixture of 10 Gaussians (of the codes of" in out
    assert "not from the model's own prior (standard normal)" in out
    prior = fit_prior(model, data, "mixture", seed=3)
    torch.manual_seed(3)
    with np.load("a.npz") as arrays: assert np.array_equal(arrays["z"], prior().sample((5,)))
    assert VAE.load(trained).config == model.config  # the run stays as it is
    with_prior(model, prior).save("better")
    assert "drawn from the model's own prior (fitted mixture of 10 Gaussians)\n" in cli("sample better --out b.png")[1]
    assert "run.json' is missing" in cli("sample better --out b.png --prior flow")[2]
    assert "--data='mnist-10k': images are needed to fit a density, or for --nearest" in cli("sample better --out b.png --data mnist-10k")[2]
    assert "fitted Gaussian (of the codes of" in cli("sample better --out b.png --data mnist-10k --limit 90 --prior gaussian")[1]
    assert "known are 'gaussian', 'mixture', 'flow'" in cli(f"sample {trained} --prior normal")[2]
    code, out, err = cli(f"sample {trained} --nearest --prior gaussian --n 3 --out c.png")
    assert (code, err, out.splitlines()[:2]) == (0, "", ["c.png", "c.nearest.png"]) and Image.open("c.nearest.png").size[0] > 100
    assert "3 samples, drawn from a fitted Gaussian" in Image.open("c.nearest.png").text["Description"]


def test_a_prior_after_the_training(cli):
    line = "train --limit 100 --encoder mlp --decoder mlp --hidden 4 --latent-dim 2 --epochs 2 --batch-size 20 --no-progress --out run"
    code, out, err = cli(f"{line} --prior-after gaussian")
    assert code == 0 and "Its prior is a fitted Gaussian." in out
    assert read_record("run")["fit"]["prior_after"] == "gaussian" and VAE.load("run").config["prior"] == {"fitted": "gaussian"}
    before = Path("run/model.safetensors").read_bytes()
    assert cli("train --resume --out run --no-progress")[0] == 0 and Path("run/model.safetensors").read_bytes() == before
    assert "the run in 'run' was started with 'gaussian'" in cli("train --resume --out run --prior-after mixture")[2]


def test_figures_and_samples(cli, trained):
    code, out, err = cli(f"figures {trained} --out pictures")
    assert (code, err) == (0, "") and files("pictures") == FIGURES
    for name in FIGURES: assert f"pictures/{name}" in out and Image.open(f"pictures/{name}").size[0] > 300
    code, out, err = cli(f"sample {trained} --n 10 --seed 5 --out pictures/samples.pdf --npz numbers.npz")
    assert (code, out.splitlines()[:2], err) == (0, ["pictures/samples.pdf", "numbers.npz"], "")
    assert "drawn from the model's own prior (standard normal); --prior mixture draws" in out.splitlines()[2]
    with np.load("numbers.npz") as arrays:
        torch.manual_seed(5)
        model = VAE.load(trained)
        z = model.prior().sample((10,))
        assert np.array_equal(arrays["z"], z)
        with torch.no_grad(): p = model.decode(z)
        assert np.array_equal(arrays["mean"], p.mean) and np.array_equal(arrays["stddev"], p.stddev)
    assert files(trained) == sorted(RUN_FILES) and files(".") == ["numbers.npz", "pictures"] + sorted(
        f"pictures/{name}" for name in [*FIGURES, "samples.pdf"])


def test_figures_without_labels_history_or_enough_images(cli):
    model = create_vae((2, 6, 5), 2, "mlp", "mlp", hidden=(8,))
    model.save("made")
    Path("few").mkdir()
    for i in range(3): Image.fromarray(np.full((6, 5), i, np.uint8)).save(f"few/{i}.png")
    create_vae((1, 6, 5), 2, "mlp", "mlp", hidden=(8,)).save("grey")
    code, _, err = cli("figures grey --data few --valid 0 --test 1 --no-progress")
    assert (code, err) == (0, "") and files("grey/figures") == [name for name in FIGURES if name != "history.png"]
    code, _, err = cli("evaluate made")
    assert code == 2 and "'made/run.json' is missing, so the data must be given: --data" in err


def test_runs_are_kept(cli):
    tiny = f"train {TINY} --limit 60 --epochs 1"
    for _ in range(2): assert cli(tiny)[0] == 0
    first = Path("runs/mnist-10k/model.safetensors").read_bytes()
    code, out, err = cli(tiny + " --out runs/mnist-10k --seed 1")
    assert code == 2 and err.startswith("vae_nb: error: --out='runs/mnist-10k' holds a run already") and out == ""
    assert Path("runs/mnist-10k/model.safetensors").read_bytes() == first
    assert sorted(os.listdir("runs")) == ["mnist-10k", "mnist-10k-2"]
    assert torch.equal(weights("runs/mnist-10k"), weights("runs/mnist-10k-2"))  # the same seed
    assert cli(tiny + " --seed 1 --out other")[0] == 0
    assert not torch.equal(weights("runs/mnist-10k"), weights("other"))
    code, out, err = cli("train --resume --schedule constant --epochs 2 --no-progress")
    assert code == 2 and "--schedule='constant': the run in 'runs/mnist-10k-2' was started with 'cosine'" in err
    assert json.loads(Path("runs/mnist-10k-2/run.json").read_text())["fit"]["schedule"] == "cosine"  # as it was


def test_longer_with_a_constant_rate(cli):
    tiny = f"{TINY} --limit 60 --schedule constant"
    assert cli(f"train {tiny} --epochs 3 --out whole")[0] == cli(f"train {tiny} --epochs 1 --out parts")[0] == 0
    assert cli("train --resume --out parts --epochs 3 --no-progress")[0] == 0  # all other options are remembered
    assert torch.equal(weights("whole"), weights("parts"))
    assert Path("whole/history.csv").read_text() == Path("parts/history.csv").read_text()


# with a trained model

def digits_in(folder, n=12, size=28, mode="L", start=0):
    "A folder of digits as PNG, in two subfolders."
    for i, image in enumerate(bundled_digits()["test_images"][start:start + n]):
        Path(folder, "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((size, size)).convert(mode).save(Path(folder, "ab"[i % 2], f"{i}.png"))


def test_encode(cli, trained):
    digits_in("photos")
    code, out, err = cli(f"encode {trained} --data photos --no-progress")
    assert (code, out, err) == (0, "latents.csv: mean and standard deviation of 3 latents for 12 images of photos\n", "")
    table, model = pandas.read_csv("latents.csv"), VAE.load(trained)
    assert list(table) == ["name", "label", "z1", "z2", "z3", "sigma1", "sigma2", "sigma3"] and set(table["label"]) == {"a", "b"}
    assert table["name"].tolist() == sorted(f"{'ab'[i % 2]}/{i}.png" for i in range(12))
    for _, row in table.iterrows():  # by hand, image by image
        pixels = torch.from_numpy(np.array(Image.open(f"photos/{row['name']}")))[None, None] / 255
        with torch.no_grad(): q = model.encode(pixels)
        assert torch.allclose(q.mean[0], torch.tensor(row[["z1", "z2", "z3"]].tolist()), atol=1e-5)
        assert torch.allclose(q.stddev[0], torch.tensor(row[["sigma1", "sigma2", "sigma3"]].tolist()), atol=1e-5)
    assert cli(f"encode {trained} --out own.npz --no-progress")[0] == 0  # the run's own images, with its splits
    with np.load("own.npz") as own:
        assert own["mean"].shape == own["stddev"].shape == (len(own["name"]), 3)
        assert {name: int((own["split"] == name).sum()) for name in ("train", "valid", "test")} == {
            name: len(x) for name, x in ((s, load_data("mnist-10k", limit=200, valid=0.05, seed=3)[s]) for s in ("train", "valid", "test"))}
    assert cli(f"encode {trained} --out own.npz --split valid --overwrite --no-progress")[0] == 0
    with np.load("own.npz") as own: assert set(own["split"]) == {"valid"}


@pytest.mark.parametrize("name", ["odd\udce9.png", "a,\"b.png", "=1+2.png", "photo 1.png"])
def test_encode_odd_names(cli, trained, name):
    digits_in("photos", 2)
    try: Path("photos/a/0.png").rename(f"photos/a/{name}")
    except OSError: pytest.skip("this file system doesn't take such a name")
    assert cli(f"encode {trained} --data photos --no-progress")[0] == 0
    assert pandas.read_csv("latents.csv")["name"].tolist()[0] == f"a/{name}".replace("\udce9", "\\udce9")
    code, out, err = cli(f"reconstruct {trained} --data photos --out back --no-progress")
    assert (code, err) == (0, "") and len([f for f in files("back") if f.endswith(".png")]) == 2


def test_reconstruct(cli, trained, tmp_path):
    digits_in("photos")
    code, out, err = cli(f"reconstruct {trained} --data photos --out back --sigma --no-progress")
    assert (code, err) == (0, "") and out.startswith("12 reconstructions, and as many maps of σ (.sigma.png), are in back; that of")
    assert files("back") == sorted(["a", "b", *(f"{'ab'[i % 2]}/{i}{end}.png" for i in range(12) for end in ("", ".sigma"))])
    model, x = VAE.load(trained), torch.from_numpy(np.array(Image.open("photos/a/4.png")))[None, None] / 255
    with torch.no_grad(): mean = model.decode(model.encode(x).mean).mean
    assert abs(np.array(Image.open("back/a/4.png")) / 255 - mean[0, 0].numpy()).max() < 0.003
    before = {path: path.read_bytes() for path in Path("back").rglob("*.png")}
    code, out, err = cli(f"reconstruct {trained} --data photos --out back --no-progress")
    assert code == 2 and "--out='back' holds 12 of these 12 files already" in err and err.rstrip().endswith("say --overwrite")
    assert {path: path.read_bytes() for path in Path("back").rglob("*.png")} == before
    assert cli(f"reconstruct {trained} --data photos --out back --overwrite --no-progress")[0] == 0
    code, out, _ = cli(f"reconstruct {trained} --out own --no-progress")  # of the run's own images those of the test
    assert code == 0 and len(files("own")) == len(load_data("mnist-10k", limit=200).test)


def test_names_that_lead_out(cli, trained, tmp_path):
    "Of a table, and of an archive, whose names someone else has made."
    digits_in("photos", 4)
    Path("below").mkdir()
    Path("below/list.csv").write_text("path\n../photos/a/0.png\n../photos/b/1.png\n" + str(tmp_path / "photos/a/2.png") + "\n")
    before = set(files("."))
    assert cli(f"reconstruct {trained} --data below/list.csv --out back --no-progress")[0] == 0
    new = set(files(".")) - before
    assert len([name for name in new if name.endswith(".png")]) == 3 and all(name.startswith("back") for name in new)
    Path("linked").mkdir()
    Path("linked/a").symlink_to(tmp_path / "photos")
    code, _, err = cli(f"reconstruct {trained} --data photos --out linked --no-progress")
    assert code == 2 and "is a link that leads out of it" in err and set(files("photos")) == {
        "a", "b", "a/0.png", "a/2.png", "b/1.png", "b/3.png"}


def test_score(cli, trained):
    digits_in("photos")
    Image.fromarray(255 - bundled_digits()["test_images"][50]).save("photos/a/odd.png")
    code, out, err = cli(f"score {trained} --data photos --score elbo --n 5 --no-progress")
    table = pandas.read_csv("scores.csv")
    assert (code, err) == (0, "") and list(table) == ["name", "label", "score"] and len(table) == 13
    assert "a/odd.png" in set(table["name"]) and table["score"].is_monotonic_decreasing and "elbo of 13 images of photos" in out
    with Image.open("scores.png") as sheet:
        assert sheet.size[0] > 300 and f"{table['name'][0]} " in sheet.text["Description"] and sheet.text["Description"].startswith("The 5 images")
    code, out, err = cli(f"score {trained} --data photos --out b.csv --no-progress")  # the run has 200 validation images
    assert (code, err) == (0, "") and list(pandas.read_csv("b.csv")) == ["name", "label", "score", "p_value"]
    assert "density_of_states of 13 images" in out and "p < 0.05 for" in out
    code, _, err = cli(f"score {trained} --data photos --out b.csv --score elbo --no-progress")
    assert code == 2 and "--out='b.csv' is there already" in err
    assert cli(f"train {TINY} --limit 60 --out other --epochs 1")[0] == 0
    code, out, err = cli("score other --data photos --overwrite --no-progress")
    assert code == 0 and "regret of 13 images" in out and err == (
        "vae_nb: note: the run has 60 validation images, and the default score needs 100; --score regret is taken, which needs none\n")
    code, _, err = cli("score other --data photos --out c.csv --score typicality --no-progress")
    assert code == 2 and "--score='typicality': the run has 60 validation images; expected at least 100, or --score regret" in err


def test_scores_belong_to_their_names(cli, trained, monkeypatch):
    digits_in("photos")
    monkeypatch.setattr("vae_nb.apply.novel_images.scorer", lambda *_: lambda x: dict(score=x.mean((1, 2, 3))))
    assert cli(f"score {trained} --data photos --score elbo --no-progress")[0] == 0
    for _, row in pandas.read_csv("scores.csv").iterrows():
        assert np.array(Image.open(f"photos/{row['name']}")).mean() / 255 == pytest.approx(row["score"], rel=1e-5)


def test_walk(cli, trained):
    code, out, err = cli(f"walk {trained} --n 3 --frames 4 --size 60 --fps 10 --no-progress")
    assert (code, out, err) == (0, "walk.gif: 10 frames, 1.0 seconds\n", "")
    with Image.open("walk.gif") as film: assert (film.n_frames, film.size, film.info["duration"]) == (10, (56, 56), 100)
    line, arc = (tour(VAE.load(trained), load_data(**read_record(trained)["load_data"]), 3, 4, path) for path in ("linear", "spherical"))
    assert cli(f"walk {trained} --n 3 --frames 4 --path spherical --size 60 --fps 10 --out arc.gif --no-progress")[0] == 0
    assert not torch.equal(line, arc) and Path("arc.gif").read_bytes() != Path("walk.gif").read_bytes()
    assert "a single latent has a line only" in cli(f"walk {trained} --path spherical --latent 1 --out no.gif")[2]
    assert "known are 'linear', 'spherical'" in cli(f"walk {trained} --path arc --out no.gif")[2]
    digits_in("photos")
    assert cli(f"walk {trained} --data photos --latent 3 --frames 5 --out three.gif --no-progress")[:2] == (
        0, "three.gif: 9 frames, 0.8 seconds\n")


def test_a_film_without_ffmpeg(cli, trained, monkeypatch):
    import vae_nb.explore.films as films
    monkeypatch.setattr(films.shutil, "which", lambda name: None)
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    code, _, err = cli(f"walk {trained} --out walk.mp4")
    assert code == 2 and err == "vae_nb: error: --out: an MP4 needs ffmpeg: pip install imageio-ffmpeg; or take a name that ends in .gif\n"


def test_bad_images_and_places(cli, trained, tmp_path):
    "Each of the four commands that take a model to images."
    digits_in("good", 4)
    digits_in("small", 4, size=14)
    digits_in("colour", 4, mode="RGB")
    digits_in("both", 4, size=14, mode="RGB")
    Path("empty").mkdir()
    Path("file").write_text("")
    Path("shut").mkdir()
    Path("shut").chmod(0o500)
    Path("folder.csv").mkdir()
    shape = "data has images of shape"
    lines = {
        "--data empty": "no images in empty", "--data nowhere/x": "does not exist",
        "--data small": f"{shape} (1, 14, 14); the model expects (1, 28, 28): --resize 28 makes them so",
        "--data colour": f"{shape} (3, 28, 28); the model expects (1, 28, 28): --mode L makes them so",
        "--data both": f"{shape} (3, 14, 14); the model expects (1, 28, 28): --resize 28 with --mode L makes them so",
        "--data good --out file/below/OUT": "can't be written: ",
    }
    if os.access("shut", os.W_OK) is False: lines["--data good --out shut/OUT"] = "can't be written: you may not write there"
    before = files(".")
    for command, name, wrong in (("encode", "a.csv", "a.xls"), ("reconstruct", "a", None), ("score --score elbo", "a.csv", "a.txt"),
                                 ("walk", "a.gif", "a.mov")):
        more = {f"--data good --out {wrong}": f"--out='{wrong}': expected a name that ends in"} if wrong else {}
        for words, message in {**lines, **more}.items():
            words = words.replace("OUT", name)
            code, _, err = cli(f"{command} {trained} {words} --no-progress" + ("" if "--out" in words else f" --out {name}"))
            assert code == 2 and err.count("\n") == 1 and message in err, f"{command} {words}: {err}"
            assert files(".") == before
        assert "holds no saved model" in cli(f"{command} good")[2] and "holds no saved model" in cli(f"{command} nowhere")[2]
    assert "is a folder; expected the name of a file" in cli(f"encode {trained} --data good --out folder.csv")[2]
    code, out, err = cli(f"encode {trained} --data both --resize 28 --mode L --out new/deep/a.csv --no-progress")  # what the message says
    assert (code, err) == (0, "") and len(pandas.read_csv("new/deep/a.csv")) == 4  # a missing folder is made
    Path("shut").chmod(0o700)


PARTS = """
from torch.nn import Flatten, Linear, Sequential
import neighbour

class Own(Sequential):
    def __init__(self): super().__init__(Flatten(), Linear(784, neighbour.n))

def modules(): return {"encoder": Own()}
def broken(): raise KeyError("x")
def nothing(): return None
def wrong(): return {"encoder": 3}
value = 3
"""


def test_modules(cli, tmp_path):
    Path("parts.py").write_text(PARTS)
    Path("neighbour.py").write_text("n = 6\n")
    torch.manual_seed(0)
    from vae_nb.training.runs import own_modules
    model = create_vae((1, 28, 28), 3, **own_modules("parts.py:modules"), decoder="mlp", hidden=(8,))
    model.save("own")
    digits_in("photos")
    consent, data = "--modules parts.py:modules", "--data photos --no-progress"
    code, _, err = cli(f"encode own {data}")
    assert code == 2 and "the model in 'own' has parts of your own: {'encoder': 'Own'}; given to load were: none" in err
    for line in (f"evaluate own {data} --no-report", f"evaluate own {data} --likelihood-k 3 --n-images 2 --valid 0 --test 4",
                 f"figures own {data}", "sample own", f"encode own {data}", f"reconstruct own {data} --out back",
                 f"score own {data} --score elbo", f"walk own {data} --frames 3"):
        code, out, err = cli(f"{line} {consent}")
        assert code == 0, (line, err)
    for words, message in {"parts.py": "expected a file and a function in it, as in parts.py:modules", "no.py:f": "there is no file no.py",
                           "parts.py:other": "parts.py has no function other", "parts.py:value": "parts.py has no function value",
                           "parts.py:broken": "broken() raised KeyError: 'x'", "parts.py:nothing": "nothing() returned a NoneType; expected a dict",
                           "parts.py:wrong": "returned a dict with a int in it; expected a dict of modules"}.items():
        code, _, err = cli(f"sample own --modules {words}")
        assert code == 2 and err.startswith("vae_nb: error: --modules") and message in err and err.count("\n") == 1, err
    Path("bad.py").write_text("def f(:\n")
    assert "bad.py raised SyntaxError" in cli("sample own --modules bad.py:f")[2]
    create_vae((1, 28, 28), 3, "mlp", "mlp", hidden=(8,)).save("plain")
    assert "parts of your own: none; given to load were: ['encoder']" in cli(f"sample plain {consent}")[2]
    config = json.loads(Path("own/config.json").read_text())  # never from the run's folder
    config["modules"] = "parts.py:modules"
    Path("own/config.json").write_text(json.dumps(config))
    code, _, err = cli("sample own")
    assert code == 2 and "given to load were: none" in err


def test_train_as_another_run(cli, trained):
    for number, words in enumerate((f"--config {trained}/run.json", f"--config {trained}")):
        code, out, err = cli(f"train {words} --no-progress --out again{number}")
        assert code == 0 and torch.equal(weights(f"again{number}"), weights(trained)) and "not those" not in err
    assert cli(f"train --config {trained}/run.json --latent-dim 5 --epochs 1 --no-progress")[0] == 0  # what is given wins
    kept = json.loads(Path("runs/mnist-10k/run.json").read_text())
    assert kept["create_vae"]["latent_dim"] == 5 and kept["fit"]["epochs"] == 1 and kept["load_data"]["binarize"] == "static"
    before, record = files("."), json.loads((trained / "run.json").read_text())
    for text, message in (("{", "is damaged"), ("[]", "is no record of a run"), ("{}", "is no record of a run"),
                          (json.dumps(record | {"command": "x"}), "was altered"), (None, "is no file; expected the run.json of a run")):
        if text is not None: Path("a.json").write_text(text)
        code, _, err = cli(f"train --config {'a.json' if text is not None else 'b.json'} --out new")
        assert code == 2 and message in err and err.count("\n") == 1, err
        Path("a.json").unlink(missing_ok=True)
        assert files(".") == before
    from vae_nb.training.runs import record_digest
    newer = {**record, "fit": {**record["fit"], "magic": 3}}
    Path("a.json").write_text(json.dumps({**newer, "sha256": record_digest(newer)}))
    assert "has options that this version of vae_nb" in cli("train --config a.json")[2]
    assert "expected no resume" in cli(f"train --config {trained}/run.json --resume --out {trained}")[2]


def test_sweep(cli):
    few = f"{TINY} --limit 100".replace("--latent-dim 3", "")
    line = f"sweep --latent-dim 2 3 --lr 1e-3 3e-3 --out s {few}"
    code, out, err = cli(line)
    table = pandas.read_csv("s/sweep.csv")
    assert code == 0 and len(table) == 4 and "s/sweep.csv: 4 runs, by valid_elbo" in out
    assert table["valid_elbo"].is_monotonic_decreasing and (table["seconds"] > 0).all()
    assert {(row["latent_dim"], row["lr"]) for _, row in table.iterrows()} == {(2, 1e-3), (2, 3e-3), (3, 1e-3), (3, 3e-3)}
    assert cli(f"train --latent-dim 3 --lr 1e-3 --out one {few}")[0] == 0
    assert torch.equal(weights("one"), weights("s/latent_dim=3,lr=0.001"))
    row = table.set_index("folder").loc["latent_dim=3,lr=0.001"]
    assert row["test_elbo"] == pytest.approx(evaluate(VAE.load("one"), load_data("mnist-10k", limit=100))["elbo"], rel=1e-6)
    times = {path: path.stat().st_mtime_ns for path in Path("s").rglob("last.safetensors")}
    text = Path("s/sweep.csv").read_text()
    import shutil
    shutil.rmtree("s/latent_dim=2,lr=0.003")
    code, out, err = cli(line)  # only what is missing is trained
    assert code == 0 and err.count("epoch 2/2") == 1
    assert {path for path in times if path.stat().st_mtime_ns != times[path]} == {Path("s/latent_dim=2,lr=0.003/last.safetensors")}
    again = pandas.read_csv("s/sweep.csv")
    assert again.drop(columns="seconds").equals(pandas.read_csv(StringIO(text)).drop(columns="seconds"))
    for words, message in {"": "no option has several values", "--lr 1e-3 1e-3": "--lr=[0.001, 0.001]: expected different values",
                           "--lr 1e-3 3e-3 --latent-dim 2 3 --seed 4 --out s": "--seed=4: the run in 's/latent_dim=2,lr=0.001' was started with 0",
                           "--lr 1e-3 3e-3 --out one/run.json": "can't be written", "--resume": "unrecognized arguments: --resume"}.items():
        code, _, err = cli(f"sweep {few} {words}" + ("" if "--out" in words else " --out t"))
        assert code == 2 and message in err, (words, code, err)
    code, out, err = cli(f"sweep --lr 1e-3 1e30 --out broken {few} --latent-dim 2")  # a training that breaks is a row
    assert code == 0 and "training stopped in epoch 1" in err and len(pandas.read_csv("broken/sweep.csv")) == 2


# mistakes

BAD = {
    "trian": "'trian' is no command; known are demo, train, sweep, evaluate, compare, figures, sample, encode, "
             "reconstruct, score, walk, push, explore, data. Did you mean 'train'?",
    "train --lattent-dim 4": "unrecognized arguments: --lattent-dim 4. Did you mean --latent-dim?",
    "train spare": "unrecognized arguments: spare",
    "train --epochs": "argument --epochs: expected one argument",
    "evaluate": "the following arguments are required: RUN",
    "compare nothing": "'nothing' holds no report.json",
    "compare": "the following arguments are required: RUNS",
    "evaluate nothing": "folder='nothing' holds no saved model",
    "sample nothing": "folder='nothing' holds no saved model",
    "figures nothing": "folder='nothing' holds no saved model",
    "explore nothing": "folder='nothing' holds no saved model",
    "push nothing me/x": "folder='nothing' holds no saved model",
    "push nothing": "the following arguments are required: REPO_ID",
    "data mnits": f"'mnits' is not known; known are {', '.join(map(repr, KNOWN_NAMES))}. Did you",
    "data empty": "no images in empty",
    "data mnist-10k --test 5": "--test: 'mnist-10k' has test images of its own",
    "train --data broken": "broken/bad.png can't be read as an image",
    "train --data sizes --no-progress": "expected images of one size: --resize 64, or --resize height width, "
                                        "makes them so",
    "train --data /no/such/folder": "--data='/no/such/folder' does not exist; expected a folder of images",
    "train --data file": "is a file; expected a folder of images, or a file that ends in .csv",
    "train --limit 0": "--limit=0: expected an integer of at least 1",
    "train --valid 8000": "--valid=8000",
    "train --binarize statik": "--binarize='statik' is not known; known are 'static', 'dynamic'",
    "train --resize 0": "--resize=0: expected",
    "train --seed -1": "--seed=-1: expected an integer of at least 0",
    "train --latent-dim 0": "--latent-dim=0: expected an integer of at least 1",
    "train --latent-dim 2.5": "--latent-dim=2.5: expected an integer",
    "train --encoder cmm": "--encoder='cmm' is not known; known are 'cnn', 'resnet', 'mlp'.",
    "train --encoder mlp --hidden 0": "--hidden[0]=0: expected",
    "train --activation rellu": "--activation='rellu' is not known",
    "train --posterior full": "--posterior='full' is not known",
    "train --likelihood binary": "--likelihood='binary' is not known",
    "train --sigma 0.1": "--sigma=0.1 belongs to",
    "train --epochs 0": "--epochs=0: expected an integer of at least 1",
    "train --epochs few": "--epochs='few': expected an integer of at least 1",
    "train --batch-size 9000": "--batch-size=9000 is larger than the data: train has 7200 images",
    "train --lr -1": "--lr=-1: expected a number above 0",
    "train --lr nan": "--lr=nan: expected a number above 0",
    "train --objective iwea": "--objective='iwea' is not known; known are 'elbo', 'iwae', ",
    "train --objective iwae --beta-nll 0.5": "--beta-nll=0.5 with objective='iwae'",
    "train --kl-weight linaer": "--kl-weight='linaer' is not known; known are 'linear', 'cyclical'. "
                                "Did you mean 'linear'?",
    "train --kl-weight -1": "--kl-weight=-1: expected a number, 0 or above",
    "train --beta-nll 1.5": "--beta-nll=1.5: expected",
    "train --schedule cosin": "--schedule='cosin' is not known",
    "train --precision fp16": "--precision='fp16' is not known",
    "train --patience 0": "--patience=0: expected",
    "train --patience 1 --valid 0": "--patience=1 needs validation images",
    "train --tracker tensorbored": "tensorbored",
    "train --out file": "--out='file' can't be written",
    "train --out file/below": "--out='file/below' can't be written",
    "demo --seconds 0": "--seconds=0: expected a number above 0",
    "demo --seed x": "--seed='x': expected an integer",
    "demo --out file": "--out='file' can't be written",
}


@pytest.mark.parametrize("line", BAD)
def test_mistakes(cli, monkeypatch, line):
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 1.0)
    Path("file").write_text("")
    for folder in ("empty", "broken", "sizes"): Path(folder).mkdir()
    Path("broken/bad.png").write_bytes(b"\x89PNG no more")
    for i in range(20): Image.fromarray(np.full((4 + i % 2, 4), i, np.uint8)).save(f"sizes/{i}.png")
    before = files(".")
    code, out, err = cli(line if "--out" in line or not line.startswith("train") else line + " --out new/run")
    assert code == 2 and err.startswith("vae_nb: error: ") and err.count("\n") == 1 and BAD[line] in err
    assert files(".") == before


def test_mistakes_with_a_run(cli, trained, tmp_path):
    for line, message in {
        "evaluate RUN --split tset": "--split='tset' is not known",
        "evaluate RUN --k 0": "--k=0: expected",
        "evaluate RUN --n-images 0": "--n-images=0: expected",
        "evaluate RUN --likelihood-k 0": "--likelihood-k=0: expected",
        "evaluate RUN --resize 14": "data has images of shape (1, 14, 14); the model expects (1, 28, 28)",
        "explore RUN --port 0": "--port=0: expected an integer from 1 to 65535",
        "push RUN my-vae": "repo_id='my-vae': expected \"owner/name\"",
        "push RUN me/x --license MIT!": "--license='MIT!': expected the name of a license",
        "push RUN me/x --licence mit": "Did you mean --license?",
        "sample RUN --n 0": "--n=0: expected",
        "sample RUN --seed -1": "--seed=-1: expected",
        "sample RUN --out samples.jpg": "--out='samples.jpg': expected a name that ends in",
        "sample RUN --out new.png --npz RUN/run.json/x.npz": "can't be written",
        "figures RUN --format jpg": "--format='jpg' is not known; known are 'png', 'pdf', 'svg'",
        "figures RUN --out RUN/run.json": "can't be written",
        "train --resume --out RUN --latent-dim 5": "--latent-dim=5: the run in",
        "train --resume --out RUN --binarize none": "--binarize=None: the run in",
        "train --resume --out RUN --epochs 5": "--epochs=5: the run in",
        "demo --out RUN": "holds a run that is no demo",
    }.items():
        before = {path: path.read_bytes() for path in trained.iterdir()}
        code, _, err = cli(line.replace("RUN", str(trained)))
        assert code == 2 and err.startswith("vae_nb: error: ") and err.count("\n") == 1 and message in err, err
        assert {path: path.read_bytes() for path in trained.iterdir()} == before
    assert not files(tmp_path)


def test_a_damaged_record(cli, trained, tmp_path):
    for name in ("config.json", "model.safetensors"): (tmp_path / name).write_bytes((trained / name).read_bytes())
    for text in ("{", "[]", "{}", '{"load_data": 1}'):
        (tmp_path / "run.json").write_text(text)
        code, _, err = cli(f"evaluate {tmp_path} --no-report")
        assert code == 2 and "run.json is " in err and err.count("\n") == 1


def test_numbers_that_break(cli):
    code, _, err = cli(f"train {TINY} --limit 100 --lr 1e30 --out runs/a")
    assert code == 1 and err.startswith("vae_nb: error: training stopped in epoch 1 at step 2") and err.count("\n") == 1
    assert files(".") == []


def raising(error):
    def fail(*arguments, **options): raise error
    return fail


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), ImportError("x"), RuntimeError("x"),
                                   ZeroDivisionError("x"), AssertionError("x"), NotImplementedError("x")])
def test_faults_keep_their_traceback(cli, monkeypatch, error):
    monkeypatch.setattr("vae_nb.data.loading.load_data", raising(error))
    with pytest.raises(type(error)) as caught: cli("data mnist-10k --limit 5")
    assert caught.value is error


@pytest.mark.parametrize("kind", [InputError, InputTypeError, MissingPackageError, OSError, FileNotFoundError])
def test_messages_that_are_meant_for_users(cli, monkeypatch, kind):
    monkeypatch.setattr("vae_nb.data.loading.load_data", raising(kind("limit=5: x")))
    assert cli("data mnist-10k --limit 5") == (2, "", "vae_nb: error: --limit=5: x\n")


def test_notes_instead_of_warnings(cli):
    code, _, err = cli("train --encoder mlp --hidden 16 --limit 200 --likelihood bernoulli --epochs 1 --no-progress")
    assert code == 0 and err.startswith("vae_nb: note: Bernoulli likelihood on grey pixels") and err.count("\n") == 2
    assert err.splitlines()[1].startswith("epoch 1/1: train elbo ")


@pytest.mark.parametrize("name", ["continuous_bernoulli", "beta", "categorical", "discretised_mixture", "low_rank_gaussian"])
def test_likelihoods_by_name(cli, name):
    code, out, err = cli(f"train --encoder mlp --decoder mlp --hidden 8 --latent-dim 2 --limit 100 --batch-size 20 --resize 8 --epochs 1 "
                         f"--likelihood {name} --no-progress --out run")
    assert (code, (out + err).count("epoch 1/1: train elbo ")) == (0, 1), err
    assert json.loads(Path("run/config.json").read_text())["create_vae"]["likelihood"] == name
    assert cli("evaluate run --no-report")[0] == 0 and cli("sample run --n 2 --out a.png")[0] == 0


def test_data_lists_what_is_there(cli, monkeypatch, tmp_path):
    (tmp_path / "cache" / "MNIST").mkdir(parents=True)
    monkeypatch.setenv("VAE_NB_DATA", str(tmp_path / "cache"))
    code, out, _ = cli("data")
    rows = {line.split()[0]: line for line in out.splitlines() if line and ("down" in line or "built in" in line)}
    assert code == 0 and str(tmp_path / "cache") in out and all(rows[name].endswith("built in") for name in ("mnist-10k", *BUILT_IN))
    assert not rows["mnist"].endswith("not yet downloaded") and rows["cifar10"].endswith("not yet downloaded")
    assert rows["mnist"] in cli(f"data --root {tmp_path}/cache")[1] and "cache" not in files(tmp_path / "cache")


# the demo

def few(monkeypatch, n=200):
    "Less data for the demo."
    def load(source, **options): return load_data(source, **options | ({"limit": n} if source == "mnist-10k" else {}))
    load.__name__, load.__signature__ = "load_data", signature(load_data)
    monkeypatch.setattr("vae_nb.data.loading.load_data", load)


def test_demo_again(cli, monkeypatch, offline):
    few(monkeypatch)
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 70.0)
    first, second = (cli("demo --seconds 200 --no-progress --out here") for _ in range(2))
    assert first == second and first[0] == 0 and "Training for 2 epochs" in first[1]
    assert files("here") == sorted([*RUN_FILES, "figures", *(f"figures/{name}" for name in FIGURES)])
    assert "elbo" in first[1] and all(f"here/figures/{name}" in first[1] for name in FIGURES)
    options = json.loads(Path("here/run.json").read_text())
    assert options["create_vae"]["noise"] == "pixelwise" and options["fit"]["beta_nll"] == 0.5
    assert cli("evaluate here --data mnist-10k --limit 200 --json --no-report")[0] == 0  # trained on fewer, see `few`


def test_demo_on_slow_machines(cli, monkeypatch):
    few(monkeypatch)
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 1e-3)  # a guess that is far too good
    monkeypatch.setattr("vae_nb.cli.EPOCHS_PER_MINUTE", 10 ** 5)
    start = time.monotonic()
    code, out, _ = cli("demo --seconds 2 --no-progress")
    assert (code == 0 and re.search(r"Training for \d{4} epochs", out) and "Time is up." in out
            and 2 <= time.monotonic() - start)
    monkeypatch.setattr("vae_nb.cli.EPOCHS_PER_MINUTE", 12)
    # the trial takes all the time
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: time.sleep(1) or 1.0)
    before = Path("runs/demo/model.safetensors").read_bytes()
    code, out, _ = cli("demo --seconds 1 --no-progress")
    assert code == 0 and "Time is up." in out and "The run in runs/demo is as it was before." in out
    assert Path("runs/demo/model.safetensors").read_bytes() == before
    code, out, _ = cli("demo --seconds 1 --no-progress --out first")
    assert code == 0 and "Time is up." in out and "stopped in its first epoch" in out and "elbo" in out
    assert not Path("first/history.csv").exists()
    monkeypatch.setattr("vae_nb.cli.seconds_per_epoch", lambda *_, **__: 5.0)
    code, out, _ = cli("demo --seconds 14 --no-progress --out slow")
    assert code == 0 and "Training for 2 epochs, at most 14 seconds (a faster machine would make it 3)." in out
    def stopped(data, end): raise KeyboardInterrupt
    monkeypatch.setattr("vae_nb.cli.with_time_limit", stopped)
    assert cli("demo --seconds 14 --no-progress --out slow")[::2] == (130, "vae_nb: note: stopped\n")


def test_demo_from_outside(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import socket\ndef refuse(*a, **o): raise OSError('no network')\n"
                                               "socket.socket.connect = socket.getaddrinfo = refuse\n")
    done = outside("-m", "vae_nb.cli", "demo", "--seconds", "4", folder=tmp_path,
                   PYTHONPATH=os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "%|" not in done.stderr  # no bar where there is no terminal …
    kept = (tmp_path / "runs/demo/history.csv").exists()               # … and a machine may be too slow for an epoch
    assert ("epoch 1/1: train elbo" in done.stderr) == ("history in runs/demo/history.csv" in done.stdout) == kept
    assert "Training for 1 epoch, at most 4 seconds" in done.stdout
    for name in NUMBERS: assert f"\n  {name} " in done.stdout
    assert set(FIGURES) <= set(os.listdir(tmp_path / "runs/demo/figures"))  | {"history.png"}
    assert VAE.load(tmp_path / "runs/demo").latent_dim == 10
