"""What a newcomer gets: one command, three minutes, two cores, for four sources that are not digits in an array.

Makes a folder of transparent icons, a folder of photographs of mixed sizes, 16-bit grey stacks and a zip of class folders; runs
`vae_nb train --minutes 3` on each, nothing else; draws test images on their way through the model, and samples of a Gaussian
or a mixture that is fitted to the codes, whichever validation images prefer. Writes benchmarks/own_images.json (commands, what
loading said, numbers, seconds, versions) and the pictures in nbs/experiments/own_images. A quarter of an hour of two cores;
--only names one of them."""
import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import vae_nb as v
from icons import icons
from made_with import made_with
from vae_nb.data.built_in import bundled_digits
from vae_nb.generation.model_figures import varied_images
from vae_nb.models.tensor_files import replace_file
from vae_nb.training.runs import load_run_model, run_data

RESULT = Path(__file__).with_suffix(".json")
PICTURES = Path(__file__).parents[1] / "nbs" / "experiments" / "own_images"


def transparent_icons(place, n=4000):
    "icons/: PNG files with alpha, 64×64."
    (place / "icons").mkdir()
    for i, image in enumerate(icons(n)): image.save(place / "icons" / f"{i:05d}.png")


def photographs(place, n=4000):
    "photos/: JPEG files of mixed sizes and shapes, cut from two photographs."
    rng, photos = np.random.default_rng(0), [Image.fromarray(image) for image in load_sample_images().images]
    (place / "photos").mkdir()
    for i in range(n):
        photo = photos[i % 2]
        width, height = (int(x) for x in rng.integers(60, 200, 2))
        left, top = int(rng.integers(photo.width - width)), int(rng.integers(photo.height - height))
        photo.crop((left, top, left + width, top + height)).save(place / "photos" / f"{i:05d}.jpg", quality=92)


def stacks(place, n=20, pages=150):
    "stacks/: TIFF files of 16 bits with many pages: round cells of 12 bits of light, with noise that grows with the light."
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:64, :64]
    (place / "stacks").mkdir()
    for i in range(n):
        images = []
        for _ in range(pages):
            light = np.full((64, 64), 0.08)
            for _ in range(rng.integers(1, 4)):
                cx, cy, a, b, turn = *rng.uniform(12, 52, 2), *rng.uniform(5, 13, 2), rng.uniform(0, np.pi)
                u, w = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn), (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
                inside = 1 / (1 + np.exp(4 * (np.hypot(u / a, w / b) - 1)))
                light = np.maximum(light, inside * rng.uniform(0.4, 0.8) * (1 - 0.6 * np.exp(-(u ** 2 + w ** 2) / 8)))
            values = 4095 * (light + rng.normal(0, 1, light.shape) * (0.01 + 0.06 * light))
            images.append(Image.fromarray(values.clip(0, 4095).astype(np.uint16)))
        images[0].save(place / "stacks" / f"{i:02d}.tif", save_all=True, append_images=images[1:])


def class_folders(place, n=6000):
    "digits.zip: PNG files in ten folders."
    digits = bundled_digits()
    with zipfile.ZipFile(place / "digits.zip", "w") as archive:
        for i, (image, label) in enumerate(zip(digits["train_images"][:n], digits["train_labels"])):
            file = BytesIO(); Image.fromarray(image).save(file, "PNG")
            archive.writestr(f"digits/{label}/{i:05d}.png", file.getvalue())


TRIALS = {  # name -> what makes the source, and the words after `vae_nb train`
    "icons": (transparent_icons, "--data icons"), "photos": (photographs, "--data photos --resize 48"),
    "stacks": (stacks, "--data stacks"), "digits": (class_folders, "--data digits.zip")}


def vae_nb(words, place):
    "What the command prints."
    print("vae_nb", words, flush=True)
    done = subprocess.run([sys.executable, "-m", "vae_nb", *words.split()], cwd=place, capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def draw(run, name):
    "Pictures of a run; what stands in the report."
    model, data = load_run_model(run), run_data(run, {})
    v.pipeline_figure(model, varied_images(data, 3), save=PICTURES / f"{name}.png")
    kinds = dict(kind="gaussian"), *(dict(kind="mixture", components=n) for n in (5, 20))
    priors = [v.with_prior(model, v.fit_prior(model, data, **kind)) for kind in kinds]
    fitted = max(priors, key=lambda prior: v.evaluate(prior, data, "valid")["elbo"])
    rows = []
    for which in (model, fitted):
        with v.evaluating(which): rows.append(which.prior_predictive(8).mean)
    v.image_grid(torch.stack(rows), row_labels=["prior", "fitted"], save=PICTURES / f"{name}_samples.png")
    for path in (PICTURES / f"{name}.png", PICTURES / f"{name}_samples.png"):  # as small as they can be
        with Image.open(path) as image: small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
    config = {key: model.config[key] for key in ("image_shape", "latent_dim", "sigma_floor", "activation")}
    flat = torch.as_tensor(data.test[:]).float() / (255 if data.test.dtype == torch.uint8 else 1)
    return dict(config=config, test=v.evaluate(model, data), test_with_fitted_prior=v.evaluate(fitted, data),
                spread=(flat - flat.mean(0)).square().mean().sqrt().item())


def trial(name, minutes):
    make, words = TRIALS[name]
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        make(place)
        words, start = f"train {words} --minutes {minutes:g} --no-progress --out runs/{name}", time.monotonic()
        said = vae_nb(words, place).split("\n\n")[0].replace(str(place), "…")
        seconds, record = time.monotonic() - start, json.loads((place / "runs" / name / "run.json").read_text())
        fit = {key: record["fit"][key] for key in ("epochs", "batch_size", "lr", "schedule")}
        return dict(command=f"vae_nb {words}", said=said, seconds=round(seconds), fit=fit, **draw(place / "runs" / name, name))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--minutes", type=float, default=3)
    given = parser.parse_args()
    PICTURES.mkdir(exist_ok=True)
    for name in given.only:
        found = trial(name, given.minutes)
        trials = json.loads(RESULT.read_text())["trials"] if RESULT.exists() else {}
        report = dict(script="benchmarks/own_images.py", **made_with(), trials=trials | {name: found})
        replace_file(RESULT, lambda path: path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n"))
        print(name, found["seconds"], "s", {key: round(x, 3) for key, x in found["test"].items()}, flush=True)


if __name__ == "__main__": main()
