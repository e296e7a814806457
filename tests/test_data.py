"""What a notebook cell can't show of vae_nb.data: downloads, odd files, the layouts of other data sets, real MNIST."""
import functools
import gzip
import hashlib
import http.server
import json
import os
import pickle
import re
import shlex
import socket
import subprocess
import sys
import threading
import warnings
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from vae_nb.basics.checks import MissingPackageError
from vae_nb.cli import main
from vae_nb.data import picture_files
from vae_nb.data.arrays import check_images
from vae_nb.data.built_in import bundled_digits
from vae_nb.data.splits import SPLITS, Data
from vae_nb.data.loading import TORCHVISION, data_root, load_data
from vae_nb.models.vae import create_vae
from vae_nb.training.fit import fit

digits = bundled_digits()
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def root():
    "The folder with the real MNIST and Fashion-MNIST."
    folder = os.environ.get("VAE_NB_DATA")
    if not folder: pytest.skip("VAE_NB_DATA is not set: the checks against the real MNIST are left out")
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **options): raise OSError("the network is off")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def idx(array):
    "The bytes of MNIST's idx format."
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def md5(content): return hashlib.md5(content).hexdigest()


def left(folder): return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# what ships

def test_bundled_file_is_as_its_readme_says():
    path = files("vae_nb") / "bundled" / "mnist_10k.npz"
    content, readme = path.read_bytes(), (files("vae_nb") / "bundled" / "README.md").read_text()
    arrays = hashlib.sha256(b"".join(digits[name].tobytes() for name in sorted(digits))).hexdigest()
    assert re.findall("[0-9a-f]{64}", readme) == [hashlib.sha256(content).hexdigest(), arrays]
    assert len(content) <= 2.5e6 and "Attribution-ShareAlike 3.0" in readme


@pytest.mark.parametrize("half", ["train", "test"])
def test_bundled_digits_are_mnist(root, half):
    mnist = datasets.MNIST(root, train=half == "train")
    index = digits[f"{half}_index"].astype(int)
    np.testing.assert_array_equal(digits[f"{half}_images"], mnist.data.numpy()[index])
    np.testing.assert_array_equal(digits[f"{half}_labels"], mnist.targets.numpy()[index])


