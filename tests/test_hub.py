"""A model on a hub: the genuine client of huggingface_hub against a stand-in on this machine. No other network is touched."""
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import vae_nb as v
from vae_nb.apply.hub import PUBLISHED, scrubbed
from vae_nb.cli import main
from vae_nb.data.built_in import bundled_digits
from vae_nb.evaluation.report_sections import format_number
from vae_nb.training.objectives import METRICS
from vae_nb.training.runs import read_record

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
TRAIN = "train --encoder mlp --decoder mlp --hidden 16 --latent-dim 3 --sigma-floor 0.05 --batch-size 50 --epochs 2 --no-progress"


def stand_in():
    "The hub of the notebook's hidden cells."
    notebook = json.loads((Path(__file__).parents[1] / "nbs" / "apply" / "05_hub.ipynb").read_text(encoding="utf-8"))
    texts, names = ["".join(cell["source"]) for cell in notebook["cells"]], {}
    first, last = (next(i for i, text in enumerate(texts) if words in text) for words in ("# A hub on this machine", "def stand_in("))
    exec("\n".join(texts[first:last + 1]), names)
    return names["stand_in"]()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars
    disable_progress_bars()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # older versions know no Xet
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"): monkeypatch.delenv(name, raising=False)
    server = stand_in()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return v.create_vae((1, 8, 8), 2, "mlp", "mlp", hidden=(8,))


def push(hub, model, name="me/digits", **options):
    return model.push_to_hub(name, **dict(token="hf_me", figures=False, endpoint=hub.address) | options)


def fetch(hub, folder, name="me/digits", **options):
    return v.VAE.from_pretrained(name, **dict(endpoint=hub.address, cache_dir=folder) | options)


def on_hub(hub, name="me/digits"): return hub.repos[name]["commits"][-1][1]


def log_px(model, x):
    with v.evaluating(model): return model(x).log_px


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A run of a user called Zaphod on a machine called Heart-of-Gold, who measured it, and left a note in its report."
    home, patch = tmp_path_factory.mktemp("zaphod"), pytest.MonkeyPatch()
    (home / "zaphod" / "scans").mkdir(parents=True)
    for name, value in dict(HOME=home / "zaphod", USER="zaphod", LOGNAME="zaphod").items(): patch.setenv(name, str(value))
    patch.setattr(platform, "node", lambda: "Heart-of-Gold")
    digits, names = bundled_digits()["test_images"], [f"{i}.png" for i in range(80)]
    for x, name in zip(digits, names): Image.fromarray(x).save(home / "zaphod" / "scans" / name)
    (home / "zaphod" / "labels.txt").write_text("\n".join("ab"[i % 2] for i in range(80)))
    run = home / "zaphod" / "run"
    main(shlex.split(f"{TRAIN} --batch-size 20 --test 20 --valid 20 --data ~/scans --labels ~/labels.txt --out ~/run".replace("~", str(home / "zaphod"))))
    main(shlex.split(f"evaluate {run} --n-images 10 --likelihood-k 10"))
    report = json.loads((run / "report.json").read_text())
    report["latents"] = {"reason": f"'{home}/zaphod/a b.png' by zaphod on Heart-of-Gold can't be read"}
    (run / "report.json").write_text(json.dumps(report))
    yield run
    patch.undo()


def test_round_trip(hub, place, tmp_path):
    "What is fetched is what was pushed, to the last bit, and the card says what the report says."
    trained = v.VAE.load(place)
    address = push(hub, trained, run=place, figures=True, license="mit")
    files, report = on_hub(hub), json.loads((place / "report.json").read_text())
    assert address == f"{hub.address}/me/digits" and set(files) - {".gitattributes"} == set(PUBLISHED)
    again = fetch(hub, tmp_path)
    x = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(log_px(again, x), log_px(trained, x)) and not again.training
    assert sorted(path.name for path in tmp_path.rglob("snapshots/*/*")) == ["config.json", "model.safetensors"]
    card = files["README.md"].decode()
    history = [line.split(",") for line in files["history.csv"].decode().splitlines()]
    best = max((dict(zip(history[0], map(float, row))) for row in history[1:]), key=lambda row: row["valid_elbo"])
    for name in ("elbo", "reconstruction", "kl", "rmse", "sigma"):
        test, valid = format_number(report["numbers"][name]), format_number(best[f"valid_{name}"])
        assert f"| `{name}` | {test} | {valid} | {METRICS[name].unit} |" in card
    assert report["data"]["sha256"] in card and "| `seed` | 0 |" in card and f"epoch {best['epoch']:.0f} of 2" in card
    assert f"torch {torch.__version__}".replace("_", "\\_") in card
    for path in re.findall(r"\]\((figures/\w+\.png)\)", card): assert files[path].startswith(b"\x89PNG")
    assert card.count("](figures/") == 3
    push(hub, trained)  # without the run: its files go away in the same commit
    assert set(on_hub(hub)) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert "Nothing was measured." in on_hub(hub)["README.md"].decode() and len(hub.repos["me/digits"]["commits"]) == 3


