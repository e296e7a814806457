"""What does a training step cost with each posterior and prior? One thread, batches of 64 binary images of 784 pixels; into posteriors.json.

Every round times all of them, one after the other, so that a busy machine is unfair to none; ratios are medians over the rounds."""
import json
import statistics
import time
from pathlib import Path

import torch
from made_with import made_with

from vae_nb import create_vae, elbo
from vae_nb.training.fit import TrainingStep

POSTERIORS, PRIORS = ("mean_field", "full_covariance", "low_rank", "mixture", "flow"), ("mixture", "vamp", "flow")
FAMILIES = {f"posterior={name}": dict(posterior=name) for name in POSTERIORS} | {f"prior={name}": dict(prior=name) for name in PRIORS}
BASE, BATCH, HIDDEN, STEPS, ROUNDS = "posterior=mean_field", 64, 256, 3, 9


def trainer(latent_dim, options, x):
    "A call trains one step."
    torch.manual_seed(0)
    model = create_vae((1, 28, 28), latent_dim, "mlp", "mlp", hidden=(HIDDEN,), likelihood="bernoulli", **options)
    step, optimizer = TrainingStep(model, elbo, None, 1, None), torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def train():
        optimizer.zero_grad()
        value, _ = step(x)
        (-value / len(x)).backward()
        optimizer.step()
    return train


def measure(latent_dim):
    "Milliseconds a step, and the ratio to the mean-field posterior with a normal prior."
    x = torch.rand(BATCH, 1, 28, 28).round()
    trainers = {name: trainer(latent_dim, options, x) for name, options in FAMILIES.items()}
    times = {name: [] for name in trainers}
    for train in trainers.values(): train()
    for _ in range(ROUNDS):
        for name, train in trainers.items():
            start = time.perf_counter()
            for _ in range(STEPS): train()
            times[name].append(1000 * (time.perf_counter() - start) / STEPS)
    return {name: dict(ms=round(statistics.median(t), 2), fastest=round(min(t), 2), slowest=round(max(t), 2),
                       ratio=round(statistics.median(a / b for a, b in zip(t, times[BASE])), 2)) for name, t in times.items()}


if __name__ == "__main__":
    import zuko
    torch.set_num_threads(1)
    found = dict(made_with(zuko=zuko.__version__), batch=BATCH, hidden=HIDDEN, rounds=ROUNDS,
                 latents={d: measure(d) for d in (16, 64, 256)})
    Path(__file__).with_name("posteriors.json").write_text(json.dumps(found, indent=1) + "\n")
    print("|  |" + "|".join(f" L = {d}: ms | of mean-field " for d in found["latents"]) + "|")
    for name in FAMILIES:
        print(f"| {name} |" + "|".join(f" {row[name]['ms']:.1f} | {row[name]['ratio']:.2f} " for row in found["latents"].values()) + "|")
