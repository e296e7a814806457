"""Images per second in training on a GPU: networks, image sizes, precisions, compiled or not; beside them other loops.

For each setting `vae_nb.fit` runs some epochs of 20 steps on random images; the median epoch counts, after two that
warm up. Floating-point operations are counted by PyTorch, those of matrix products and convolutions alone, and held
against the rate of one large matrix product in the same precision, measured in the same run. Beside it stands how much
of the time the GPU computes at all, as PyTorch's profiler sees it. Result: benchmarks/gpu.json.

    gpu.py                          everything
    gpu.py --warm 12                first fill the compiler's caches, twelve programs at a time
    gpu.py --table benchmarks/gpu.json   what was measured, as tables for the README
"""
import argparse
import gc
import json
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

import throughput
import vae_nb as v
from made_with import made_with
from vae_nb.training.acceleration import PRECISIONS, matmul_precision
from vae_nb.training.fit import TrainingStep

STEPS, EPOCHS = 20, 7
NETWORKS = {"MLP": dict(encoder="mlp", decoder="mlp", hidden=(400,), latent_dim=20), "CNN": dict(latent_dim=32)}
IMAGES = {(1, 28, 28): "bernoulli", (3, 64, 64): "gaussian", (3, 128, 128): "gaussian"}
BATCHES = {"MLP": (512, 4096, 1024, 1024), "CNN": (128, 1024, 512, 256)}
CASES = [(network, shape, batch) for network, batches in BATCHES.items()
         for shape, batch in zip([(1, 28, 28), *IMAGES], batches)]
WAYS = {"as it is": False, "compiled": True, "recorded": "reduce-overhead"}  # "recorded": captured as a CUDA graph
SETTINGS = [(*case, precision, way) for case in CASES for precision in PRECISIONS for way in WAYS
            if way != "compiled" or case[2] == BATCHES[case[0]][0]]


class Timed(v.Data):
    "Notes when the epochs of a training begin."
    def batches(self, split, *arguments, shuffle=None, **options):
        if split == "train" and shuffle is None: self.at(len(self.marks))
        return super().batches(split, *arguments, shuffle=shuffle, **options)

    def at(self, epoch):
        torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        if epoch == self.profiled: self.profiler.start()
        if epoch == self.profiled + 1: self.profiler.stop()


def new_model(network, shape):
    torch.manual_seed(0)
    return v.create_vae(shape, likelihood=IMAGES[shape], **NETWORKS[network])


