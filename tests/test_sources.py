"""Sources of images from outside: odd files, archives, links, large numbers, and the same on the command line."""
import io
import os
import shlex
import subprocess
import sys
import tarfile
import threading
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import vae_nb
from vae_nb import IndexedImages, bits_per_dimension, create_vae, dequantised, evaluate, load_data
from vae_nb.basics.checks import InputError, InputTypeError, MissingPackageError
from vae_nb.cli import main
from vae_nb.data import decoded_images, folders, picture_files
from vae_nb.data.built_in import bundled_digits
from vae_nb.data.picture_files import PictureFiles
from vae_nb.data.splits import SPLITS
from vae_nb.evaluation.report_sections import ReportInput, _measure_bits

digits = bundled_digits()["test_images"]
rng = np.random.default_rng(0)
QUIET = dict(progress=False)
WHOLE = dict(progress=False, valid=0, test=0)


def photo(h=8, w=8, channels=3): return Image.fromarray(rng.integers(0, 256, (h, w, channels) if channels > 1 else (h, w), np.uint8))


def png(picture, **options):
    picture.save(file := io.BytesIO(), "png", **options)
    return file.getvalue()


def pictures(folder, n=30, first=0):
    "A folder of different digits."
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + n): Image.fromarray(digits[i]).save(folder / f"{i:03}.png")
    return folder


def everything(data): return torch.cat([data[split] for split in SPLITS])


def said(data): return " ".join(data.notes)


# transparency and modes

ICON = np.zeros((8, 8, 4), np.uint8)  # a red square on transparent black
ICON[2:6, 2:6] = 255, 0, 0, 255


@pytest.mark.parametrize("background, corner", [("white", [255, 255, 255]), ("black", [0, 0, 0]), ("#10ff20", [16, 255, 32]), ((1, 2, 3), [1, 2, 3])])
@pytest.mark.parametrize("kind", ["files", "palette", "list", "bytes"])
def test_transparency_shows_the_background(tmp_path, kind, background, corner):
    icon = Image.fromarray(ICON)
    if kind == "palette":
        flat = Image.fromarray((ICON[..., 3] > 0).astype(np.uint8)).convert("P")
        flat.putpalette([9, 9, 9, 255, 0, 0])
        flat.save(tmp_path / "a.png", transparency=0)
    elif kind == "files": icon.save(tmp_path / "a.png")
    source = [icon] if kind == "list" else [png(icon)] if kind == "bytes" else tmp_path
    x = load_data(source, background=background, **WHOLE).train[:][0]
    assert x[:, 0, 0].tolist() == corner and x[:, 3, 3].tolist() == [255, 0, 0]
    kept = load_data(source, mode="RGBA", background=background, **WHOLE).train[:][0]
    assert kept[3].tolist() == ICON[..., 3].tolist() and kept[:, 3, 3].tolist() == [255, 0, 0, 255]


def test_transparency_is_said(tmp_path):
    for i in range(3): Image.fromarray(np.roll(ICON, i, 1)).save(tmp_path / f"{i}.png")
    photo().save(tmp_path / "photo.jpg")
    assert "3 images with transparency laid on white" in said(load_data(tmp_path, **WHOLE))
    assert "transparency" not in said(load_data(tmp_path, mode="RGBA", **WHOLE))


def test_modes(tmp_path):
    grey = Image.fromarray(digits[0])
    for i, mode in enumerate(["L", "1", "LA", "P"]): grey.convert(mode).save(tmp_path / f"{i}.png")
    data = load_data(tmp_path, **WHOLE)
    assert data.image_shape == (1, 28, 28) and (data.train == torch.from_numpy(digits[0])).flatten(1).all(1).sum() == 3  # "1" is dithered
    assert load_data(tmp_path, background="red", **WHOLE).image_shape == (3, 28, 28)  # grey with transparency on red
    photo(28, 28).convert("CMYK").save(tmp_path / "print.jpg")
    assert load_data(tmp_path, **WHOLE).image_shape == (3, 28, 28)
    for mode, C in dict(L=1, RGB=3, RGBA=4).items(): assert load_data(tmp_path, mode=mode, **WHOLE).image_shape == (C, 28, 28)
    with pytest.raises(InputError, match="mode='RGB' is for pictures"): load_data(digits, mode="RGB")


def test_opaque_colour_keeps_its_bits(tmp_path):
    x = rng.integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(x).convert("RGBA").save(tmp_path / "a.png")
    assert torch.equal(load_data(tmp_path, **WHOLE).train[0], torch.from_numpy(x).permute(2, 0, 1))


