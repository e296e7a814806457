"""Files that are damaged, cut off or made up: readers give what is right, or an error of this library; nothing else."""
import io
import json
import os
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
from vae_nb.models.tensor_files import load_tensors, save_tensors

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


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp", "tiff", "bmp", "ppm"])
@some
@given(damages=DAMAGES)
def test_damaged_pictures(form, damages):
    try: found = picture_tensor(read_image(io.BytesIO(damaged(picture(form), damages)), name="x"))
    except OURS: return
    assert found.dtype == torch.uint8 and found.ndim == 3 and found.numel()
