"""`log_likelihood` beside its matrix products, and beside pythae's `get_nll`: same network, weights and images.

The network is 784-200-200-50 with tanh, on binary digits. Rounds are interleaved, so that a busy machine slows all
alike; processor time, summed over threads, hardly knows of other programs at all.
pythae lives in an environment of its own (made in runs/pythae with pip), which borrows torch from this one.
"""
import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

import vae_nb as v
from anchor import MODEL
from made_with import made_with

ROOT = Path(__file__).resolve().parent.parent
PYTHAE = ROOT / "runs" / "pythae"


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def products(model, rows, piece):
    "Only the three matrix products of the decoder, for so many samples, in pieces, into memory that is there already."
    weights = [w.detach().t() for w in model.decoder.network.parameters() if w.ndim == 2]
    z = torch.randn(piece, len(weights[0]))
    layers = [torch.empty(piece, w.shape[1]) for w in weights]
    def run():
        for _ in range(rows // piece):
            h = z
            for w, out in zip(weights, layers): h = torch.mm(h, w, out=out)
    return run


def memory():
    "Resident memory now, and its highest so far, MiB."
    now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return now / 2 ** 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 10


def speed(model, x, k, rounds):
    "Seconds for all of `x`, for the products of as many samples, their ratio, and memory above what was there before."
    best = min((256, 512, 1024, 2048), key=lambda piece: seconds(products(model, 40_960, piece)))
    v.log_likelihood(model, x[:64], k=100)
    before, _ = memory()
    size = len(x) // rounds
    ours, bound, processor = [], [], []
    for part in x.split(size)[:rounds]:
        start = time.process_time()
        bound.append(seconds(products(model, len(part) * k, best)))
        between = time.process_time()
        ours.append(seconds(lambda: v.log_likelihood(model, part, k=k)))
        processor.append((between - start, time.process_time() - between))
    _, peak = memory()
    return dict(images=size * rounds, k=k, rounds=rounds, seconds=sum(ours), seconds_products=sum(bound),
                piece_products=best, fraction=statistics.median(b / o for b, o in zip(bound, ours)),
                processor_seconds=sum(o for _, o in processor), processor_seconds_products=sum(b for b, _ in processor),
                processor_fraction=statistics.median(b / o for b, o in processor), MiB_above=peak - before)


def make_pythae():
    "pythae in its own environment, which finds everything else where this Python finds it."
    python = PYTHAE / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", PYTHAE], check=True)
        site = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
                              capture_output=True, text=True).stdout.strip()
        Path(site, "shared.pth").write_text(
            "\n".join([str(ROOT), *(p for p in sys.path if p.endswith("-packages"))]) + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "pythae==0.1.2"], check=True)
    return python


def as_pythae(model):
    "The same network and weights as pythae's VAE."
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def forward(self, x):
            q = model.encode(x).base_dist
            return ModelOutput(embedding=q.loc, log_covariance=2 * q.scale.log())

    class Decoder(BaseDecoder):
        def forward(self, z): return ModelOutput(reconstruction=model.decoder.network(z).sigmoid())

    config = VAEConfig(input_dim=model.image_shape, latent_dim=model.latent_dim, reconstruction_loss="bce")
    return VAE(config, encoder=Encoder(), decoder=Decoder()).eval()


def contest(model, x, k, rounds):
    "Seconds of both on the same images; pythae with its default batch of 100 samples and with all k at once."
    import pythae
    theirs, times, values = as_pythae(model), {"vae_nb": [], "pythae": [], "pythae, batch of k": []}, {}
    images = x.float().div(255)
    calls = {"vae_nb": lambda: v.log_likelihood(model, x, k=k).mean().item(),
             "pythae": lambda: theirs.get_nll(images, n_samples=k, batch_size=100),
             "pythae, batch of k": lambda: theirs.get_nll(images, n_samples=k, batch_size=k)}
    with torch.no_grad():
        for _ in range(rounds):
            for name, call in calls.items():
                def timed(): values[name] = call()
                times[name].append(seconds(timed))
    ratios = [min(a, b) / o for o, a, b in zip(*times.values())]
    return dict(images=len(x), k=k, rounds=rounds, seconds={n: statistics.median(t) for n, t in times.items()},
                ratio=statistics.median(ratios), mean_log_likelihood=values,
                pythae=getattr(pythae, "__version__", "0.1.2"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="for the speed: 10000 is the whole test set of MNIST")
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", help="JSON file for the results")
    parser.add_argument("--contest", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="log_likelihood")  # after three epochs; only the time matters here
    torch.manual_seed(0)
    model = v.create_vae(**MODEL).eval()
    data = v.load_data("mnist-10k", binarize="dynamic", valid=0)
    v.fit(model, data, epochs=3, progress=False)  # weights of a usual size; more would not change the time
    images = torch.cat([data.test, data.train.gt(127).to(torch.uint8) * 255])
    if args.contest:
        print(json.dumps(contest(model, images[:1000], 200, 3)))
        return
    results = made_with()
    print(results)
    results["speed"] = s = speed(model, images[:args.images], args.k, args.rounds)
    print(f"{s['images']:,} images, k={s['k']}: {s['seconds']:.1f} s, "
          f"the matrix products alone {s['seconds_products']:.1f} s "
          f"(median fraction {s['fraction']:.2f}); processor time {s['processor_seconds']:.1f} s and "
          f"{s['processor_seconds_products']:.1f} s ({s['processor_fraction']:.2f}), which makes "
          f"{10_000 / s['images'] * s['processor_seconds'] / 60:.1f} processor minutes for 10,000 images; "
          f"{s['MiB_above']:.0f} MiB above the model")
    done = subprocess.run([make_pythae(), __file__, "--contest"], check=True, capture_output=True, text=True)
    results["contest"] = c = json.loads(done.stdout.splitlines()[-1])
    print(f"{c['images']:,} images, k={c['k']}: {c['seconds']} s; pythae takes {c['ratio']:.1f} times as long; "
          f"mean log-likelihoods {c['mean_log_likelihood']}")
    if args.out: Path(args.out).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