def test_white_on_white_is_warned_of(tmp_path):
    for i in range(4):
        x = np.full((8, 8, 4), 255, np.uint8)
        x[..., 3] = rng.integers(0, 256, (8, 8))
        Image.fromarray(x).save(tmp_path / f"{i}.png")
    with pytest.warns(UserWarning, match="4 of 4 transparent images are nothing but the background, white"): load_data(tmp_path, **WHOLE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(tmp_path, background="black", **WHOLE)


# more than 8 bits, pages

def test_sixteen_bits(tmp_path):
    x = rng.integers(0, 3000, (5, 6, 6)).astype(np.uint16)
    x[0, 0, 0] = 2999
    for i in range(3): Image.fromarray(x[i]).save(tmp_path / f"{i}.png")
    for i in range(3, 5): Image.fromarray(x[i]).save(tmp_path / f"{i}.tif")
    data = load_data(tmp_path, **WHOLE)
    assert data.train.dtype == torch.float32 and "4,095 is white" in said(data)
    rows = {tuple((row * 4095).round().int().flatten().tolist()) for row in data.train}
    assert rows == {tuple(image.flatten().tolist()) for image in x}
    half = load_data(tmp_path, scale=8190, **WHOLE)
    torch.testing.assert_close(half.train * 2, data.train)
    for options in ({}, dict(skip_broken=True)):  # the option is wrong, not the files
        with pytest.raises(InputError, match=r"^scale=1000: the pixels of .*0.png, .*4.tif run from \d+ to 2999; "
                                             "expected 0 to 1000, or scale=4095, which holds all of them$"):
            load_data(tmp_path, scale=1000, **options, **WHOLE)


def test_float_files(tmp_path):
    x = rng.random((4, 6, 6)).astype(np.float32)
    for i in range(4): Image.fromarray(x[i]).save(tmp_path / f"{i}.tiff")
    assert sorted(load_data(tmp_path, **WHOLE).train.sum((1, 2, 3)).tolist()) == pytest.approx(sorted(x.sum((1, 2)).tolist()), rel=1e-6)
    for i in range(4): Image.fromarray(x[i] * 16).save(tmp_path / f"{i}.tiff")
    data = load_data(tmp_path, **WHOLE)
    assert data.train.min() == 0 and data.train.max() == 1 and "scale=(" in said(data)
    Image.fromarray(x[0] * np.float32(np.nan)).save(tmp_path / "0.tiff")
    with pytest.raises(InputError, match="0.tiff has NaN"): load_data(tmp_path, **WHOLE)


@pytest.mark.parametrize("top", [16, 4095])
def test_floats_are_advised_by_their_own_maximum(top):
    x = rng.random((9, 8, 8)) * top
    x[0, 0, 0] = top
    with pytest.raises(InputError, match=f"expected floats from 0 to 1: x / {top}, or scale={top}"): load_data(x)
    assert torch.equal(load_data(x, scale=top, **WHOLE).train.max(), torch.tensor(1.0))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, ">u2"])
def test_arrays_of_more_than_eight_bits(dtype):
    "As files of 16 bits: by the bits that hold all values."
    x = rng.integers(0, 3000, (20, 6, 6)).astype(dtype)
    for given in (x, torch.from_numpy(x.astype(np.int64))):
        data = load_data(given, **WHOLE)
        assert "More than 8 bits: 0 is black and 4,095 is white (scale=4095 keeps it so)." in said(data) and data.scale == (0, 4095)
        assert torch.equal(data.train[:, 0], torch.from_numpy(x.astype(float) / 4095).float()[data.indices["train"]])
    assert said(load_data(x, scale=4095, **WHOLE)) == "" and load_data(x % 256, **WHOLE).train.dtype == torch.uint8
    signed = load_data(x.astype(np.int64) - 1000, **WHOLE)
    assert signed.scale == (int(x.min()) - 1000, int(x.max()) - 1000) and (signed.train.min(), signed.train.max()) == (0, 1)
    with pytest.raises(InputError, match=r"scale=1000: the pixels of source run from \d+ to 2.*, or scale=4095"): load_data(x, scale=1000)
    with pytest.raises(InputError, match=r"source\[0\] has pixels from .* scale=4095, if that is"): load_data(list(x))
    with pytest.raises(InputError, match=r"^scale=100: the pixels of source\[0\] run from .* or scale=4095"): load_data(list(x), scale=100)


