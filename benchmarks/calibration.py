"""Are the pixel uncertainties true? Three noise models, with and without β-NLL, on MNIST and Fashion-MNIST.

Writes nbs/experiments/calibration.json. A run that was stopped goes on where it was when it is started again."""
import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import vae_nb as v
from vae_nb.models.tensor_files import replace_file
from vae_nb.training.runs import versions

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "nbs" / "experiments" / "calibration.json"
MODEL = dict(latent_dim=16, encoder="mlp", decoder="mlp", hidden=(512, 256))
FIT = dict(epochs=10, batch_size=256, lr=2e-3, seed=0)
THRESHOLD, HIDDEN = 0.05, dict(hidden="right", limit=50)
# With one σ for everything a β-NLL only rescales the reconstruction against the KL, so that cell is left out.
CELLS = [("homoscedastic", None), ("imagewise", None), ("pixelwise", None), ("imagewise", 0.5), ("pixelwise", 0.5)]


def train(data, noise, beta, kl_weight, folder):
    "Train one cell, or go on with it; the model, and the CPU seconds since it was last started."
    torch.manual_seed(FIT["seed"])
    model = v.create_vae(data.image_shape, noise=noise, **MODEL)
    start, timing = time.process_time(), folder / "seconds.json"
    v.fit(model, data, beta_nll=beta, kl_weight=kl_weight, out=folder, resume=True, progress=False, **FIT)
    if not timing.exists(): timing.write_text(json.dumps(round(time.process_time() - start, 1)))
    return v.VAE.load(folder), json.loads(timing.read_text())


def all_numbers(model, data):
    "All numbers of one model, and the CPU seconds that each took."
    measures = dict(evaluate=lambda: v.evaluate(model, data),
                    calibration=lambda: v.calibration(model, data, threshold=THRESHOLD),
                    predictive_check=lambda: v.predictive_check(model, data),
                    hidden_calibration=lambda: v.inpainting_calibration(model, data, threshold=THRESHOLD, **HIDDEN))
    if model.config["noise"] != "homoscedastic": measures["hard_images"] = lambda: v.hard_images(model, data)
    found, seconds = {}, {}
    for name, measure in measures.items():
        start = time.process_time()
        found[name] = measure()
        seconds[name] = round(time.process_time() - start, 1)
    for name in ("sigma", "error"): found.get("hard_images", {}).pop(name, None)  # 10,000 numbers each
    return {**found, "cpu_seconds": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder of the data sets; without it VAE_NB_DATA")
    parser.add_argument("--models", type=Path, default=ROOT / "runs" / "calibration", help="folder of the models")
    args = parser.parse_args()
    report = dict(script="benchmarks/calibration.py", model=MODEL, fit=FIT, threshold=THRESHOLD, hidden=HIDDEN,
                  versions=versions(), threads=torch.get_num_threads(), machine=platform.machine(), runs=[])
    for name in ("mnist", "fashion-mnist"):
        data, sigmas = v.load_data(name, root=args.root, progress=False), {}
        for noise, beta in CELLS:
            # keeps the balance of reconstruction and KL: σ^2β of the model without it, see distributions/03_beta_nll
            kl_weight = 1.0 if beta is None else float(f"{sigmas[noise] ** (2 * beta):.3g}")
            folder = args.models / f"{name}_{noise}_{beta or 0:g}"
            model, seconds = train(data, noise, beta, kl_weight, folder)
            if beta is None: sigmas[noise] = v.evaluate(model, data, "valid")["sigma"]
            saved = folder / "numbers.json"
            if not saved.exists():
                numbers = json.dumps(all_numbers(model, data))
                replace_file(saved, lambda temporary: Path(temporary).write_text(numbers))
            report["runs"].append(dict(data=name, noise=noise, beta_nll=beta, kl_weight=kl_weight,
                                       training_cpu_seconds=seconds, **json.loads(saved.read_text())))
            print(name, noise, beta, kl_weight, report["runs"][-1]["evaluate"], f"{seconds:.0f} s", flush=True)
    replace_file(RESULT, lambda temporary: Path(temporary).write_text(json.dumps(report, indent=1) + "\n"))


if __name__ == "__main__":
    main()
