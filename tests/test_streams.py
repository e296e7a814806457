"""Images that are not in memory, from outside: bounded memory in a process of its own, real shards, resumed runs."""
import io
import json
import os
import random
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from vae_nb import Data, IndexedImages, Stream, create_vae, evaluate, fit, load_data
from vae_nb.data.built_in import bundled_digits
from vae_nb.data.splits import TensorImages
from vae_nb.models.tensor_files import load_tensors
from vae_nb.training.runs import Run

pytestmark = pytest.mark.usefixtures("one_thread")
digits = bundled_digits()["train_images"][:600]  # (600, 28, 28)
whole = torch.from_numpy(digits)[:, None]
none = whole[:0]


def small(): return create_vae((1, 28, 28), latent_dim=2, encoder="mlp", decoder="mlp", hidden=(16,))


def weights(data, **options):
    "What a small model has learned from these data."
    torch.manual_seed(0)
    model = small()
    fit(model, data, batch_size=64, progress=False, **{"epochs": 2, **options})
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def png(image):
    Image.fromarray(image).save(file := io.BytesIO(), "png")
    return file.getvalue()


def batches(data, split="train", **options): return list(data.batches(split, 64, **options))


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b): assert torch.equal(x, y)


class Shuffled(IterableDataset):
    "Digits in an order of their own in each epoch."
    epoch = 0
    def set_epoch(self, epoch): self.epoch = epoch
    def __iter__(self): return iter(digits[np.random.default_rng(self.epoch).permutation(len(digits))])


class Plain(IterableDataset):
    def __iter__(self): return ((torch.from_numpy(x)[None], 0) for x in digits)


# memory

@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="RssAnon is Linux's")
@pytest.mark.parametrize("kinds", [["memory map", "IterableDataset"],
                                   pytest.param(["tensor"], marks=pytest.mark.slow)], ids=str)
def test_memory_is_bounded(root, tmp_path, kinds):
    "200 MB of images; their tensor shows what would be counted."
    command = [sys.executable, root / "benchmarks" / "streaming.py", "--gigabytes", "0.2", "--batch-size", "64",
               "--kinds", *kinds, "--folder", tmp_path, "--out", tmp_path / "found.json"]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    for found in json.loads((tmp_path / "found.json").read_text())["runs"]:
        assert found["images"] * 3 * 64 * 64 > 199e6
        if found["kind"] == "tensor": assert found["MB_growth"] > 190
        else: assert found["MB_growth"] < 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["found.json"]


# other libraries

def test_hugging_face_datasets():
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    datasets.disable_progress_bars()
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    table = datasets.Dataset.from_dict({"image": [Image.fromarray(x) for x in digits], "label": [0] * len(digits)},
                                       features)
    same = load_data(TensorImages(whole))  # by position, as what is read as needed
    for kind in (table, table.with_format("torch")):
        for split in ("train", "valid", "test"): assert_same(batches(load_data(kind), split), batches(same, split))
    assert torch.equal(weights(table), weights(TensorImages(whole)))
    with pytest.raises(TypeError, match="DatasetDict of 'train'; expected one"):
        load_data(datasets.DatasetDict(train=table))

    streaming = table.to_iterable_dataset(num_shards=3)
    with pytest.raises(ValueError, match="no length; expected size="): load_data(streaming)
    assert torch.equal(Stream(streaming, size=600)[:], whole)
    own = Stream(streaming.shuffle(seed=1, buffer_size=100), size=600, buffer=1)  # shuffles by itself, anew each epoch
    first, second = (torch.cat(batches(Data(own, none, none), epoch=epoch)) for epoch in (0, 1))
    assert not torch.equal(first, second)
    bytes_of = lambda x: sorted(image.mul(255).byte().numpy().tobytes() for image in x)
    assert bytes_of(first) == bytes_of(second)
    assert_same(batches(Data(own, none, none), epoch=1), batches(Data(own, none, none), epoch=1))
    data = load_data(Stream(streaming.shuffle(seed=1, buffer_size=100), size=600), valid=50, test=0)
    with pytest.raises(ValueError, match="was held out, but is another image in epoch 2"): batches(data, epoch=1)