def test_test_images_have_the_range_of_the_training_images():
    deep, other = (rng.integers(0, 3000, (20, 6, 6)).astype(np.uint16) for _ in range(2))
    data = load_data(deep, test=other // 16, valid=0, **QUIET)
    assert torch.equal(data.test[:, 0], torch.from_numpy(other // 16 / 4095).float()[data.indices["test"]])
    with pytest.raises(InputError, match="test has pixels above 255, and the training images have none; .*scale=4095"):
        load_data(deep // 16, test=other, valid=0)
    with pytest.raises(InputError, match="scale=4095: the pixels of test run from .*, or scale=16383"): load_data(deep, test=other * 5)


def test_deep_images_of_ones_own_are_not_measured_silently(tmp_path):
    model = create_vae((1, 6, 6), latent_dim=2, encoder="mlp", decoder="mlp", hidden=(4,))
    x = rng.integers(0, 3000, (9, 6, 6)).astype(np.uint16)
    for i in range(9): Image.fromarray(x[i]).save(tmp_path / f"{i}.png")
    for given in (x, tmp_path):
        with pytest.warns(UserWarning, match="scaled by their own range: 0 is black and 4,095 is white"): evaluate(model, given)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            evaluate(model, load_data(given, scale=4095, **WHOLE), "train")


def test_bits_are_not_counted_for_deep_images(tmp_path):
    "16 bits scaled by their range have other levels than the 256 of a file of 8 bits."
    for i in range(12): Image.fromarray(rng.integers(0, 3000, (6, 6)).astype(np.uint16)).save(tmp_path / f"{i}.png")
    data = load_data(tmp_path, valid=0, test=4, **QUIET)
    options = dict(latent_dim=2, encoder="mlp", decoder="mlp", hidden=(4,))
    masses, density = create_vae((1, 6, 6), likelihood="discretised_logistic", **options), create_vae((1, 6, 6), **options)
    for model, more in ((masses, {}), (density, dict(dequantised=True))):
        with pytest.raises(InputTypeError, match="expected uint8: .*Images of more than 8 bits have more levels"):
            bits_per_dimension(model, data.test, k=2, **more)
    with pytest.raises(InputError, match="expects 8-bit pixels"): vae_nb.fit(masses, data, epochs=1, batch_size=4, **QUIET)
    with pytest.raises(InputError, match="expected 8-bit images"): dequantised(data)
    with pytest.raises(InputError, match="floats, of values from 0 to 4,095; bits are counted for 8-bit files"):
        _measure_bits(ReportInput(density, data, "test", 1, 2, 4, 1, 0, None))


def deep_png(x): # (H, W, 2 to 4), uint16, which Pillow can't write
    def chunk(kind, content): return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    h, w, C = x.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in x)
    head = w.to_bytes(4, "big") + h.to_bytes(4, "big") + bytes([16, {2: 4, 3: 2, 4: 6}[C], 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(x, planar=1, compressed=False): # (H, W, 3), uint16
    (h, w, C), data = x.shape, (x if planar == 1 else np.moveaxis(x, -1, 0)).astype("<u2").tobytes()
    parts = [data] if planar == 1 else [data[i * 2 * h * w:][:2 * h * w] for i in range(C)]
    if compressed: parts = [zlib.compress(part) for part in parts]
    at = 8
    entries, lists, n = [], b"", sum(map(len, parts))
    def entry(tag, kind, values):
        nonlocal lists
        x = np.array(values, {3: "<u2", 4: "<u4"}[kind]).tobytes()
        if len(x) > 4: x, lists = np.uint32(at + n + len(lists)).tobytes(), lists + x
        entries.append(np.array([tag, kind], "<u2").tobytes() + np.array([len(values)], "<u4").tobytes() + x.ljust(4, b"\0"))
    for tag, values in {256: [w], 257: [h], 258: [16] * C, 259: [8 if compressed else 1], 262: [2]}.items(): entry(tag, 3, values)
    entry(273, 4, (at + np.cumsum([0, *map(len, parts)])[:-1]).tolist())
    for tag, values in {277: [C], 278: [h]}.items(): entry(tag, 3, values)
    entry(279, 4, [len(part) for part in parts])
    entry(284, 3, [planar])
    head = b"II*\0" + np.uint32(at + n + len(lists)).tobytes()
    return head + b"".join(parts) + lists + np.uint16(len(entries)).tobytes() + b"".join(entries) + bytes(4)


DEEP = rng.integers(0, 65536, (4, 5, 4)).astype(np.uint16)
DEEP_FILES = {"rgb.png": deep_png(DEEP[..., :3]), "rgba.png": deep_png(DEEP), "la.png": deep_png(DEEP[..., :2]),
              "plain.tif": deep_tiff(DEEP[..., :3]), "compressed.tif": deep_tiff(DEEP[..., :3], 1, True),
              "planes.tif": deep_tiff(DEEP[..., :3], 2, True), "a.ppm": b"P6 5 4 65535\n" + DEEP[..., :3].astype(">u2").tobytes(),
              "ten bits.ppm": b"P6 5 4 1023\n" + (DEEP[..., :3] >> 6).astype(">u2").tobytes()}


@pytest.mark.parametrize("name", DEEP_FILES)
def test_colour_with_sixteen_bits_is_said(tmp_path, name):
    (tmp_path / name).write_bytes(DEEP_FILES[name])
    data = load_data(tmp_path, **WHOLE)
    assert "1 picture of 16 bits a channel: the upper 8 bits were read" in said(data) and "with scale=65535" in said(data)
    if name not in ("rgba.png", "la.png"):  # those show the background
        assert np.abs(data.train[0].movedim(0, -1).numpy().astype(int) - (DEEP[..., :3] >> 8)).max() <= 1
    for item in (DEEP_FILES[name], Image.open(tmp_path / name)):  # of a data set as well
        assert "The first picture has 16 bits a channel" in said(load_data([item], **WHOLE))
    photo(5, 4).save(tmp_path / name, "png")
    assert "16 bits" not in said(load_data(tmp_path, **WHOLE)) + said(load_data([Image.open(tmp_path / name)], **WHOLE))


def test_sixteen_bits_in_planes_are_refused(tmp_path):
    "Pillow reads them as noise."
    x = deep_tiff(DEEP[..., :3], 2)
    (tmp_path / "planes.tif").write_bytes(x)
    for source in (tmp_path, [x], [Image.open(tmp_path / "planes.tif")]):
        with pytest.raises(InputError, match="more than 8 bits a channel in separate planes, which can't be read; .*scale=65535"):
            load_data(source, **WHOLE)


@pytest.mark.parametrize("name", ["stack.tif", "film.gif"])
def test_pages(tmp_path, name):
    frames = [Image.fromarray(x) for x in digits[:12]]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    data = load_data(tmp_path / name, valid=0, test=0.2, progress=False)
    assert len(everything(data)) == 12 and "12 images in 1 file" in said(data) and data.name == name[:-4]
    assert {x.numpy().tobytes() for x in everything(data)} == {x.tobytes() for x in digits[:12]}
    for i in range(20): Image.fromarray(digits[20 + i]).save(tmp_path / f"{i}.png")
    together = load_data(tmp_path, valid=0.3, test=0.3, progress=False)
    pages = [{x.numpy().tobytes() for x in together[split]} & {x.tobytes() for x in digits[:12]} for split in SPLITS]
    assert sorted(map(len, pages)) == [0, 0, 12]
    first = load_data(tmp_path, pages="first", **WHOLE)
    assert len(first.train) == 21 and "11 later pages not read" in said(first)


# sizes

def test_fit(tmp_path):
    photo(20, 40).save(tmp_path / "wide.png")
    photo(20, 20).save(tmp_path / "square.png")
    notes = {fit: said(load_data(tmp_path, resize=16, fit=fit, **WHOLE)) for fit in ("crop", "pad", "stretch")}
    assert "are cut, by up to 50% of the area (1 image; fit='pad' keeps all)" in notes["crop"] and "get white borders (1 image)" in notes["pad"] and "stretched (1 image)" in notes["stretch"]
    padded = load_data(tmp_path / "wide.png", resize=16, fit="pad", background="#010203", **WHOLE).train[0]
    assert padded[:, 0, 5].tolist() == padded[:, 15, 5].tolist() == [1, 2, 3] and padded.shape == (3, 16, 16)
    clear = load_data(tmp_path / "wide.png", resize=16, fit="pad", mode="RGBA", **WHOLE).train[0]
    assert clear[3, 0].unique().tolist() == [0] and clear[3, 8].unique().tolist() == [255]
    assert load_data(digits[:30], resize=(14, 28), fit="stretch", **QUIET).image_shape == (1, 14, 28)
    assert "cut, by up to 50%" in said(load_data(digits[:30], resize=(14, 28), **QUIET))


def test_sizes_from_one_pixel(tmp_path):
    photo(1, 1).save(tmp_path / "a.png")
    photo(300, 2).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="b.png is 300×2, but .*a.png is 1×1; expected images of one size"): load_data(tmp_path, **WHOLE)
    for fit in ("crop", "pad", "stretch"): assert load_data(tmp_path, resize=4, fit=fit, **WHOLE).train.shape == (2, 3, 4, 4)


# broken and odd files

def bomb(side=65536):
    x = bytearray(png(photo()))
    x[16:24] = side.to_bytes(4, "big") * 2
    x[29:33] = zlib.crc32(x[12:29]).to_bytes(4, "big")
    return bytes(x)


BROKEN = {"truncated.png": png(photo())[:-40], "empty.png": b"", "text.png": b"no image", "bomb.png": bomb()}


def test_broken_files_are_listed_together(tmp_path):
    pictures(tmp_path)
    for name, content in BROKEN.items(): (tmp_path / name).write_bytes(content)
    pipes = hasattr(os, "mkfifo")  # Windows has none
    if pipes: os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    with pytest.raises(InputError, match=f"{5 + pipes} files can't be used.*skip_broken=True") as error: load_data(tmp_path, **QUIET)
    for name, why in {"empty.png": "is empty", "text.png": "Unidentified", "bomb.png": "more than 178,956,970 pixels", "pipe.png": "no file",
                      "gone.png": "No such file", "circle.png": "symbolic links"}.items():
        assert name == "pipe.png" and not pipes or any(name in part and why in part for part in str(error.value).split("; ")), name
    data = load_data(tmp_path, skip_broken=True, resize=28, **QUIET)
    assert len(everything(data)) == 30
    for name in ("truncated.png", *["pipe.png"] * pipes): assert name in said(data)
    assert all(len(data.indices[split]) == len(data[split]) for split in SPLITS)


def test_truncated_files_of_all_splits_are_listed(tmp_path):
    pictures(tmp_path)
    for i in range(0, 30, 2): (tmp_path / f"{i:03}.png").write_bytes((tmp_path / f"{i:03}.png").read_bytes()[:-30])
    with pytest.raises(InputError, match="15 files can't be used"): load_data(tmp_path, valid=0.3, test=0.3, **QUIET)
    kept = load_data(tmp_path, skip_broken=True, labels=list(range(30)), valid=0.3, test=0.3, **QUIET)
    for split in SPLITS:
        for x, label in zip(kept[split], kept.labels[split]): assert torch.equal(x[0], torch.from_numpy(digits[label]))
    for path in tmp_path.iterdir(): path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="none of the training images can be read|none of 30 files"): load_data(tmp_path, skip_broken=True, **QUIET)


def test_mislabelled_files(tmp_path):
    photo().save(tmp_path / "a.jpg", "png")
    data = load_data(tmp_path, **WHOLE)
    assert "1 file of another format than the name says, read by content: " in said(data) and len(data.train) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_as_source(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device"): load_data(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["ünïcödé 猫.png", "new\nline.png", "tab\t.png", "' quote.png", b"\xff\xfe.png"], ids=ascii)
def test_odd_names(tmp_path, capsys, name):
    pictures(tmp_path)
    path = os.path.join(os.fsencode(tmp_path), name if isinstance(name, bytes) else name.encode())
    with open(path, "wb") as file: file.write(png(Image.fromarray(digits[99])))
    assert len(everything(load_data(tmp_path, **QUIET))) == 31
    with open(path, "wb") as file: file.write(b"no image")
    try: main(["data", str(tmp_path), "--no-progress"])
    except SystemExit as e: assert e.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    main(["data", str(tmp_path), "--no-progress", "--skip-broken"])
    assert "Broken, and left out" in capsys.readouterr().out


def test_links(tmp_path):
    pictures(tmp_path / "outside" / "cats", 10)
    pictures(tmp_path / "photos" / "dogs", 10, 10)
    (tmp_path / "photos" / "cats").symlink_to(tmp_path / "outside" / "cats")
    (tmp_path / "photos" / "dogs" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos" / "dogs")
    (tmp_path / "outside" / "cats" / "round").symlink_to(tmp_path / "outside")
    data = load_data(tmp_path / "photos", **QUIET)
    assert len(everything(data)) == 20 and data.classes == ("cats", "dogs") and "links? to a folder" not in said(data)
    assert "link to a folder that is read anyway" in said(data)


def test_a_folder_that_cannot_be_opened(tmp_path, monkeypatch):
    pictures(tmp_path / "open")
    pictures(tmp_path / "closed")
    scandir = os.scandir
    def refuse(path):
        if str(path).endswith("closed"): raise PermissionError(13, "Permission denied")
        return scandir(path)
    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(InputError, match="closed can't be opened: Permission denied"): load_data(tmp_path, **QUIET)
    assert "closed" in said(load_data(tmp_path, skip_broken=True, **QUIET))


# archives and arrays

@pytest.fixture
def archive(tmp_path):
    "A function that makes an archive of class folders, with what should not be there."
    def make(name):
        members = {f"photos/{'ab'[i % 2]}/{i:02}.png": png(Image.fromarray(digits[i])) for i in range(20)}
        members |= {"../../evil.png": png(photo()), "/evil.png": png(photo()), "photos/read me.txt": b"", "__MACOSX/._0.png": b"x"}
        if name.endswith(".zip"):
            with zipfile.ZipFile(tmp_path / name, "w") as z:
                for member, content in members.items(): z.writestr(member, content)
        else:
            with tarfile.open(tmp_path / name, "w:" + name.partition(".tar")[2].lstrip(".")) as t:
                for member, content in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    t.addfile(info, io.BytesIO(content))
        return tmp_path / name
    return make


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_archives(tmp_path, archive, name):
    path = archive(name)
    before = sorted(tmp_path.parent.rglob("*"))
    data = load_data(path, **QUIET)
    assert data.classes == ("a", "b") and len(everything(data)) == 20 and data.name == "a"
    for split in SPLITS:
        for x, label in zip(data[split], data.labels[split]):
            number = next(i for i in range(20) if (digits[i] == x[0].numpy()).all())
            assert label == number % 2
    assert "2 path that leads out of the archive" in said(data) and sorted(tmp_path.parent.rglob("*")) == before
    plain = pictures(tmp_path / "plain", 20)  # the same files: the same splits, wherever they lie
    assert all(torch.equal(a, b) for a, b in zip(everything(load_data(plain, **QUIET)), everything(data)))


def test_damaged_archives(tmp_path, archive):
    for name in ("a.zip", "a.tar", "a.tar.gz"):
        path = archive(name)
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(InputError, match="a.tar|a.zip|cut off"): load_data(path, **QUIET)
    for name in ("b.zip", "b.tar", "b.npz", "b.npy", "b.pt", "b.png"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(InputError, match=f"b{name[1:]} can't be read"): load_data(tmp_path / name, **QUIET)


def shard(path, samples, mode="w"):
    "A tar archive; samples: name -> bytes."
    with tarfile.open(path, mode) as t:
        for member, content in samples.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode, label", [("w", lambda i: (".cls", b"%d" % (i % 3))), ("w:gz", lambda i: (".cls", b"abc"[i % 3:][:1])),
                                         ("w", lambda i: (".json", b'{"label": "%s", "x": [1]}' % b"abc"[i % 3:][:1])),
                                         ("w", lambda i: (".json", b'{"label": %d}' % (i % 3)))])
def test_labels_of_webdataset(tmp_path, mode, label):
    samples = {}
    for i in range(30):
        ending, content = label(i)
        samples |= {f"part/{i:04}.png": png(Image.fromarray(digits[i])), f"part/{i:04}{ending}": content}
    data = load_data(shard(tmp_path / ("x.tar" + ".gz" * (mode != "w")), samples | {"part/notes.txt": b""}, mode), **QUIET)
    assert data.classes == (None if b"2" in content else ("a", "b", "c"))  # 29 % 3 is 2
    for split in SPLITS:
        for x, y in zip(data[split], data.labels[split]): assert y == next(i for i in range(30) if (digits[i] == x[0].numpy()).all()) % 3
    assert "Labels by the .cls and .json members: " in said(data) and "Left out: 1 .txt file." in said(data)
    own = load_data(tmp_path / ("x.tar" + ".gz" * (mode != "w")), labels=[7] * 30, **QUIET)
    assert own.labels["train"].unique().tolist() == [7]


@pytest.mark.parametrize("more, message", [
    ({"2.png": b""}, r"1 of 3 pictures have no label: x.tar/2.png; expected .* or labels=… for all"),
    ({"3.cls": b"1"}, "x.tar/3.cls is the label of no picture: there is no x.tar/3.png"),
    ({"1.json": b'{"label": 4}'}, "x.tar/1 has two labels, '1' and '4'"), ({"1.cls": b" "}, "x.tar/1.cls holds the label ''"),
    ({"1.json": b'{"label": true}'}, "x.tar/1.json holds the label True; expected an integer or a name")])
def test_labels_of_webdataset_that_can_not_be(tmp_path, more, message):
    samples = {f"{i}.png": png(Image.fromarray(digits[i])) for i in range(2)} | {"0.cls": b"0", "1.cls": b"1"}
    if "2.png" in more: more = {"2.png": png(Image.fromarray(digits[2]))}
    n = sum(name.endswith(".png") for name in samples | more)
    with pytest.raises(InputError, match=message): load_data(shard(tmp_path / "x.tar", samples | more), **WHOLE)
    assert len(load_data(tmp_path / "x.tar", labels=list(range(n)), **WHOLE).train) == n  # by the user's own


def test_json_without_labels_is_no_label(tmp_path):
    samples = {f"{'ab'[i % 2]}/{i}.png": png(Image.fromarray(digits[i])) for i in range(8)}
    data = load_data(shard(tmp_path / "x.tar", samples | {"a/0.json": b'{"caption": 1}', "b/1.json": b"{", "all.json": b'{"label": 3}'}), **WHOLE)
    assert data.classes == ("a", "b") and "Left out: 3 .json file" in said(data)


def test_array_files(tmp_path):
    x, y = digits[:40], np.arange(40) % 3
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    torch.save(dict(x=torch.from_numpy(x), y=torch.from_numpy(y)), tmp_path / "a.pt")
    same = load_data(x, **QUIET)
    for name, options in {"a.npy": dict(labels=y), "a.npz": dict(labels="y"), "a.pt": dict(key="x", labels="y")}.items():
        data = load_data(tmp_path / name, **options, **QUIET)
        for split in SPLITS:
            assert torch.equal(data[split], same[split])
            assert torch.equal(data.labels[split], torch.from_numpy(y)[data.indices[split]])
    with pytest.raises(InputError, match=r"key='z': .*'x' \(40, 28, 28\) uint8, 'y'"): load_data(tmp_path / "a.npz", key="z")
    with pytest.raises(InputError, match="labels has 39 entries; expected 40"): load_data(tmp_path / "a.npy", labels=y[1:])
    with pytest.raises(InputError, match="key='x': expected a source that is a file of arrays"): load_data(x, key="x")
    class Code:
        def __reduce__(self): return os.mkdir, (str(tmp_path / "ran"),)
    torch.save(dict(x=torch.zeros(4, 8, 8), code=Code()), tmp_path / "code.pt")
    np.save(tmp_path / "code.npy", np.array([Code()], object), allow_pickle=True)
    for name in ("code.pt", "code.npy"):
        with pytest.raises(InputError, match="can't be read as an array of numbers"): load_data(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_deep_arrays_in_files(tmp_path):
    x = rng.integers(0, 4000, (20, 8, 8, 3)).astype(np.uint16)
    np.save(tmp_path / "a.npy", x)
    data = load_data(tmp_path / "a.npy", **WHOLE)
    assert data.image_shape == (3, 8, 8) and "4,095 is white" in said(data) and "moved to the front" in said(data)
    torch.testing.assert_close(data.train, (torch.from_numpy(x.astype(np.float32)) / 4095).movedim(-1, 1)[data.indices["train"]])


def test_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "a.h5", "w") as file: file["scans/images"], file["scans/labels"] = digits[:30], np.arange(30)
    data = load_data(tmp_path / "a.h5", labels="scans/labels", **QUIET)
    assert torch.equal(data.train, load_data(digits[:30], **QUIET).train) and torch.equal(data.labels["train"], data.indices["train"])
    with pytest.raises(InputError, match=r"key='images': .*holds 'scans/images' \(30, 28, 28\) uint8, 'scans/labels'"):
        load_data(tmp_path / "a.h5", key="images")


def test_hdf5_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match="pip install h5py"): load_data(tmp_path / "a.h5")


# lists, tables, labels, data sets

def test_lists_patterns_and_tables(tmp_path):
    paths = sorted(pictures(tmp_path / "photos").iterdir())
    folder = everything(load_data(tmp_path / "photos", **QUIET))
    (tmp_path / "photos" / "notes.txt").write_text("")
    (tmp_path / "t.csv").write_text("label,path\n" + "\n".join(f"{'xyz'[i % 3]},photos/{path.name}" for i, path in enumerate(paths)))
    for source in (paths, [str(path) for path in paths], f"{tmp_path}/ph*/*", f"{tmp_path}/**/*.png", tmp_path / "t.csv"):
        data = load_data(source, **QUIET)
        assert torch.equal(everything(data), folder)
    assert data.classes == ("x", "y", "z") and data.labels["train"].tolist() == (data.indices["train"] % 3).tolist()
    assert load_data(f"{tmp_path}/photos/*.png", **QUIET).name == "photos"
    with pytest.raises(InputError, match="no images in"): load_data(f"{tmp_path}/*.jpg")
    (tmp_path / "t.csv").write_text("label,path\nx,photos/none.png\n")
    with pytest.raises(InputError, match="none.png can't be read: No such file"): load_data(tmp_path / "t.csv", **QUIET)


@pytest.mark.parametrize("labels, message", [
    ([1, 2], "labels has 2 entries; expected 30, one for each image"), ([0.5] * 30, "labels holds float64; expected integers or names"),
    ([[1]] * 30, r"labels has shape \(30, 1\)"), (3, "labels=3: expected one value for each image"), ("none.txt", "labels='none.txt' is no file")])
def test_labels_that_can_not_be(tmp_path, labels, message):
    for source in (pictures(tmp_path), digits[:30], list(digits[:30])):
        with pytest.raises(InputError, match=message): load_data(source, labels=labels, **QUIET)
    with pytest.raises(InputError, match="labels: 'mnist-10k' has labels and splits of its own"): load_data("mnist-10k", labels=labels)


class Items:
    "As torchvision has them."
    targets, classes = [i % 2 for i in range(40)], ["even", "odd"]
    def __len__(self): return 40
    def __getitem__(self, i):
        if i >= 40: raise IndexError
        return Image.fromarray(digits[i]), self.targets[i]


def test_labels_of_data_sets():
    from torch.utils.data import DataLoader, Subset, TensorDataset
    for source in (Items(), Subset(Items(), range(40)), DataLoader(Items())):
        data = load_data(source, **QUIET)
        assert data.classes == ("even", "odd") and torch.equal(data.labels["train"], data.indices["train"] % 2)
        assert isinstance(data.train, IndexedImages)
    pairs = load_data(TensorDataset(torch.from_numpy(digits[:40, None]), torch.arange(40)))
    assert torch.equal(pairs.labels["test"], pairs.indices["test"])
    given = load_data(Items(), labels=["abc"[i % 3] for i in range(40)])
    assert given.classes == ("a", "b", "c") and torch.equal(given.labels["train"], given.indices["train"] % 3)


def test_labels_of_hugging_face():
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    datasets.disable_progress_bars()
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"]))
    table = datasets.Dataset.from_dict({"image": [Image.fromarray(x) for x in digits[:40]], "label": [i % 2 for i in range(40)]}, features)
    data = load_data(table)
    assert data.classes == ("even", "odd") and torch.equal(data.labels["train"], data.indices["train"] % 2)


def test_mixed_list_of_pictures():
    mixed = [Image.fromarray(digits[0]), photo(28, 28), Image.fromarray(digits[1]).convert("LA")]
    with pytest.raises(InputError, match=r"source\[1\] has shape"): load_data(mixed, **WHOLE).train[:]
    assert load_data(mixed, mode="RGB", **WHOLE).train[:].shape == (3, 3, 28, 28)
    assert load_data([Image.fromarray(digits[0].astype(np.uint16) * 16)], scale=4080, **WHOLE).train[:].max() == digits[0].max() / 255


# splits

def test_own_splits(tmp_path):
    for split, first in (("train", 0), ("val", 20), ("test", 30)): pictures(tmp_path / split / "a", 10, first)
    data = load_data(tmp_path, **QUIET)
    for split, first in (("train", 0), ("valid", 20), ("test", 30)):
        assert {x.numpy().tobytes() for x in data[split]} == {x.tobytes() for x in digits[first:first + 10]}
    with pytest.raises(InputError, match="valid=0.2: .* has validation images of its own"): load_data(tmp_path, valid=0.2)
    with pytest.raises(InputError, match="test: .* has test images of its own"): load_data(tmp_path, test=0.2, **QUIET)
    pictures(tmp_path / "cats", 2, 50)
    with pytest.raises(InputError, match="has the folders test, train, val, and other images: 2 in 'cats'"): load_data(tmp_path, **QUIET)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [dict(), dict(valid=0.3, test=0.3), dict(valid=12, test=30)], ids=str)
def test_groups_stay_together(tmp_path, sizes, seed):
    for i in range(120): Image.fromarray(digits[i]).save(tmp_path / f"patient{i // 6}_slice{i % 6}.png")
    groups = np.arange(120) // 6
    for source, given in ((tmp_path, r"(patient\d+)_"), (digits[:120], groups), (list(digits[:120]), groups)):
        data = load_data(source, groups=given, seed=seed, **sizes, **QUIET)
        found = [{int(g) for x in data[split][:] for g in [next(i for i in range(120) if (digits[i] == x[0].numpy()).all()) // 6]} for split in SPLITS]
        assert sum(map(len, found)) == 20 and len(set().union(*found)) == 20
        assert all(found) and "20 groups stay together" in said(data)


def test_groups_that_can_not_be(tmp_path):
    pictures(tmp_path)
    for groups, message in (([0] * 30, "groups has 1 different values"), ([0, 1], "groups has 2 entries; expected 30"), ("(x)", "does not fit"),
                            ("folder", "groups has 1 different values"), ("(x", "no regular expression")):
        with pytest.raises(InputError, match=message): load_data(tmp_path, groups=groups, **QUIET)
    with pytest.raises(InputError, match="goes by the names of files"): load_data(digits[:30], groups="folder")


# the cache, threads, numbers

def test_cache(tmp_path, monkeypatch):
    folder, cache = pictures(tmp_path / "photos"), tmp_path / "root" / "decoded"
    monkeypatch.setattr(picture_files, "SLOW_SECONDS", -1)
    options = dict(root=tmp_path / "root", **QUIET)
    plain = load_data(folder, cache=False, **options)
    assert not cache.exists()
    first = load_data(folder, **options)
    assert len(list(cache.iterdir())) == 3
    with monkeypatch.context() as patch:
        patch.setattr(PictureFiles, "_decode", lambda *_: pytest.fail("decoded again"))
        again = load_data(folder, **options)
    for split in SPLITS: assert torch.equal(plain[split], first[split]) and torch.equal(first[split], again[split])
    for file in cache.iterdir(): file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with pytest.warns(UserWarning, match="is damaged; the images are decoded again"): mended = load_data(folder, **options)
    for split in SPLITS: assert torch.equal(mended[split], plain[split])
    for other in (dict(resize=14), dict(mode="RGB"), dict(background="red"), dict(seed=1)): load_data(folder, **options | other)
    Image.fromarray(digits[99]).save(folder / "000.png")
    assert digits[99].tobytes() in {x.numpy().tobytes() for x in everything(load_data(folder, **options))}
    assert decoded_images.DECODING == 1


def test_threads_do_not_change_what_is_read(tmp_path):
    for i in range(300): photo(20 + i % 7, 30).save(tmp_path / f"{i}.png")
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            found.append(load_data(tmp_path, resize=16, **QUIET))
    finally: torch.set_num_threads(threads)
    for split in SPLITS: assert torch.equal(found[0][split], found[1][split]) and torch.equal(found[0][split], found[2][split])
    assert threading.active_count() < 20


def test_many_small_files(tmp_path):
    "100,000 files in a minute: a tenth of them in six seconds, and here with room for a busy machine."
    content = png(Image.fromarray(digits[0]))
    for i in range(10_000): (tmp_path / f"{i}.png").write_bytes(content + i.to_bytes(4, "big"))
    start = time.process_time()
    assert len(PictureFiles(folders.folder_files(tmp_path), picture_files.Reading(progress=False))) == 10_000
    assert time.process_time() - start < 6


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from vae_nb import load_data
load_data(sys.argv[2], **eval(sys.argv[3]))             # what is imported, and what stays
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
data = load_data(sys.argv[1], **eval(sys.argv[3]))
print((peak() - before) / sum(x.nbytes for x in (data.train, data.valid, data.test)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_memory(tmp_path):
    "8,000 images of 64×64 in colour: 98 MB, and at most a fifth more while they are loaded."
    for n, name in ((8000, "many"), (50, "few")):
        (tmp_path / name).mkdir()
        for i in range(n): (tmp_path / name / f"{i}.bmp").write_bytes(bmp(i))
    options = "dict(progress=False, cache=False)"
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path / "many", tmp_path / "few", options], capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and float(done.stdout) < 1.2, done


def bmp(i):
    Image.fromarray(np.full((64, 64, 3), i % 251, np.uint8)).save(file := io.BytesIO(), "bmp")
    return file.getvalue()[:-4] + i.to_bytes(4, "big")


# augmentation

def test_augmentation_is_for_training_batches_only(tmp_path):
    data, plain = (load_data(digits[:300], augment=augment, binarize="dynamic") for augment in ("flip+shift", None))
    def epoch(data, split="train", **options): return torch.cat(list(data.batches(split, 64, **options)))
    for split in SPLITS: assert torch.equal(data[split], plain[split])
    assert not torch.equal(epoch(data), epoch(plain)) and torch.equal(epoch(data), epoch(data))
    assert not torch.equal(epoch(data, epoch=1), epoch(data))
    for split in ("valid", "test"): assert torch.equal(epoch(data, split), epoch(plain, split))
    assert torch.equal(epoch(data, shuffle=False), epoch(plain, shuffle=False))
    with pytest.raises(InputError, match="augment='flop' is not known.*Did you mean 'flip'"): load_data(augment="flop")


# the command line

@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    def call(line):
        code = 0
        try: main(shlex.split(line))
        except SystemExit as e: code = e.code or 0
        return code, *capsys.readouterr()
    return call


def test_every_source_on_the_command_line(cli, tmp_path, archive):
    pictures(tmp_path / "photos")
    archive("a.zip"), archive("a.tar.gz")
    np.save("a.npy", digits[:30])
    np.savez("a.npz", x=digits[:30], z=digits[:20])
    torch.save(torch.from_numpy(digits[:30]), "a.pt")
    (tmp_path / "a.csv").write_text("".join(f"photos/{i:03}.png,{i % 3}\n" for i in range(30)))
    frames = [Image.fromarray(x) for x in digits[:30]]
    frames[0].save("a.tif", save_all=True, append_images=frames[1:])
    (tmp_path / "y.txt").write_text("\n".join("ab"[i % 2] for i in range(30)))
    for words in ("photos", "'photos/*.png'", "photos/000.png photos/001.png photos/002.png --valid 0", "a.zip", "a.tar.gz", "a.npy --labels y.txt", "a.npz --key x",
                  "a.pt", "a.csv", "a.tif", "photos --resize 16 12 --fit pad --background black", "photos --mode RGB --groups '(0[012]).\\.png'"):
        code, out, err = cli(f"data {words} --no-progress")
        assert (code, err) == (0, "") and "found" in out, (words, err)
    code, out, err = cli("data 'photos/*.png' --resize 20 10 --no-progress")
    assert "--fit pad keeps all" in out
    code, out, err = cli("data a.npz")
    assert code == 2 and "--key=None: a.npz holds 'x' (30, 28, 28) uint8, 'z' (20, 28, 28) uint8" in err


TINY = "--encoder mlp --decoder mlp --hidden 4 --latent-dim 2 --epochs 1 --batch-size 8 --no-progress"


def test_a_run_on_an_archive(cli, archive, tmp_path):
    archive("a.zip")
    code, out, err = cli(f"train --data a.zip {TINY}")
    assert code == 0 and "error" not in err and (tmp_path / "runs/a/config.json").is_file(), err
    code, out, err = cli("evaluate runs/a --no-report")
    assert (code, err) == (0, ""), err
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "a") as z: z.writestr("photos/a/new.png", png(Image.fromarray(digits[50])))
    assert "have changed since the run" in cli("evaluate runs/a --no-report")[2]
    pictures(tmp_path / "more", 20, 60)
    assert cli(f"train --data 'more/*.png' {TINY}")[0] == 0 and (tmp_path / "runs/more").is_dir()


def test_other_deep_images_for_a_run(cli, tmp_path):
    "Which value is white? Nobody knows but the user."
    for name, top in (("a", 4000), ("b", 1000)): np.save(f"{name}.npy", rng.integers(0, top, (30, 6, 6)).astype(np.uint16))
    code, out, err = cli(f"train --data a.npy {TINY}")
    assert code == 0 and "0 is black and 4,095 is white (--scale 4095 keeps it so)" in out, err
    code, out, err = cli("evaluate runs/a --no-report")
    assert (code, err) == (0, ""), err
    code, out, err = cli("evaluate runs/a --data b.npy --no-report")
    assert code == 0 and "0 is black and 1,023 is white" in err and "if another value was white in training, scale= says which" in err
    code, out, err = cli("evaluate runs/a --data b.npy --scale 4095 --no-report")
    assert (code, err) == (0, ""), err
    code, out, err = cli("evaluate runs/a --data b.npy --scale 100 --no-report")
    assert code == 2 and "run from" in err and "scale 1023, which holds all of them" in err.replace("=", " "), err