def test_bundled_digits_need_neither_network_nor_torchvision():
    code = """
import socket, sys
def refuse(*args, **options): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from vae_nb.data.loading import load_data
load_data("mnist-10k", binarize="dynamic")
assert "torchvision" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True)


# real data

@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_data_is_the_original(root, name):
    before = left(data_root(root))
    data = load_data(name, root=root, valid=5000)
    assert [len(data[s]) for s in ("train", "valid", "test")] == [55000, 5000, 10000]
    assert data.image_shape == (1, 28, 28) and data.train.dtype == torch.uint8 and len(data.classes) == 10
    original = getattr(datasets, TORCHVISION[name][0])(root)
    for split in ("train", "valid"):
        assert torch.equal(data[split][:, 0], original.data[data.indices[split]])
        assert torch.equal(data.labels[split], original.targets[data.indices[split]])
    assert left(data_root(root)) == before


def test_root_is_argument_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VAE_NB_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("VAE_NB_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root().name == "vae_nb"


# downloads

@pytest.mark.parametrize("name", TORCHVISION)
def test_no_network_says_what_to_do_and_leaves_nothing(offline, tmp_path, name):
    with pytest.raises(FileNotFoundError, match="could not be downloaded.*VAE_NB_DATA.*mnist-10k") as error:
        load_data(name, root=tmp_path / "a" / "b", progress=False)
    assert repr(name) in str(error.value) and left(tmp_path) == [] and socket.getdefaulttimeout() is None


def test_root_that_cannot_be_written(offline, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="'mnist' is not whole"): load_data("mnist", tmp_path / "file" / "x")


@pytest.fixture
def server(tmp_path, monkeypatch):
    "A web server with a small MNIST, from which torchvision downloads."
    shelf = tmp_path / "server"
    shelf.mkdir()
    arrays = {"train-images-idx3": digits["train_images"][:40], "train-labels-idx1": digits["train_labels"][:40],
              "t10k-images-idx3": digits["test_images"][:20], "t10k-labels-idx1": digits["test_labels"][:20]}
    resources = []
    for name, array in arrays.items():
        content = gzip.compress(idx(array))
        (shelf / f"{name}-ubyte.gz").write_bytes(content)
        resources.append((f"{name}-ubyte.gz", md5(content)))
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=shelf))
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{httpd.server_port}/"])
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    yield shelf
    httpd.shutdown()
    httpd.server_close()


def test_download_with_and_without_a_bar(server, tmp_path, capfd):
    data = load_data("mnist", root=tmp_path / "new" / "place")
    assert "100%" in capfd.readouterr().err
    assert torch.equal(data.test[:, 0], torch.from_numpy(digits["test_images"][:20])[data.indices["test"]])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["place"]
    assert (tmp_path / "new/place/MNIST/raw/t10k-images-idx3-ubyte").exists()
    load_data("mnist", root=tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")


def test_broken_download_leaves_nothing(server, tmp_path):
    for name, content in {"t10k-images-idx3-ubyte.gz": b"half a file", "train-labels-idx1-ubyte.gz": None}.items():
        whole = (server / name).read_bytes()
        if content is None: (server / name).unlink()
        else: (server / name).write_bytes(content)
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            load_data("mnist", root=tmp_path / "root", progress=False)
        assert [p.name for p in tmp_path.iterdir()] == ["server"]
        (server / name).write_bytes(whole)
    assert len(load_data("mnist", root=tmp_path / "root", progress=False).test) == 20


def test_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    plain, calls = datasets.mnist.download_and_extract_archive, []
    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 3: raise KeyboardInterrupt
        plain(*args, **options)
    monkeypatch.setattr(datasets.mnist, "download_and_extract_archive", interrupted)
    with pytest.raises(KeyboardInterrupt): load_data("mnist", root=tmp_path / "root", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["server"] and socket.getdefaulttimeout() is None


def test_what_is_there_is_kept(server, tmp_path):
    "A download into a folder with other things in it, and with half of this very data set."
    raw = tmp_path / "root/MNIST/raw"
    raw.mkdir(parents=True)
    (raw / "notes.txt").write_text("mine")
    load_data("mnist", root=tmp_path / "root", progress=False)
    assert (raw / "notes.txt").read_text() == "mine" and (raw / "train-images-idx3-ubyte").exists()


@pytest.mark.parametrize("keep", [0, 2, 10, 1000])
def test_a_damaged_file_is_fetched_again(server, tmp_path, monkeypatch, keep):
    load_data("mnist", root=tmp_path / "root", progress=False)
    file = tmp_path / "root/MNIST/raw/train-images-idx3-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    with monkeypatch.context() as patch:
        patch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
        with pytest.raises(FileNotFoundError, match="'mnist' is not whole under"):
            load_data("mnist", root=tmp_path / "root", progress=False)
    assert len(load_data("mnist", root=tmp_path / "root", progress=False).test) == 20 and file.read_bytes() == whole


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    def missing(*args, **options): raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
    monkeypatch.setattr(datasets, "SVHN", missing)
    with pytest.raises(MissingPackageError, match="'svhn' needs the package scipy: pip install scipy"):
        load_data("svhn", root=tmp_path)


# the layouts of the others, with the files that torchvision reads

def test_cifar10(tmp_path, monkeypatch):
    images, base = rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8), tmp_path / "cifar-10-batches-py"
    base.mkdir()
    def put(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return md5((base / name).read_bytes())
    batches = [(f"data_batch_{i}" if i < 5 else "test_batch", images[10 * i:10 * i + 10]) for i in range(6)]
    sums = [[name, put(name, {"data": x.reshape(10, -1), "labels": list(range(10))})] for name, x in batches]
    meta = put("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": meta})
    data = load_data("cifar10", root=tmp_path)
    assert data.image_shape == (3, 32, 32) and data.classes == tuple("abcdefghij")
    assert torch.equal(data.train, torch.from_numpy(images)[data.indices["train"]])
    assert torch.equal(data.labels["test"], data.indices["test"])
    assert load_data("cifar10", root=tmp_path, resize=16).image_shape == (3, 16, 16)


def test_svhn(tmp_path, monkeypatch):
    scipy_io = pytest.importorskip("scipy.io")
    images = rng.integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    labels, lists = np.arange(30)[:, None] % 10 + 1, {}  # 10 stands for the digit 0
    for split in ("train", "test"):
        scipy_io.savemat(tmp_path / f"{split}_32x32.mat", {"X": images, "y": labels})
        lists[split] = ["", f"{split}_32x32.mat", md5((tmp_path / f"{split}_32x32.mat").read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)
    data = load_data("svhn", root=tmp_path)
    assert data.image_shape == (3, 32, 32)
    i = data.indices["test"]
    assert torch.equal(data.test, torch.from_numpy(images).permute(3, 2, 0, 1)[i])
    assert torch.equal(data.labels["test"], (i + 1) % 10)


def test_celeba(tmp_path, monkeypatch):
    base = tmp_path / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.png" for i in range(12)]
    images = rng.integers(0, 256, (12, 218, 178, 3), dtype=np.uint8)
    for name, image in zip(names, images): Image.fromarray(image).save(base / "img_align_celeba" / name)
    heads = {"identity_CelebA.txt": [], "list_attr_celeba.txt": ["12", "smiling"],
             "list_bbox_celeba.txt": ["12", "x"], "list_landmarks_align_celeba.txt": ["12", "x"]}
    for file, head in heads.items(): (base / file).write_text("\n".join(head + [f"{name} 1" for name in names]) + "\n")
    parts = [0] * 8 + [1] * 2 + [2] * 2  # train, valid, test
    (base / "list_eval_partition.txt").write_text("".join(f"{name} {part}\n" for name, part in zip(names, parts)))
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)
    data = load_data("celeba", root=tmp_path, valid=2, progress=False)
    assert data.image_shape == (3, 64, 64) and [len(data[s]) for s in ("train", "valid", "test")] == [6, 2, 2]
    assert data.labels["train"] is None
    whole = load_data("celeba", root=tmp_path, valid=2, resize=(218, 178), limit=1, progress=False)
    assert torch.equal(whole.test[0], torch.from_numpy(images[10 + whole.indices["test"][0]]).permute(2, 0, 1))


# what stays when the data change

def contents(data): return {split: [image.tobytes() for image in data[split].numpy()] for split in SPLITS}


def photos(folder, n=200):
    "A folder of different pictures."
    folder.mkdir()
    for i in range(n): Image.fromarray(digits["train_images"][i]).save(folder / f"{i:03}.png")
    return folder


def change(folder):
    "One file is added in front, one renamed, one removed."
    Image.fromarray(digits["train_images"][200]).save(folder / "0.png")
    (folder / "042.png").rename(folder / "zebra.png")
    (folder / "137.png").unlink()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [dict(), dict(test=0.1), dict(valid=0.3, test=0.02), dict(valid=0)], ids=str)
def test_nothing_moves_in_a_folder_that_changes(tmp_path, options, seed):
    options = dict(seed=seed, progress=False) | options
    old = contents(load_data(photos(tmp_path / "photos"), **options))
    change(tmp_path / "photos")
    new = contents(load_data(tmp_path / "photos", **options))
    came, gone = (digits["train_images"][i].tobytes() for i in (200, 137))
    for split in SPLITS: assert [x for x in new[split] if x != came] == [x for x in old[split] if x != gone]
    assert 0 < len(new["test"]) < 40 and not {*new["test"]} & {*old["train"]} and not {*new["train"]} & {*old["test"]}


@pytest.mark.parametrize("options", [dict(valid=20, test=20), dict(valid=20, test=0.1), dict(valid=0.1, test=20)], ids=str)
def test_at_most_one_moves_for_each_new_one(options):
    images = digits["train_images"][:260]
    for n in range(200, 260):
        old, new = (contents(load_data(images[:m], **options)) for m in (n, n + 1))
        for split in SPLITS: assert len({*old[split]} - {*new[split]}) <= 1
        assert not {*new["test"]} & {*old["train"]}
        for split in ("valid", "test"):
            if isinstance(options[split], int): assert len(new[split]) == len(old[split]) == options[split]


def test_copies_stay_with_their_original(tmp_path):
    folder = photos(tmp_path / "photos")
    for i in range(0, 200, 3): (folder / f"copy-{i}.png").write_bytes((folder / f"{i:03}.png").read_bytes())
    for data in (load_data(folder, progress=False), load_data(folder, valid=20, test=20, progress=False),
                 load_data(np.repeat(digits["train_images"][:100], 2, 0))):
        parts = [{*images} for images in contents(data).values()]
        assert sum(map(len, parts)) == len(set().union(*parts))


def test_an_array_in_another_order_has_the_same_splits():
    images, order = digits["train_images"][:300], rng.permutation(300)
    for options in (dict(), dict(valid=30, test=40), dict(resize=14), dict(limit=7), dict(binarize="static")):
        old, new = load_data(images, **options), load_data(images[order], **options)
        assert contents(new) == contents(old) and new.digest == old.digest
        for split in SPLITS: assert torch.equal(torch.from_numpy(order)[new.indices[split]], old.indices[split])
    assert contents(load_data(images, seed=1)) != contents(load_data(images))


@pytest.mark.parametrize("kind", ["folder", "bytes", "floats"])
def test_binary_samples_stay_when_images_come(tmp_path, kind):
    images = digits["train_images"][:200] / (1 if kind == "bytes" else np.float32(300))
    images, more = images.astype(np.uint8 if kind == "bytes" else np.float32), digits["train_images"][200:230]
    if kind == "folder": source = photos(tmp_path / "photos")
    else: source = images
    old = load_data(source, binarize="static", progress=False)
    if kind == "folder":
        for i, image in enumerate(more): Image.fromarray(image).save(source / f"{i}.png")
    else: source = np.concatenate([more.astype(images.dtype) / (1 if kind == "bytes" else np.float32(300)), images]).astype(images.dtype)
    new = load_data(source, binarize="static", progress=False)
    for split in SPLITS:
        there = {*contents(old)[split]}
        assert [x for x in contents(new)[split] if x in there] == contents(old)[split]
    assert old.train.unique().tolist() == [0, 255]
    assert contents(load_data(source, binarize="static", seed=1, progress=False)) != contents(new)


def test_images_that_are_all_equal_are_split_by_position():
    for given in (np.zeros((50, 8, 8)), np.eye(8)[None].repeat(50, 0) > 0):
        with pytest.warns(UserWarning, match="only 1 of 50 images differ.*by position"): data = load_data(given)
        assert [len(data[split]) for split in SPLITS] == [40, 5, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_data(np.zeros((50, 8, 8)), valid=0, test=0).train) == 50
        assert len(load_data(np.zeros((50, 8, 8)), valid=0, test=digits["test_images"][:5, 10:18, 10:18]).test) == 5


def test_named_data_sets_keep_their_splits():
    "Committed numbers rest on them."
    indices = load_data("mnist-10k").indices
    assert {split: indices[split][:3].tolist() for split in SPLITS} == NAMED
    static = load_data("mnist-10k", binarize="static")
    assert hashlib.sha256(static.train.numpy().tobytes() + static.test.numpy().tobytes()).hexdigest()[:16] == STATIC


NAMED, STATIC = {"train": [2415, 534, 83], "valid": [7780, 1259, 6745], "test": [1899, 423, 1408]}, "b3b0b64e02e53165"


def test_a_named_data_set_as_test_gives_its_test_images(tmp_path):
    folder = photos(tmp_path / "photos", 40)
    data = load_data(folder, test="mnist-10k", limit=50, progress=False)
    assert torch.equal(data.test[:, 0], torch.from_numpy(digits["test_images"])[data.indices["test"]])
    with pytest.warns(UserWarning, match="4 of 4 test images are among the training images"):
        load_data(digits["train_images"][:20], test=digits["train_images"][:4])


def test_digest_of_data():
    x = torch.from_numpy(digits["train_images"])[:, None]
    data = Data(x[:500].clone(), x[500:600], x[600:700], name="a")
    first, renamed = data.digest, Data(data.train, data.valid, data.test, name="b").digest
    assert first == data.digest and json.loads(json.dumps(first)) == first
    assert renamed["content"] == first["content"] and renamed["name"] == "b"
    data.train[499, 0, 3, 3] += 1
    assert data.digest["content"]["train"] != first["content"]["train"]
    assert data.digest["content"]["valid"] == first["content"]["valid"]
    large = Data(x.repeat(12, 1, 1, 1), x[:0], x[:0])  # 75 MB: a sample
    assert large.train.nbytes > 2 ** 26 and large.digest["images"] == dict(train=96_000, valid=0, test=0)
    one = large.digest
    large.train[::7] += 1
    assert large.digest["content"]["train"] != one["content"]["train"]
    assert {Data(x[:9], x[:9], x[:9], binarize=kind).digest["binarize"] for kind in (None, "static")} == {None, "static"}


# runs whose data change

def call(line, capsys):
    "A command: its exit code, and all that it printed."
    code = 0
    try: main(shlex.split(line))
    except SystemExit as e: code = e.code
    return code, "".join(capsys.readouterr())


SMALL = "--encoder mlp --decoder mlp --hidden 8 --latent-dim 2 --sigma-floor 0.1 --batch-size 32 --no-progress"


def test_a_run_says_that_its_folder_has_changed(tmp_path, capsys):
    folder, run = photos(tmp_path / "photos"), tmp_path / "run"
    train = f"train --data {folder} {SMALL} --epochs 2 --out {run}"
    assert call(train, capsys)[0] == 0
    evaluate = f"evaluate {run} --no-report --k 2"
    code, out = call(evaluate, capsys)
    assert code == 0 and "changed" not in out
    (folder / "042.png").rename(folder / "zebra.png")
    assert "changed" not in call(evaluate, capsys)[1]
    (folder / "137.png").unlink()
    Image.fromarray(digits["train_images"][300]).save(folder / "0.png")
    Image.fromarray(digits["train_images"][301]).save(folder / "1.png")
    for command in (evaluate, f"figures {run}"):
        code, out = call(command, capsys)
        assert code == 0 and out.count("have changed since the run") == 1 and "no other image has moved" in out, out
        assert "images instead of" in out
    assert "changed" not in call(f"{evaluate} --data {folder}", capsys)[1]
    assert "was trained with other splits" in call(f"{evaluate} --seed 5", capsys)[1]
    code, out = call(f"train --resume --out {run} --no-progress", capsys)
    assert code == 2 and "started with other images" in out


@pytest.mark.parametrize("change, message", [
    (lambda x: x // 2, ""), (lambda x: x[:-9], "images instead of"),
    (lambda x: rng.integers(0, 256, x.shape, np.uint8), ""), (lambda x: x / np.float32(300), "dtype is float32")])
def test_resume_refuses_other_images(tmp_path, change, message):
    images = digits["train_images"][:200]
    def trained(x, **options):
        torch.manual_seed(0)
        model = create_vae((1, 28, 28), 2, "mlp", "mlp", hidden=(8,))
        return fit(model, x, epochs=2, batch_size=32, progress=False, out=tmp_path / "run", **options)
    history = trained(images)
    assert trained(images[::-1], resume=True) == history  # the same images
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=f"started with other images.*{message}"): trained(change(images), resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


# folders

def test_folder_modes_and_hidden_files(tmp_path):
    grey = Image.fromarray(digits["test_images"][0])
    for i, mode in enumerate(["L", "1", "LA"]): grey.convert(mode).save(tmp_path / f"{i}.png")
    (tmp_path / "._0.png").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    grey.rotate(90).save(tmp_path / ".ipynb_checkpoints/0-checkpoint.png")
    data = load_data(tmp_path, valid=1, test=1, progress=False)
    assert data.image_shape == (1, 28, 28) and sum(len(data[s]) for s in ("train", "valid", "test")) == 3
    assert data.name == tmp_path.name and data.labels == dict(train=None, valid=None, test=None)
    grey.convert("RGBA").save(tmp_path / "colour.png")
    grey.convert("P").save(tmp_path / "palette.gif")
    assert load_data(str(tmp_path), progress=False).image_shape == (3, 28, 28)


def test_camera_turn(tmp_path):
    image = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(np.rot90(image, -1))).save(tmp_path / "b.png")
    data = load_data(tmp_path, valid=0, test=0, progress=False)
    assert data.image_shape == (1, 30, 20) and torch.equal(data.train[0], data.train[1])


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (b"no image", "UnidentifiedImageError"), (b"\x89PNG\r\n\x1a\n broken", "can't be read")])
def test_broken_file_is_named(tmp_path, content, message):
    Image.fromarray(digits["test_images"][0]).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.png.*{message}"): load_data(tmp_path, valid=0, test=0, progress=False)


def test_folder_limit_reads_no_more_than_it_must(tmp_path, monkeypatch):
    for i in range(40): Image.fromarray(digits["test_images"][i]).save(tmp_path / f"{i:02}.png")
    decode, opened = picture_files.page_of, []
    def counted(picture, *options):
        opened.append(picture)
        return decode(picture, *options)
    monkeypatch.setattr(picture_files, "page_of", counted)
    data = load_data(tmp_path, limit=3, progress=False)
    assert len(opened) == 9
    monkeypatch.undo()
    whole = load_data(tmp_path, progress=False)
    for split in ("train", "valid", "test"): assert torch.equal(data[split], whole[split][:3])


def test_train_and_test_folders(tmp_path):
    for half in ("train", "test"):
        for label in "ab":
            (tmp_path / half / label).mkdir(parents=True)
            for i in range(5): Image.fromarray(digits[f"{half}_images"][i]).save(tmp_path / half / label / f"{i}.png")
    for data in (load_data(tmp_path / "train", test=tmp_path / "test", valid=2, progress=False), load_data(tmp_path, valid=2, progress=False)):
        assert [len(data[s]) for s in ("train", "valid", "test")] == [8, 2, 10] and data.classes == ("a", "b")
    (tmp_path / "test/b").rename(tmp_path / "test/c")
    with pytest.raises(ValueError, match=r"test has the classes \('a', 'c'\)"):
        load_data(tmp_path / "train", test=tmp_path / "test", progress=False)


# bad input: the argument, what came, what was expected

good = np.random.default_rng(1).random((20, 1, 8, 8))
nan, inf = good.copy(), torch.tensor(good)
nan[3, 0, 2, 2], inf[4, 0, 0, 0] = np.nan, -torch.inf


@pytest.mark.parametrize("options, kind, message", [
    (dict(source=np.zeros((0, 1, 8, 8))), ValueError, "source is empty.*expected"),
    (dict(source=torch.zeros(8, 8)), ValueError, r"source has shape \(8, 8\); expected"),
    (dict(source=torch.zeros(2, 1, 1, 8, 8)), ValueError, r"source has shape \(2, 1, 1, 8, 8\); expected"),
    (dict(source=np.zeros((9, 8, 8, 3))), ValueError, "channels seem to come last.*movedim"),
    (dict(source=nan), ValueError, "source has NaN or infinite pixels, first in image 3"),
    (dict(source=inf), ValueError, "source has NaN or infinite pixels, first in image 4"),
    (dict(source=good * 255), ValueError, r"source has pixels.*expected floats from 0 to 1: x / 255"),
    (dict(source=good * 2 - 1), ValueError, r"source has pixels.*expected floats from 0 to 1: \(x \+ 1\) / 2"),
    (dict(source=torch.tensor(good) * -1), ValueError, "source has pixels from -"),
    (dict(source=[np.full((8, 8), 256)]), ValueError, r"source\[0\] has pixels from 256 to 256; expected integers.*scale=1023"),
    (dict(source=np.full((9, 8, 8), -1, np.int8)), ValueError, "source has pixels from -1 to -1; expected integers"),
    (dict(source=np.full((9, 8, 8), 65535, np.uint16), scale=4095), ValueError, "scale=4095: the pixels of source run from 65535"),
    (dict(source=[1, 2]), TypeError, "source is a list; expected"),
    (dict(source=None), TypeError, "source=None: expected images"),
    (dict(source=np.array(["a"])), TypeError, "source is a ndarray of <U1; expected"),
    (dict(source="mnist_10k"), ValueError, "source='mnist_10k' is not known.*Did you mean 'mnist-10k'"),
    (dict(source="/no/such/folder"), ValueError, "does not exist; expected a folder"),
    (dict(source=__file__), ValueError, "is a file; expected a folder"),
    (dict(valid=8000), ValueError, "valid=8000 .*leave none of 8,000"),
    (dict(valid=1.0), ValueError, "valid=1.0: expected a count, or a fraction"),
    (dict(valid=float("nan")), ValueError, "valid=nan: expected"),
    (dict(valid=None), TypeError, "valid=None: expected"),
    (dict(source=good, test=20), ValueError, "test=20 leave none of 20"),
    (dict(source=good, test=np.zeros((3, 8, 9))), ValueError, r"test has shape \(3, 1, 8, 9\); expected"),
    (dict(source=good, test=nan), ValueError, "test has NaN"),
    (dict(test=0.1), ValueError, "test: 'mnist-10k' has test images of its own"),
    (dict(limit=0), ValueError, "limit=0: expected"),
    (dict(limit=-5), ValueError, "limit=-5: expected"),
    (dict(limit=2.5), TypeError, "limit=2.5: expected"),
    (dict(binarize="dynamical"), ValueError, "binarize='dynamical' is not known.*'dynamic'"),
    (dict(binarize=True), ValueError, "binarize=True is not known"),
    (dict(resize=(8, 8, 8)), ValueError, r"resize=\(8, 8, 8\): expected"),
    (dict(resize=0), ValueError, "resize=0: expected"),
    (dict(seed=-1), ValueError, "seed=-1: expected"),
], ids=str)
def test_bad_input(options, kind, message):
    with pytest.raises(kind, match=message): load_data(**options)


def test_the_callers_array_is_neither_changed_nor_shared():
    for given in (digits["test_images"].copy(), torch.rand(50, 1, 8, 8)):
        before = given.copy() if isinstance(given, np.ndarray) else given.clone()
        data = load_data(given, binarize="static")
        data.train.zero_()
        assert (given == before).all()
    frozen = digits["test_images"][:20].copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_data(frozen, valid=0, test=0).train) == 20
        assert check_images(torch.rand(4, 1, 5, 5, requires_grad=True)).requires_grad is False


def test_floats_are_kept_and_batched_as_they_are():
    x = torch.rand(100, 2, 5, 7)
    data = load_data(x.double(), valid=10, test=10)
    assert data.train.dtype == torch.float32
    batch = torch.cat(list(data.batches("valid", 3)))
    assert batch.dtype == torch.float32 and torch.equal(batch, x[data.indices["valid"]])
    assert load_data(x, binarize="static").train.unique().tolist() == [0, 255]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_an_epoch(world, drop_last):
    x = torch.arange(100, dtype=torch.uint8).view(-1, 1, 1, 1)
    data = Data(x, x, x)
    options = dict(epoch=4, seed=2, world=world, drop_last=drop_last)
    def numbers(*args, **options): return [(255 * b).round().flatten().long() for b in data.batches(*args, **options)]
    ranks = [numbers("train", 8, rank=r, **options) for r in range(world)]
    assert {len(batches) for batches in ranks} == {data.steps("train", 8, world=world, drop_last=drop_last)}
    seen = torch.cat([b for batches in ranks for b in batches])
    assert len(seen.unique()) == len(seen) and (drop_last or len(seen) == 100 // world * world)
    measured = torch.cat([b for r in range(world) for b in numbers("test", 8, rank=r, world=world)])
    assert measured.sort().values.tolist() == list(range(100))


def test_batches_do_not_depend_on_threads_or_on_what_came_before():
    data = load_data("mnist-10k", limit=500, binarize="dynamic")
    first = list(data.batches("train", 64, epoch=3, rank=1, world=2))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        np.random.seed(5); torch.manual_seed(5); next(data.batches("train", 64, epoch=2))
        again = list(data.batches("train", 64, epoch=3, rank=1, world=2))
    finally: torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = list(data.batches("train", 64, epoch=3, rank=0, world=2))
    assert not torch.equal(first[0], other[0])
