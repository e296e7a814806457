"""Does speed cost accuracy? Test ELBOs after the same training in float32, with bfloat16 networks, compiled, and both.

Three seeds; bundled digits, Bernoulli pixels sampled anew in each epoch. The difference to float32 is taken seed by
seed, so that most of the seeds' own spread cancels; beside it stands its standard error. What the machine has no
arithmetic for is left out; on a GPU, compiled steps are also captured as a CUDA graph.
Result: benchmarks/accuracy.json.
"""
import argparse
import json
import statistics
import warnings
from pathlib import Path

import torch

import vae_nb as v
from made_with import made_with
from vae_nb.training.acceleration import has_bfloat16, has_tf32
from vae_nb.training.devices import processes

NETWORKS = {"MLP 784-400-20": (dict(encoder="mlp", decoder="mlp", hidden=(400,), latent_dim=20),
                               dict(epochs=30, batch_size=512, lr=3e-3)),
            "CNN 32-64-128": (dict(latent_dim=20), dict(epochs=8, batch_size=128, lr=2e-3))}
WAYS = {"float32": {}, "tf32": dict(precision="tf32"), "bf16": dict(precision="bf16"),
        "compiled": dict(compile="reduce-overhead"), "compiled bf16": dict(compile="reduce-overhead", precision="bf16")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default=Path(__file__).parent / "accuracy.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    device = processes().device
    torch.backends.cudnn.allow_tf32 = False  # "tf32" asks for it; otherwise float32 is to be float32
    data, rows = v.load_data("mnist-10k", valid=0, binarize="dynamic"), []
    for network, (model_options, fit_options) in NETWORKS.items():
        elbos = {}
        for way, options in WAYS.items():
            if "bf16" in way and not has_bfloat16(device) or "tf32" in way and not has_tf32(device): continue
            elbos[way] = []
            for seed in range(args.seeds):
                torch.manual_seed(seed)
                model = v.create_vae(data.image_shape, likelihood="bernoulli", **model_options)
                v.fit(model, data, **fit_options, **options, seed=seed, progress=False)
                elbos[way].append(v.evaluate(model.to(device), data, k=20)["elbo"])
            differences = [a - b for a, b in zip(elbos[way], elbos["float32"])]
            rows.append(dict(network=network, way=way, elbo=elbos[way],
                             mean=statistics.mean(elbos[way]), spread=statistics.stdev(elbos[way]),
                             difference=statistics.mean(differences),
                             standard_error=statistics.stdev(differences) / len(differences) ** 0.5))
            print("{network:16} {way:14} {mean:9.3f} (spread of seeds {spread:.3f}); "
                  "to float32 {difference:+.3f} ± {standard_error:.3f}".format(**rows[-1]), flush=True)
    result = dict(rows=rows, networks={name: dict(model=m, fit=f) for name, (m, f) in NETWORKS.items()},
                  seeds=args.seeds, k=20,
                  **made_with())
    Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