def test_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    for shard in range(3):
        with tarfile.open(tmp_path / f"digits-{shard}.tar", "w") as tar:
            for i in range(200 * shard, 200 * shard + 200):
                for suffix, content in (("png", png(digits[i])), ("cls", b"0")):
                    member = tarfile.TarInfo(f"{i:05}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    shards = webdataset.WebDataset(str(tmp_path / "digits-{0..2}.tar"), shardshuffle=False)
    for kind in (shards, shards.decode("pill"), shards.decode("pill").to_tuple("png", "cls"), shards.decode("l8")):
        assert torch.equal(Stream(kind, size=600)[:], whole)
    with pytest.warns(UserWarning, match="with_length"): counted = shards.with_length(600)
    assert len(load_data(counted).train) == 480
    assert_same(batches(load_data(Stream(shards, size=600), valid=100, test=0)),
                batches(load_data(Stream(Plain(), size=600), valid=100, test=0)))
    with pytest.raises(ValueError, match="ended after 600 images; expected 601"):
        batches(Data(Stream(shards, size=601), none, none))


def test_processes_that_read():
    "A DataLoader without batches of its own, whose processes decode."
    loader = DataLoader(list(digits), batch_size=None, num_workers=2)
    assert torch.equal(Stream(loader)[:], whole)


# fit

@pytest.mark.parametrize("make", [lambda: load_data(Stream(Plain(), size=600, buffer=100), valid=60, test=0,
                                                    binarize="dynamic"),
                                  lambda: Data(Stream(Shuffled(), size=600, buffer=100), whole[:60], none),
                                  lambda: load_data(IndexedImages(list(digits), workers=2))],
                         ids=["stream", "a stream that shuffles by itself", "images"])
def test_resumed_is_as_uninterrupted(tmp_path, make):
    class PowerCut(BaseException): pass
    complete = Run.complete

    def cut(run, row):
        complete(run, row)
        if run.epoch == 2: raise PowerCut

    options = dict(epochs=4)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(Run, "complete", cut)
        weights(make(), out=tmp_path / "parts", **options)
    assert load_tensors(tmp_path / "parts" / "last.safetensors")[1]["state"].count("train_elbo") == 2
    resumed = weights(make(), out=tmp_path / "parts", resume=True, **options)
    assert torch.equal(resumed, weights(make(), out=tmp_path / "whole", **options))
    assert (tmp_path / "parts" / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


NOISES = {"torch": lambda: torch.randint(100, (1, 28, 28)).byte(), "random": lambda: random.randrange(100),
          "numpy": lambda: torch.from_numpy(np.random.randint(100, size=(1, 28, 28), dtype=np.uint8))}


class Noisy:
    def __init__(self, noise): self.noise = noise
    def __len__(self): return len(whole)
    def __getitem__(self, i):
        if i >= len(whole): raise IndexError
        return whole[i] // 2 + self.noise(), 0


@pytest.mark.parametrize("wrap", [lambda x: IndexedImages(x, workers=3), lambda x: Stream(lambda: iter(x), len(x), 50),
                                  lambda x: Stream(DataLoader(x, batch_size=None), len(x))], ids=["images", "stream", "loader"])
@pytest.mark.parametrize("name", NOISES)
def test_random_transforms_repeat(tmp_path, name, wrap):
    "Three runs with one seed, whatever the global generators were at; they are left alone."
    results = []
    for run in range(3):
        random.seed(run), np.random.seed(run), torch.manual_seed(run)
        torch.rand(run)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        data = load_data(wrap(Noisy(NOISES[name])), valid=50, test=0)
        assert data.train.draws and before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        results.append(weights(data, out=tmp_path / str(run)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    assert torch.equal(weights(data, out=tmp_path / "0", resume=True), results[0])
    first, second = (torch.cat(batches(data, epoch=epoch, shuffle=False)) for epoch in (0, 1))
    assert not torch.equal(first, second)


def test_resume_refuses_other_images(tmp_path):
    options = dict(out=tmp_path / "run")
    weights(IndexedImages(list(digits)), **options)
    weights(IndexedImages(list(digits)), resume=True, **options)
    with pytest.raises(ValueError, match="started with other images"):
        weights(IndexedImages(list(255 - digits)), resume=True, **options)
    restless = np.random.default_rng(0)  # a generator of its own: no two readings are alike, so there is nothing to compare
    own = IndexedImages(Noisy(lambda: torch.from_numpy(restless.integers(0, 9, (1, 28, 28), np.uint8))))
    assert Data(own, none, none).digest["content"]["train"] is None and not own.draws


def test_ranks_share_the_batches_of_one():
    data = load_data(Stream(Plain(), size=600, buffer=50), valid=17, test=0)  # 583 to train on
    alone = list(data.batches("train", 96, epoch=3))
    apart = [list(data.batches("train", 32, epoch=3, rank=rank, world=3)) for rank in range(3)]
    for j, one in enumerate(alone):
        together = torch.stack([apart[rank][j] for rank in range(3)], 1).flatten(0, 1)
        assert torch.equal(together, one[:len(together)]) and len(one) - len(together) in (0, 1)


def test_a_dataset_that_reuses_its_memory():
    def source():
        image = np.empty((28, 28), np.uint8)
        for x in digits:
            image[:] = x
            yield image
    assert torch.equal(Stream(source, size=600)[:], whole)


def test_evaluation_reads_what_it_needs(tmp_path):
    torch.manual_seed(0)
    model = small()
    np.save(tmp_path / "digits.npy", digits)
    mapped = np.load(tmp_path / "digits.npy", mmap_mode="r")
    for images in (mapped, list(digits)): assert evaluate(model, images) == evaluate(model, TensorImages(whole))
    expected = evaluate(model, Data(whole, none, whole))
    assert evaluate(model, Stream(Plain(), size=600)) == expected
    assert evaluate(model, Data(whole, none, Stream(Plain(), size=600))) == expected
