"""Images per second in training: `vae_nb.fit` beside what one would use instead, and beside what the machine can do.

Every contestant trains the same network on the same images in batches of one size, in a process of its own, so that its
memory can be told; the processes wait for their turn, rounds are interleaved, and medians of speeds and of ratios are
printed. Contestants:

    fit, fit compiled       `vae_nb.fit` as it is, and with compile=True
    bare, bare compiled     its training step alone, on one batch that lies in memory: the limit for `fit`
    products                only the matrix products of all layers, forward and for both gradients: the limit for a step
    … bf16                  the same with precision="bf16", where the machine has such arithmetic
    in memory               a loop as one writes it by hand, over batches cut from a tensor
    DataLoader              the same over a torchvision dataset
    pythae                  pythae 0.1.2's trainer (in an environment of its own, made in runs/pythae with pip)

A round is one epoch: all of MNIST for the MLP, 10,240 of its images for the CNNs. (`--data`, else VAE_NB_DATA, else it
is downloaded. Not the bundled digits: those are few enough to lie in a processor's cache.)
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from copy import deepcopy
from math import prod
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

MLP = dict(encoder="mlp", decoder="mlp", hidden=(400,), latent_dim=20, batch_size=512, images=60_000)
SMALL, DEFAULT = (dict(channels=channels, latent_dim=32, batch_size=128, images=10_240)
                  for channels in ((32, 32, 32), None))
CASES = {f"{network}, {posterior}": dict(options, posterior=kind)
         for network, options in (("MLP 784-400-20", MLP), ("CNN 32-32-32", SMALL), ("CNN 32-64-128", DEFAULT))
         for posterior, kind in (("mean-field", "mean_field"), ("full covariance", "full_covariance"))}
OURS = {"fit": {}, "fit bf16": dict(precision="bf16"), "fit compiled": dict(compile=True),
        "fit compiled bf16": dict(compile=True, precision="bf16")}
LIMITS = ("bare", "bare bf16", "bare compiled", "bare compiled bf16", "products", "products bf16")
OTHERS = ("in memory", "DataLoader", "pythae")
BESIDE = ("mean-field fit", "mean-field in memory")  # beside a full covariance: the same network without it


def build(case):
    from vae_nb import create_vae
    options = {name: value for name, value in CASES[case].items() if name not in ("batch_size", "images")}
    torch.manual_seed(0)
    return create_vae((1, 28, 28), likelihood="bernoulli", **options)


# ---- our own ----

def ours(case, data, options):
    from vae_nb import fit
    model = build(case)
    return lambda: fit(model, data, epochs=1, batch_size=CASES[case]["batch_size"], progress=False, **options)


def bare(case, data, dtype, compile):
    from vae_nb import elbo
    from vae_nb.basics.numerics import keep_freed_memory
    from vae_nb.training.acceleration import compiled_step
    from vae_nb.training.fit import TrainingStep
    keep_freed_memory()
    model, size, ways = build(case), CASES[case]["batch_size"], ExitStack()
    step, optimizer = TrainingStep(model, elbo, None, 1, dtype), torch.optim.Adam(model.parameters(), fused=True)
    x = data.train[:size] / 255
    step(x)
    if compile: ways.enter_context(compiled_step(step, size))
    def run():
        for _ in range(len(data.train) // size):
            value, _ = step(x)
            (-value / size).backward()
            optimizer.step()
            optimizer.zero_grad()
    run.kept = ways  # a context that nobody holds would end here
    return run


def shapes(network, x):
    "The matrix product of each linear map, (rows, in, out), as one that unrolls its patches would have it."
    found, hooks = [], []
    def look(layer, inputs, out):
        here, kernel = inputs[0], prod(getattr(layer, "kernel_size", (1,)))
        if here.ndim == 2: found.append((len(here), layer.in_features, layer.out_features)); return
        n_in, n_out, turned = layer.in_channels, layer.out_channels, isinstance(layer, nn.ConvTranspose2d)
        rows = len(here) * prod((here if turned else out).shape[2:])
        found.append((rows, n_in, n_out * kernel) if turned else (rows, n_in * kernel, n_out))
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            hooks.append(layer.register_forward_hook(look))
    network(x)
    for hook in hooks: hook.remove()
    return found


def products(case, data, dtype):
    from vae_nb.basics.numerics import keep_freed_memory
    keep_freed_memory()
    model, size, work = build(case), CASES[case]["batch_size"], []
    for number, (network, x) in enumerate(((model.encoder.network, torch.zeros(size, 1, 28, 28)),
                                           (model.decoder.network, torch.zeros(size, model.latent_dim)))):
        for layer, (n, a, b) in enumerate(shapes(network, x)):
            x, w, y = (torch.randn(shape).to(dtype or torch.float32) for shape in ((n, a), (a, b), (n, b)))
            outs = torch.empty_like(y), torch.empty_like(w), torch.empty_like(x)
            work.append((x, w, outs[0]))
            work.append((x.t(), y, outs[1]))
            if number or layer: work.append((y, w.t(), outs[2]))  # nobody wants the gradient of the images
    def run():
        for _ in range(len(data.train) // size):
            for x, w, out in work: torch.mm(x, w, out=out)
    return run


# ---- what one would use instead ----

def plain_networks(case):
    "The same layers as PyTorch has them."
    from vae_nb.networks.decoders import Upsample2x
    model = build(case)
    networks = [deepcopy(part.network.layers).to(memory_format=torch.contiguous_format)
                for part in (model.encoder, model.decoder)]
    for i, layer in enumerate(networks[1]):
        if not isinstance(layer, Upsample2x): continue
        odd = [side % 2 for side in layer.size]
        plain = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, layer.kernel_size, 2,
                                   [p + o for p, o in zip(layer.padding, odd)], odd)
        plain.load_state_dict(layer.state_dict())
        networks[1][i] = plain
    return networks


def by_hand(case, batches, device):
    "What one writes by hand: reparameterised z, cross-entropy, KL in closed form."
    encoder, decoder = (network.to(device) for network in plain_networks(case))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    def run():
        for x in batches():
            x = x.to(device)
            mean, raw = encoder(x).chunk(2, 1)
            sigma = softplus(raw) + 1e-4
            z = mean + sigma * torch.randn_like(sigma)
            cross_entropy = binary_cross_entropy_with_logits(decoder(z), x, reduction="none").flatten(1).sum(1)
            kl = (0.5 * (mean ** 2 + sigma ** 2 - 1) - sigma.log()).sum(1)
            loss = (cross_entropy + kl).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return run


def in_memory(case, data, device="cpu"):
    x, size = (data.train / 255).to(device), CASES[case]["batch_size"]
    return by_hand(case, lambda: (x[i] for i in torch.randperm(len(x), device=device).split(size)), device)


def write_mnist(images, labels, root):
    "The training files of torchvision's MNIST."
    import numpy as np
    raw = Path(root) / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        header = np.array([0x803, *images[:, 0].shape], dtype=">i4").tobytes()
        (raw / f"{half}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = np.array([0x801, len(labels)], dtype=">i4").tobytes()
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())


def by_loader(case, data, device="cpu", **options): # of DataLoader
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms
    with tempfile.TemporaryDirectory() as root:
        write_mnist(data.train, data.labels["train"], root)
        dataset = datasets.MNIST(root, train=True, transform=transforms.ToTensor())
    loader = DataLoader(dataset, batch_size=CASES[case]["batch_size"], shuffle=True, **options)
    return by_hand(case, lambda: (x for x, _ in loader), device)


def by_pythae(case, data):
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    networks = plain_networks(case)

    class Encoder(BaseEncoder):
        def __init__(self): super().__init__(); self.network = networks[0]
        def forward(self, x):
            mean, raw = self.network(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=raw)

    class Decoder(BaseDecoder):
        def __init__(self): super().__init__(); self.network = networks[1]
        def forward(self, z): return ModelOutput(reconstruction=self.network(z).sigmoid())

    size, x = CASES[case]["batch_size"], data.train / 255
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=CASES[case]["latent_dim"], reconstruction_loss="bce")
    folder = tempfile.mkdtemp()
    training = BaseTrainerConfig(output_dir=folder, num_epochs=1000, per_device_train_batch_size=size,
                                 learning_rate=1e-3)
    trainer = BaseTrainer(model=VAE(config, encoder=Encoder(), decoder=Decoder()), training_config=training,
                          train_dataset=BaseDataset(x, torch.zeros(len(x))), eval_dataset=None)
    trainer.prepare_training()
    epoch = iter(range(1, 1000))
    return lambda: trainer.train_step(next(epoch))


# ---- the race ----

KINDS = {"products": ("mm", "linear"), "convolutions": ("convolution",), "optimizer": ("adam", "optimizer")}


def shares(run):
    "Where the time of the operations goes, by kind, as PyTorch's profiler sees one round."
    with torch.profiler.profile() as seen: run()
    found = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for row in seen.key_averages():
        kinds = (kind for kind, words in KINDS.items() if any(word in row.key.lower() for word in words))
        kind = next(kinds, "the rest")
        found[kind] += row.self_cpu_time_total
    return {kind: round(time / sum(found.values()), 3) for kind, time in found.items()}


def contestant(name, case, root):
    "Answer each line on stdin with the images per second and the memory of a round, or with a profile of one."
    warnings.simplefilter("ignore")
    if name in BESIDE: name, case = name.removeprefix("mean-field "), case.replace("full covariance", "mean-field")
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(os.cpu_count())
    from vae_nb import Data, load_data
    whole, n = load_data("mnist", root=root, valid=0), CASES[case]["images"]
    data = Data(train=whole.train[:n].clone(), valid=whole.valid, test=whole.test[:0],
                labels={"train": whole.labels["train"][:n]})
    dtype = torch.bfloat16 if name.endswith("bf16") else None
    resident = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = resident()
    if name in OURS: run = ours(case, data, OURS[name])
    elif name.startswith("bare"): run = bare(case, data, dtype, "compiled" in name)
    elif name.startswith("products"): run = products(case, data, dtype)
    else: run = {"in memory": in_memory, "DataLoader": by_loader, "pythae": by_pythae}[name](case, data)
    for line in sys.stdin:
        if line.strip() == "profile":
            print(json.dumps(shares(run)), file=answers, flush=True)
            continue
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        print(json.dumps([len(data.train) / seconds, resident() - before]), file=answers, flush=True)


def race(case, names, rounds, root):
    "Median images per second and MiB of each contestant; the first round warms up."
    from log_likelihood import make_pythae
    workers = {}
    for name in names:
        python = make_pythae() if name == "pythae" else sys.executable
        words = [python, __file__, "--contestant", name, "--case", case, *(["--data", root] if root else [])]
        workers[name] = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True)
    def ask(name, question="round"):
        workers[name].stdin.write(question + "\n")
        workers[name].stdin.flush()
        answer = workers[name].stdout.readline()
        if not answer:
            raise RuntimeError(f"{name} ended early; run it by hand with --contestant {name!r} --case {case!r}")
        return json.loads(answer)

    answers = [{name: ask(name) for name in names} for _ in range(rounds + 1)][1:]
    profiles = {name: ask(name, "profile") for name in names if name in OURS}
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    found = {}
    for name in names:
        speeds, memory = zip(*(answer[name] for answer in answers))
        found[name] = dict(images_per_second=round(statistics.median(speeds)), rounds=list(map(round, speeds)),
                           memory_mib=round(max(memory)), **({"shares": profiles[name]} if name in profiles else {}))
    return found


def ratio(found, name, other):
    "The median over the rounds of how much faster `name` was than `other`, or nothing."
    if name not in found or other not in found: return ""
    return f"{statistics.median(a / b for a, b in zip(found[name]['rounds'], found[other]['rounds'])):.2f}"


def table(result):
    "Markdown: a table of speeds and their ratios, and one of where the time goes."
    heads = ("images/s", "slowest to fastest", "of pythae", "of DataLoader", "of in memory", "of mean field",
             "of bare step", "of products", "MiB")
    lines, shares = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)], []
    for case, found in result["cases"].items():
        lines.append(f"| **{case}**, batch {CASES[case]['batch_size']} |" + " |" * len(heads))
        in_memory = "in memory" if "in memory" in found else "mean-field in memory"
        for name, numbers in found.items():
            half = " bf16" if name.endswith("bf16") else ""
            others = ["pythae", "DataLoader", in_memory]
            if name in OURS or name.startswith("bare"):
                others += "mean-field fit", name.replace("fit", "bare"), f"products{half}"
            ratios = [ratio(found, name, other) for other in others] + [""] * (6 - len(others))
            speeds = f"{numbers['images_per_second']:,}", f"{min(numbers['rounds']):,} to {max(numbers['rounds']):,}"
            lines.append(" | ".join([f"| {name}", *speeds, *ratios, f"{numbers['memory_mib']:,} |"]))
            if "shares" not in numbers: continue
            shares.append(" | ".join([f"| {case}, {name}", *(f"{x:.0%}" for x in numbers["shares"].values())]) + " |")
    kinds = [*KINDS, "the rest"]
    heads = "| share of the time in | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)
    return "\n".join([*lines, "", *heads, *shares])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="cases whose names begin so")
    parser.add_argument("--data", default=os.environ.get("VAE_NB_DATA"), help="folder of MNIST")
    parser.add_argument("--no-pythae", action="store_true")
    parser.add_argument("--out", help="JSON file for the numbers")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant: return contestant(args.contestant, args.case, args.data)
    import torchvision
    from made_with import made_with
    from vae_nb.training.acceleration import has_bfloat16
    versions = dict(torchvision=torchvision.__version__, pythae="0.1.2")
    result = dict(**made_with(**versions), rounds=args.rounds, seed=0, cases={})
    start = time.perf_counter()
    for case in CASES:
        if args.only and not case.startswith(args.only): continue
        names = [*OURS, *LIMITS, *(BESIDE if "full" in case else OTHERS)]
        if args.no_pythae: names = [name for name in names if name != "pythae"]
        if not has_bfloat16(torch.device("cpu")):
            names = [name for name in names if name.startswith("products") or not name.endswith("bf16")]
        result["cases"][case] = race(case, names, args.rounds, args.data)
        for name, numbers in result["cases"][case].items():
            print(f"{case:32} {name:18} {numbers['images_per_second']:8,} images/s", flush=True)
    result["seconds"] = round(time.perf_counter() - start)
    print(table(result))
    if args.out: Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
