"""Files that are damaged, cut off or made up: readers give what is right, or an error of this library; nothing else."""
import io
import json
import os
import random
import resource
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import vae_nb as v
from vae_nb.basics.checks import InputError, InputTypeError
from vae_nb.data.image_files import picture_tensor, read_image
from vae_nb.models.tensor_files import digest, load_tensors, save_tensors
from vae_nb.training.optimisers import make_optimizer
from vae_nb.training.runs import load_checkpoint, read_checkpoint

COUNT = int(os.environ.get("VAE_NB_EXAMPLES", 0))
some = settings(max_examples=COUNT or 60, deadline=None, derandomize=not COUNT, database=None,
                suppress_health_check=list(HealthCheck))
OURS = InputError, InputTypeError, FileNotFoundError
DAMAGES = st.lists(st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)), st.tuples(st.just("zeros"), st.floats(0, 1), st.integers(1, 99)),
    st.tuples(st.just("swap"), st.floats(0, 1), st.integers(1, 99))), min_size=1, max_size=3)


def damaged(data, damages):
    "Bytes with flipped bits, a lost end, zeros, or two neighbouring pieces exchanged."
    for what, where, n in damages:
        data, at = bytearray(data), int(where * len(data))
        if what == "flip" and data: data[at] ^= 1 << n
        if what == "cut": del data[at:]
        if what == "zeros": data[at:at + n] = bytes(len(data[at:at + n]))
        if what == "swap": data[at:at + 2 * n] = data[at + n:at + 2 * n] + data[at:at + n]
    return bytes(data)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    v.create_vae((1, 4, 4), 2, "mlp", "mlp", hidden=(4,)).save(folder)
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@some
@given(damages=DAMAGES)
def test_a_damaged_model_is_never_another_model(name, damages, saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for file, content in saved.items(): (folder / file).write_bytes(damaged(content, damages) if file == name else content)
    try: model = v.VAE.load(folder)
    except OURS: return
    model.save(folder / "again")
    for file in saved:  # what was damaged had no meaning, as a space in JSON
        if file == "config.json": assert json.loads((folder / "again" / file).read_text()) == json.loads(saved[file])
        else: assert (folder / "again" / file).read_bytes() == saved[file]


json_values = st.recursive(st.none() | st.booleans() | st.integers(-9, 10 ** 12) | st.floats() | st.text(max_size=5),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
                           max_leaves=5)


@some
@given(data=st.data())
def test_made_up_recipes(data, saved, tmp_path_factory):
    "A config.json with other values in it: refused, whatever they are."
    folder, config = tmp_path_factory.mktemp("made"), json.loads(saved["config.json"])
    name = data.draw(st.sampled_from(sorted(config["create_vae"])))
    before, config["create_vae"][name] = config["create_vae"][name], data.draw(json_values)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(saved["model.safetensors"])
    if config["create_vae"][name] == before and type(config["create_vae"][name]) is type(before): return
    with warnings.catch_warnings(), pytest.raises(OURS):
        warnings.simplefilter("ignore")
        v.VAE.load(folder)


@some
@given(damages=DAMAGES)
def test_damaged_tensors_are_never_other_tensors(damages, tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    tensors = {"a": torch.arange(6.).view(2, 3), "b": torch.ones(1)}
    save_tensors(path, tensors, {"name": "x"})
    content = path.read_bytes()
    path.write_bytes(damaged(content, damages))
    try: found, metadata = load_tensors(path)
    except OURS: return
    assert metadata["name"] == "x" and found.keys() == tensors.keys()
    for name, value in tensors.items(): assert torch.equal(found[name], value)


def picture(form):
    x = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    Image.fromarray(x).save(file := io.BytesIO(), form)
    return file.getvalue()


FORMS = "png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm"


@pytest.mark.parametrize("form", FORMS)
@some
@given(damages=DAMAGES)
def test_damaged_pictures(form, damages):
    try: found = picture_tensor(read_image(io.BytesIO(damaged(picture(form), damages)), name="x"))
    except OURS: return
    assert found.dtype == torch.uint8 and found.ndim == 3 and found.numel()


# fuzzing: ten minutes for each reader in `make test-long`, one second otherwise

SECONDS = float(os.environ.get("VAE_NB_FUZZ", 600))
WORTHY = [b"0", b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"9" * 20, b"\xff\xff\xff\x7f", b"\xff" * 8, b"\0" * 8, b'"']


def mutated(data, others, draw):
    "Bytes with a few changes of many kinds: bits, bytes, pieces moved, doubled, lost, or taken from another file."
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        i, n = draw.randrange(len(data) + 1), min(draw.choice((1, 2, 4, 8, 64, 1000)), len(data))
        if draw.random() < 0.5: i %= min(len(data), 600) + 1  # headers
        j, other = draw.randrange(len(data) + 1), draw.choice(others)
        k = draw.randrange(len(other) + 1)
        kind = draw.randrange(8)
        if kind == 0 and i < len(data): data[i] ^= 1 << draw.randrange(8)
        elif kind == 1: data[i:i + 1] = bytes([draw.randrange(256)])
        elif kind == 2: del data[i:i + n]
        elif kind == 3: data[i:i] = data[j:j + n]
        elif kind == 4: data[i:i + n] = other[k:k + n]
        elif kind == 5: word = draw.choice(WORTHY); data[i:i + draw.choice((0, 1, len(word)))] = word
        elif kind == 6: data[i:i + n] = draw.randbytes(n)
        elif draw.random() < 0.1: del data[i:]
    return bytes(data)


def mutated_json(value, draw):
    "The same with some values exchanged for others, of any kind."
    if draw.random() < 0.1:
        return draw.choice((None, True, 0, -1, 1, 2, 7.5, 10 ** 9, 10 ** 30, 1e300, float("nan"), float("inf"), "", "mlp",
                            "x" * 99, [], {}, [1, 4, 4], [[]], [None], {"own": "X"}, {"": {}}, value, [value], {"a": value}))
    if isinstance(value, dict):
        return {key if draw.random() < 0.97 else draw.choice(("", "x", "epoch")): mutated_json(item, draw)
                for key, item in value.items() if draw.random() < 0.97}
    if isinstance(value, list):
        return [mutated_json(item, draw) for item in value for _ in range(draw.choice((0, *[1] * 20, 2)))]
    return value


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A finished training: its folder, and what is needed to go on with it."
    folder = tmp_path_factory.mktemp("run") / "run"
    model, x = v.create_vae((1, 4, 4), 2, "mlp", "mlp", hidden=(4,)), torch.rand(20, 1, 4, 4)
    v.fit(model, x, epochs=2, batch_size=8, out=folder, progress=False)
    return folder, model, make_optimizer("adam", model, 1e-3)


def fuzz_config(folder, draw, run):
    files = {name: (run[0] / name).read_bytes() for name in ("config.json", "model.safetensors")}
    if draw.random() < 0.5: files["config.json"] = mutated(files["config.json"], list(files.values()), draw)
    else: files["config.json"] = json.dumps(mutated_json(json.loads(files["config.json"]), draw), indent=2).encode()
    if draw.random() < 0.5:  # a stranger's, whose checksums are right
        tensors, metadata = load_tensors(run[0] / "model.safetensors")
        try: text = files["config.json"].decode().replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError: text = ""
        save_tensors(folder / "model.safetensors", tensors, metadata | {"config_sha256": digest(text.encode())})
    else: (folder / "model.safetensors").write_bytes(files["model.safetensors"])
    (folder / "config.json").write_bytes(files["config.json"])
    model = v.VAE.load(folder)
    assert sum(p.numel() for p in model.parameters()) < 10 ** 4


def fuzz_checkpoint(folder, draw, run):
    whole, model, optimizer = run
    path, before = folder / "last.safetensors", {name: t.clone() for name, t in model.state_dict().items()}
    if draw.random() < 0.5:
        content = (whole / "last.safetensors").read_bytes()
        path.write_bytes(mutated(content, [(whole / "model.safetensors").read_bytes()], draw))
        (found, state), (expected, right) = read_checkpoint(path), read_checkpoint(whole / "last.safetensors")
        assert state == right and found.keys() == expected.keys()  # another white space in its head has no meaning
        assert all(torch.equal(t, expected[name]) for name, t in found.items())
        return
    tensors, metadata = load_tensors(whole / "last.safetensors")
    settings = json.loads(metadata["state"])["settings"]
    for name in list(tensors):  # a stranger's, whose checksum is right
        where = draw.choice((name, name, "optimizer.", "optimizer.0", "optimizer.x.y", "optimizer.99.z"))
        if draw.random() < 0.02: tensors[where] = draw.choice((
            torch.zeros(0), torch.zeros(3), torch.zeros(1, dtype=torch.int64), tensors[name].double(), tensors[name][None]))
        elif draw.random() < 0.01: del tensors[name]
    state = mutated_json(json.loads(metadata["state"]), draw)
    text = json.dumps(state) if draw.random() < 0.9 else draw.choice(("[" * 10 ** 5, "", "nonsense"))
    save_tensors(path, tensors, metadata | {"state": text})
    (folder / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    try: load_checkpoint(path, model, optimizer, settings)
    except OURS:
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())  # all or nothing
        raise
    model.load_state_dict(before)


PICTURES = [picture(form) for form in FORMS]


def fuzz_images(folder, draw, run):
    data = io.BytesIO(mutated(draw.choice(PICTURES), PICTURES, draw))
    found = picture_tensor(read_image(data, name="x"))
    assert found.dtype == torch.uint8 and found.ndim == 3 and found.numel()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seconds", [1, pytest.param(SECONDS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", [fuzz_config, fuzz_checkpoint, fuzz_images], ids=["config", "checkpoint", "images"])
def test_fuzzing(reader, seconds, run, tmp_path, record_property):
    "Nothing but our errors, and memory that is bounded: by a gigabyte, or by three for pictures, as Pillow does it."
    seed, counts, start = int(seconds), {"executions": 0, "refused": 0}, time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() - start < seconds:
        draw = random.Random(f"{seed} {counts['executions']}")
        counts["executions"] += 1
        try: reader(tmp_path, draw, run)
        except OURS: counts["refused"] += 1
        except BaseException as e:
            raise AssertionError(f"seed {seed} {counts['executions'] - 1}: {type(e).__name__}: {e}") from e
    limit = 3 if reader is fuzz_images else 1  # Pillow refuses pictures from 179 million pixels on
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < limit * 2 ** 20  # kilobytes
    for name, n in counts.items(): record_property(name, n)


def test_a_checkpoint_without_a_part_of_its_optimizer(run, tmp_path):
    "Nothing is changed: neither the model nor the optimizer."
    whole, model, optimizer = run
    tensors, metadata = load_tensors(whole / "last.safetensors")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    for name in [name for name in tensors if name.startswith("optimizer.") and name.endswith(".step")][:1]: del tensors[name]
    for name in ("last.safetensors", "model.safetensors"): (tmp_path / name).write_bytes((whole / name).read_bytes())
    save_tensors(tmp_path / "last.safetensors", tensors, metadata)
    optimizer.state.clear()
    with pytest.raises(InputError, match="the state of its optimizer is not whole"):
        load_checkpoint(tmp_path / "last.safetensors", model, optimizer, json.loads(metadata["state"])["settings"])
    assert not optimizer.state_dict()["state"]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