def test_nothing_private_is_published(hub, place, tmp_path):
    "No folder, user or machine in any file; the record can be read, and the checkpoint stays here."
    push(hub, v.VAE.load(place), run=place, figures=True)
    files = on_hub(hub)
    for name, content in files.items():
        for word in ("zaphod", "heart-of-gold", str(place.parents[1]), os.getcwd(), str(Path(__file__).parents[1])):
            assert word.lower().encode() not in content.lower(), f"{word} in {name}"
    for name in ("run.json", "report.json"): (tmp_path / name).write_bytes(files[name])
    record = read_record(tmp_path)
    assert record["load_data"]["source"] == "scans" and record["load_data"]["labels"] == "labels.txt"
    assert record["fit"] == read_record(place)["fit"] and record["data"] == read_record(place)["data"]
    assert json.loads(files["report.json"])["numbers"] == json.loads((place / "report.json").read_text())["numbers"]
    assert not any("last" in name for name in files) and any("zaphod" in str(value) for value in read_record(place)["load_data"].values())


def test_front_matter(model):
    "It is YAML as the hub reads it, and holds nothing that was not given."
    from huggingface_hub import ModelCard
    data = ModelCard(v.model_card(model, "me/x", license="cc-by-4.0", figures=False)).data.to_dict()
    assert data["library_name"] == "vae_nb" and data["pipeline_tag"] == "unconditional-image-generation"
    assert data["license"] == "cc-by-4.0" and "variational-autoencoder" in data["tags"]
    card = v.model_card(model, "me/x", figures=False)
    assert "license" not in ModelCard(card).data.to_dict() and "Nothing was measured." in card


def test_the_card_runs(hub, model, tmp_path):
    "The lines of code in the card, as they stand there."
    push(hub, model)
    code = re.search(r"```python\n(.*?)```", on_hub(hub)["README.md"].decode(), re.S)[1]
    assert len([line for line in code.splitlines() if line]) == 3
    environment = os.environ | dict(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path), HF_HUB_DISABLE_XET="1")
    done = subprocess.run([sys.executable, "-c", code + "assert images.shape == (16, 1, 8, 8)"], env=environment, capture_output=True,
                          text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["import vae_nb as v; VAE = v.VAE", "from vae_nb import VAE", "from vae_nb.models.vae import VAE"])
