"""Trains the small digit classifier whose features compare samples: vae_nb/bundled/digit_features.safetensors.

The training half of mnist-10k (8,000 digits), small shifts as augmentation; the accuracy on its 2,000 test digits is written
into the file, with versions. A minute of one core."""
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import save_file
from torch import nn

import vae_nb as v
from made_with import made_with
from vae_nb.evaluation.sample_quality import DigitFeatures

RESULT = Path(v.__file__).parent / "bundled" / "digit_features.safetensors"
EPOCHS, BATCH, LR = 20, 64, 2e-3


def shifted(x):
    "Each batch moved by up to two pixels."
    down, right = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (down, right), (2, 3))  # the border of a digit is black


def main():
    torch.manual_seed(0)
    data, network = v.load_data("mnist-10k", valid=0), DigitFeatures()
    classifier = nn.Sequential(network, nn.Dropout(0.3), nn.Linear(network.n_features, 10))
    x, y = data.train / 255, torch.as_tensor(data.labels["train"])
    steps = EPOCHS * (len(x) // BATCH)
    opt = torch.optim.AdamW(classifier.parameters(), lr=LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(x))[:len(x) // BATCH * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(classifier(shifted(x[rows])), y[rows], label_smoothing=0.1)
            opt.zero_grad(); loss.backward(); opt.step(); schedule.step()
    classifier.eval()
    with torch.no_grad(): right = classifier(data.test / 255).argmax(1) == torch.as_tensor(data.labels["test"])
    accuracy = right.double().mean().item()
    print(f"accuracy {accuracy:.4f} on {len(right)} test digits")
    save_file({name: t.half().contiguous() for name, t in network.state_dict().items()}, RESULT,
              {"accuracy": f"{accuracy:.4f}", "made": json.dumps(dict(script="benchmarks/digit_features.py", **made_with()))})


if __name__ == "__main__": main()