def new_data(shape, images, profiled): # the epoch that is profiled
    some = torch.randint(0, 256, (512, *shape), dtype=torch.uint8)
    x = some.repeat(-(-images // 512), 1, 1, 1)[:images]
    data = Timed(x, x[:0], x[:0])
    data.marks, data.profiled = [], profiled
    data.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    return data


def operations(network, shape):
    "Floating-point operations of products and convolutions in a training step, for each image."
    model = new_model(network, shape).cuda()
    with FlopCounterMode(display=False) as counter:
        value, _ = TrainingStep(model, v.elbo, None, 1)(torch.rand(8, *shape, device="cuda"))
        value.backward()
    return counter.get_total_flops() / 8


def peak(precision, n=8192):
    "Operations a second of one large matrix product."
    a, b = (torch.randn(n, n, device="cuda", dtype=PRECISIONS[precision] or torch.float32) for _ in "ab")
    with matmul_precision(precision): measured = Timer("a @ b", globals=dict(a=a, b=b)).blocked_autorange()
    return 2 * n ** 3 / measured.median


def of_fit(network, shape, batch, precision, way, epochs=EPOCHS):
    "Images a second, memory, and how long the GPU computes in a second."
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.allow_tf32 = False  # else convolutions in "fp32" are in TF32 all the same
    data = new_data(shape, STEPS * batch, epochs - 2)
    v.fit(new_model(network, shape), data, epochs=epochs, batch_size=batch, precision=precision, compile=WAYS[way],
          progress=False)
    found = [b - a for a, b in zip(data.marks, data.marks[1:])]
    seconds = statistics.median(found[2:epochs - 2]) if epochs > 4 else found[-1]
    kernels = [row.self_device_time_total for row in data.profiler.key_averages()]
    return dict(images_per_second=round(STEPS * batch / seconds), busy=round(sum(kernels) / 1e6 / seconds, 3),
                memory_mib=round(torch.cuda.max_memory_allocated() / 2 ** 20))


def warm(setting):
    warnings.simplefilter("ignore")
    try: of_fit(*setting, epochs=3)
    except Exception as e: return f"{setting}: {type(e).__name__}: {e}"


def race(case, rounds=4):
    "Epochs of 60,000 digits: loops by hand and pythae, in interleaved rounds."
    data = v.Data(*(torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8) for n in (60_000, 0, 0)),
                  labels={"train": torch.zeros(60_000)})
    loader = dict(num_workers=8, pin_memory=True, persistent_workers=True)
    make = {"in memory (of the GPU)": lambda: throughput.in_memory(case, data, "cuda"),
            "DataLoader, 8 workers": lambda: throughput.by_loader(case, data, "cuda", **loader),
            "pythae": lambda: throughput.by_pythae(case, data)}
    runs, found = {}, {}
    for name, start in make.items():
        try: runs[name] = start()
        except ImportError as e: print(f"{name}: {e}", flush=True)
    for _ in range(rounds):
        for name, run in runs.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            torch.cuda.synchronize()
            found.setdefault(name, []).append(60_000 / (time.perf_counter() - start))
    return {name: round(statistics.median(speeds[1:])) for name, speeds in found.items()}


def table(result):
    "Markdown: a row for each network, batch and precision; and the other loops."
    heads = ("", "as it is", "compiled", "CUDA graph", "graph / as it is", "busy as it is", "busy, graph",
             "of peak, graph", "MiB, graph")
    lines = [" | ".join(["| images/s", *heads[1:]]) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    rows = {}
    for row in result["rows"]:
        key = row["network"], "×".join(map(str, row["shape"])), row["batch"], row["precision"]
        rows.setdefault(key, {})[row["way"]] = row
    for key, found in rows.items():
        speeds = [f"{found[way]['images_per_second']:,}" if way in found else "" for way in WAYS]
        plain, last = (found.get(way) for way in ("as it is", "recorded"))
        rest = [""] * 5 if None in (plain, last) else [
            f"{last['images_per_second'] / plain['images_per_second']:.1f}",
            f"{plain['busy']:.0%}", f"{last['busy']:.0%}", f"{last['of_peak']:.1%}", f"{last['memory_mib']:,}"]
        lines.append(" | ".join([f"| {key[0]}, {key[1]}, batch {key[2]}, {key[3]}", *speeds, *rest]) + " |")
    loops = list(next(iter(result["others"].values())))
    lines += ["", "| other loops, images/s | " + " | ".join(loops) + " |", "|---|" + "---:|" * len(loops)]
    for case, found in result["others"].items():
        lines.append(" | ".join([f"| {case}", *(f"{speed:,}" for speed in found.values())]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warm", type=int, default=0, help="programs at a time that fill the compiler's caches first")
    parser.add_argument("--only", default="", help="networks, shapes or ways: parts of a row's name")
    parser.add_argument("--no-race", action="store_true")
    parser.add_argument("--out", help="JSON file for the numbers")
    parser.add_argument("--table", help="JSON file to print as tables")
    args = parser.parse_args()
    if args.table: return print(table(json.loads(Path(args.table).read_text())))
    warnings.simplefilter("ignore")
    name = lambda s: f"{s[0]}, {'×'.join(map(str, s[1]))}, batch {s[2]}, {s[3]}, {s[4]}"
    settings = [s for s in SETTINGS if all(word in name(s) for word in args.only.split(";"))]
    if args.warm:
        start = time.perf_counter()
        with ProcessPoolExecutor(args.warm, get_context("spawn")) as pool:
            for error in pool.map(warm, [s for s in settings if s[4] != "as it is"]):
                if error: print(error, flush=True)
        print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
    result = dict(**made_with(), steps=STEPS, epochs=EPOCHS, seed=0, rows=[],
                  peaks={precision: peak(precision) for precision in PRECISIONS})
    print({precision: f"{rate / 1e12:.0f} TFLOP/s" for precision, rate in result["peaks"].items()}, flush=True)
    if not args.no_race:
        result["others"] = {case: race(case) for case in ("MLP 784-400-20, mean-field", "CNN 32-64-128, mean-field")}
        print(json.dumps(result["others"], indent=1), flush=True)
    counted = {key: operations(*key) for key in {s[:2] for s in settings}}
    def write():
        if args.out: Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    for setting in settings:
        try: found = of_fit(*setting)
        except Exception as e:
            print(f"{name(setting)}: {type(e).__name__}: {e}", flush=True)
            continue
        rate = found["images_per_second"] * counted[setting[:2]]
        row = dict(zip(("network", "shape", "batch", "precision", "way"), setting), **found,
                   mflop_an_image=round(counted[setting[:2]] / 1e6, 2),
                   of_peak=round(rate / result["peaks"][setting[3]], 4))
        result["rows"].append(row)
        print(f"{name(setting):52}{row['images_per_second']:12,} images/s  busy {row['busy']:4.0%}  "
              f"{row['of_peak']:6.1%} of peak  {row['memory_mib']:6,} MiB", flush=True)
        write()


if __name__ == "__main__":
    main()