def test_nothing_else_need_be_imported(hub, model, tmp_path, first):
    push(hub, model)
    code = f"""{first}
import sys
assert "vae_nb.apply.hub" not in sys.modules and "huggingface_hub" not in sys.modules
assert "Publish the model" in VAE.push_to_hub.__doc__ and "Read a model from a hub" in VAE.from_pretrained.__doc__
model = VAE.from_pretrained("me/digits", endpoint={hub.address!r}, cache_dir={str(tmp_path / "cache")!r})
print(model.push_to_hub("me/again", endpoint={hub.address!r}, token="hf_me", figures=False))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, cwd=tmp_path,
                          env=os.environ | dict(HF_HOME=str(tmp_path), HF_HUB_DISABLE_XET="1"))
    assert done.returncode == 0 and done.stdout == f"{hub.address}/me/again\n", done.stderr


def test_the_command(hub, place, tmp_path):
    "`vae_nb push`, with the address and the token of the environment."
    def command(*words, token="hf_me"):
        environment = os.environ | dict(HF_ENDPOINT=hub.address, HF_HOME=str(tmp_path), HF_TOKEN=token, HF_HUB_DISABLE_XET="1")
        done = subprocess.run([sys.executable, "-m", "vae_nb", "push", *words], env=environment, capture_output=True, text=True,
                              encoding="utf-8", timeout=200, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr
    code, out, err = command(str(place), "me/command", "--private", "--license", "mit", "--no-figures")
    assert code == 0 and f"{hub.address}/me/command" in out and "from_pretrained('me/command')" in out, err
    assert hub.repos["me/command"]["private"] and set(on_hub(hub, "me/command")) == {
        ".gitattributes", *(name for name in PUBLISHED if "figures" not in name)}
    code, out, err = command(str(place), "me/other", token="hf_wrong")
    assert code == 2 and "takes nothing from you there" in err and "Traceback" not in err and "me/other" not in hub.repos


def test_what_is_refused_is_not_sent(hub, model, place, tmp_path):
    "Before the first request: a model that can't be rebuilt, a run or a report of another model, and a part of a run that was changed."
    trained = v.VAE.load(place)
    changed = v.create_vae((1, 8, 8), 2, "mlp", "mlp", hidden=(8,))
    changed.decoder.head.sigma_floor = 0.5
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.safetensors", "last.safetensors", "history.csv"): (other / name).write_bytes((place / name).read_bytes())
    report = json.loads((place / "report.json").read_text())
    report["model"]["weights"] = "0" * 64
    (other / "report.json").write_text(json.dumps(report))
    for call, words in {
        lambda: push(hub, changed): "sigma_floor is 0.5",
        lambda: push(hub, model, run=place): "holds another model",
        lambda: push(hub, trained, run=other): "report.json is of other weights",
        lambda: push(hub, trained, run=tmp_path / "nothing"): "model.safetensors is missing",
        lambda: push(hub, trained, run=place, license="My own"): "license='My own'",
        lambda: push(hub, trained, "digits"): "repo_id='digits'",
        lambda: push(hub, trained, private="yes"): "private='yes'",
        lambda: push(hub, trained, data=torch.rand(3, 1, 8, 8)): r"shape \(1, 8, 8\); the model expects \(1, 28, 28\)",
    }.items():
        with pytest.raises((v.InputError, FileNotFoundError), match=words): call()
    (other / "report.json").unlink()
    (other / "history.csv").write_text("epoch,train_elbo\n1,/home/zaphod\n")
    with pytest.raises(v.InputError, match="more than names and numbers"): push(hub, trained, run=other)
    assert hub.requests == [] and hub.repos == {}


def test_a_history_of_other_weights(hub, model, tmp_path):
    "A model that was put into the folder of a run by hand has nothing to do with its history."
    data = v.load_data(torch.rand(40, 1, 8, 8), valid=10, test=10)
    v.fit(model, data, epochs=2, batch_size=10, progress=False, out=tmp_path)
    v.create_vae((1, 8, 8), 2, "mlp", "mlp", hidden=(8,)).save(tmp_path)
    with pytest.raises(v.InputError, match="not that of the best epoch"): push(hub, v.VAE.load(tmp_path), run=tmp_path)


def test_numbers_without_a_report(hub, model):
    "Without a report they are measured now; without test images there are none."
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = v.load_data(x, valid=10, test=10)
    elbo = format_number(v.evaluate(model, data)["elbo"])
    assert f"| `elbo` | {elbo} | nats |" in v.model_card(model, "me/x", data=data, figures=False)
    assert "Nothing was measured." in v.model_card(model, "me/x", data=v.load_data(x, valid=10, test=0), figures=False)
    own = v.model_card(model, "me/x", data=x, figures=False)
    assert "which the model may have been trained on" in own and "| measured |" in own


def test_names_are_no_markdown(model):
    "A data set may be called anything."
    data = v.Data(*torch.rand(3, 4, 1, 8, 8), name="<b>a`|\n# b")
    card = v.model_card(model, "me/x", data=data, figures=False)
    assert "<b>" not in re.sub("`[^`]*`", "", card) and "\n# b" not in card and "|\n" not in card.partition("images of")[2][:20]


def test_a_repository_that_is_there(hub, model, tmp_path):
    "A public one does not become private in silence, and another library's model stays."
    push(hub, model)
    hub.repos["me/bert"] = dict(private=False, gated=False, commits=[("1" * 40, {"config.json": b'{"a": 1}', "model.safetensors": b""})])
    for options, words in ((dict(private=True), "private=True.*public"), (dict(name="me/bert"), "another library")):
        before = {name: len(repo["commits"]) for name, repo in hub.repos.items()}
        with pytest.raises(v.InputError, match=words): push(hub, model, **options)
        assert {name: len(repo["commits"]) for name, repo in hub.repos.items()} == before
    push(hub, model, "me/secret", private=True)
    push(hub, model, "me/secret", private=True)  # once more
    assert hub.repos["me/secret"]["private"]
    with pytest.raises(v.InputError, match="no such model, or it is private"): fetch(hub, tmp_path, "me/secret")
    assert fetch(hub, tmp_path, "me/secret", token="hf_me").latent_dim == 2


def test_foreign_weights_are_not_fetched(hub, tmp_path):
    "Of another library's model only config.json is looked at."
    for config in (b"{}", b"[]", b"{", b'{"architectures": ["Bert"]}'):
        hub.repos["other/bert"] = dict(private=False, gated=False, commits=[("1" * 40, {"config.json": config, "model.safetensors": b"x" * 99})])
        with pytest.raises(v.InputError, match="its config.json is of another library"): fetch(hub, tmp_path / str(len(config)), "other/bert")
    hub.repos["other/empty"] = dict(private=False, gated=False, commits=[("2" * 40, {"README.md": b""})])
    with pytest.raises(v.InputError, match="it has no config.json"): fetch(hub, tmp_path, "other/empty")
    assert not any(path.endswith("safetensors") for _, path in hub.requests)


def test_damaged_on_the_hub(hub, model, tmp_path):
    "Checksums find it, and the message names the repository, not a file in a cache."
    push(hub, model)
    files = on_hub(hub)
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    for i, spoiled in enumerate((dict(files, **{"model.safetensors": bytes(weights)}), dict(files, **{"config.json": files["config.json"].replace(b"relu", b"gelu")}))):
        hub.repos["me/bad"] = dict(private=False, gated=False, commits=[(str(i) * 40, spoiled)])
        with pytest.raises(v.InputError, match="me/bad") as caught: fetch(hub, tmp_path, "me/bad")
        assert str(tmp_path) not in str(caught.value)
    hub.repos["me/half"] = dict(private=False, gated=False, commits=[("7" * 40, {"config.json": files["config.json"]})])
    with pytest.raises(v.InputError, match="it has no model.safetensors"): fetch(hub, tmp_path, "me/half")


def test_no_network(hub, model, tmp_path):
    "What was fetched once is there without a hub; what was not is told."
    push(hub, model)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(log_px(fetch(hub, tmp_path), x), log_px(model, x))
    nobody = dict(endpoint="http://127.0.0.1:9")
    assert torch.equal(log_px(fetch(hub, tmp_path, **nobody), x), log_px(model, x))
    with pytest.raises(ConnectionError, match="can't be reached, and 'me/digits' is not whole in the cache"):
        fetch(hub, tmp_path / "empty", **nobody)
    with pytest.raises(ConnectionError, match="can't be reached: "): push(hub, model, **nobody)


def test_a_hub_that_fails(hub, model, tmp_path):
    push(hub, model)
    hub.down = True
    for call in (lambda: fetch(hub, tmp_path), lambda: push(hub, model)):
        with pytest.raises(ConnectionError, match="failed with 'me/digits': .*503"): call()


def test_a_folder_is_no_repository(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("me/local")
    for name in ("me/local", "./me/local", Path("me/local"), str(tmp_path)):
        with pytest.raises(v.InputError, match=r"VAE\.load\(.*reads it"): fetch(hub, tmp_path / "cache", name)
    assert hub.requests == []
    push(hub, model, "me/local")
    assert fetch(hub, tmp_path / "cache", "me/local", revision="main").latent_dim == 2


def test_without_the_package(model, monkeypatch):
    monkeypatch.setattr("vae_nb.apply.hub.find_spec", lambda name: None)
    for call in (lambda: v.VAE.from_pretrained("me/x"), lambda: model.push_to_hub("me/x")):
        with pytest.raises(v.MissingPackageError, match=r"pip install vae_nb\[hub\]"): call()


def test_a_token_is_never_shown(hub, model):
    for token in ("hf_secret word", 3.25):
        with pytest.raises(v.InputError) as caught: push(hub, model, token=token)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text, public", [
    ("/a/b/c", "c"), ("a/b", "a/b"), ("file /a/b/c.png is", "file c.png is"), ("C:\\a\\b", "b"), ("~/x/y", "y"), ("./x/y", "y"),
    ("see https://example.org/a/b", "see https://example.org/a/b"), ("'/a b/c d.png' and '/e/f'", "'c d.png' and 'f'"), ("1/2", "1/2")])
def test_scrubbing(text, public): assert scrubbed({"a": [text]}) == {"a": [public]}
