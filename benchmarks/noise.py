"""Which noise model gives good means, true σ and probable images? Nine of them on MNIST, Fashion-MNIST and images of known σ.

The same networks, images and steps for all; several seeds. Images of 8 bits are counted in bits for each pixel's *level*: the
probability that a density gives to the interval of one level. So Gaussians, Laplace and Student-t can be compared, whatever the
height of their densities. Writes benchmarks/noise.json: settings, numbers, seconds of one thread, versions. An hour of one core;
it can be stopped, and goes on."""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.stats
import torch
from torch.distributions import Independent

import vae_nb as v
from defaults import against_truth
from made_with import add_runs

RESULT = Path(__file__).with_suffix(".json")
MODEL = dict(latent_dim=16, encoder="mlp", decoder="mlp", hidden=(512, 256))
FIT = dict(epochs=20, batch_size=64, lr=2e-3)
LIMIT = 12_500 # images of Fashion-MNIST's training set, of which a fifth is for validation
ROWS = {       # name -> options of create_vae, and of fit
    "homoscedastic": (dict(noise="homoscedastic"), dict()),
    "optimal": (dict(noise="optimal"), dict()),
    "pixelwise, NLL": (dict(noise="pixelwise"), dict()),
    "pixelwise, noise warm-up": (dict(noise="pixelwise"), dict(noise_warmup=0.2)),
    "pixelwise, β-NLL ½": (dict(noise="pixelwise"), dict(beta_nll=0.5, kl_weight=0.1)),
    "pixelwise, β-NLL 1": (dict(noise="pixelwise"), dict(beta_nll=1.0, kl_weight=0.01)),
    "faithful": (dict(noise="faithful"), dict()),
    "Student-t, pixelwise": (dict(likelihood="student_t", noise="pixelwise"), dict()),
    "Student-t, β-NLL ½": (dict(likelihood="student_t", noise="pixelwise"), dict(beta_nll=0.5, kl_weight=0.1)),
}
KINDS = "mnist-10k", "fashion-mnist", "noisy-pixelwise"
LOG_CDF = {"Normal": scipy.stats.norm.logcdf, "StudentTPixels": lambda e: scipy.stats.t.logcdf(e, 5)} # of standardised errors


def loaded(kind):
    if kind != "fashion-mnist": return v.load_data(kind, progress=False)
    return v.load_data(kind, limit=LIMIT, valid=0.2, progress=False)


def level_log_prob(p, x):
    "Log-probability of the levels of 8-bit images, summed over an image; the tails belong to black and white."
    base, h = p.base_dist, 0.5 / 255
    log_cdf = LOG_CDF[type(base).__name__]
    mean, scale, x = base.loc.double().numpy(), base.scale.double().numpy(), np.rint(255 * x.double().numpy()) / 255
    error = np.abs(x - mean)  # all families are symmetric: each interval is looked at from the side where it is a lower tail
    outer = log_cdf(-(error - h) / scale)
    inner = log_cdf(-(error + h) / scale)
    inside = outer + np.log1p(-np.exp(np.minimum(inner - outer, -1e-12)))
    end = (x < h) & (mean > x) | (x > 1 - h) & (mean < x)  # black or white, beyond the mean: the whole tail
    far = (x < h) & (mean <= x) | (x > 1 - h) & (mean >= x)  # the mean lies beyond the end
    return np.where(far, log_cdf((error + h) / scale), np.where(end, outer, inside)).sum((-3, -2, -1))


def bits_per_level(model, data):
    "−(E_q log P(x|z) − KL) / (pixels · log 2) over the test images, P the probability of their levels; one sample of z."
    total = 0.0
    with v.evaluating(model):
        for x in data.batches("test", 250, shuffle=False):
            terms = model(x)
            total += level_log_prob(terms.p, terms.x)[0].sum() - terms.kl.double().sum().item()
    return -total / (len(data.test) * np.prod(model.image_shape) * np.log(2))


def run(kind, name, seed):
    data, (model, fit) = loaded(kind), ROWS[name]
    torch.manual_seed(seed)
    model = v.create_vae(data, **MODEL, **model)
    start = time.process_time()
    v.fit(model, data, seed=seed, progress=False, **FIT, **fit)
    seconds = round(time.process_time() - start, 1)
    found = v.calibration(model, data, threshold=0.05)
    row = dict(training_cpu_seconds=seconds, test=v.evaluate(model, data),
               sigma_floor=model.config["sigma_floor"], calibration={name: found["varying"][name] for name in (
                   "calibration_error", "coverage_randomised")})
    if kind.startswith("noisy"): return row | dict(truth=against_truth(model, data))
    return row | dict(bits=bits_per_level(model, data))


def check():
    "Levels have probabilities that add up to one."
    p = Independent(torch.distributions.Normal(torch.tensor([[[0.01, 0.5, 1.1]]]), torch.tensor([[[0.3, 0.001, 0.05]]])), 3)
    levels = torch.arange(256)[:, None, None, None] / 255
    each = np.stack([np.exp(level_log_prob(Independent(torch.distributions.Normal(p.mean[..., [i]], p.stddev[..., [i]]), 3), levels))
                     for i in range(3)])
    assert np.allclose(each.sum(1), 1, atol=1e-9), each.sum(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="of images")
    parser.add_argument("--names", nargs="+", default=[*ROWS], help="of rows")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    check()
    jobs = [dict(kind=kind, name=name, seed=seed) for seed in range(given.seeds) for kind in given.kinds for name in given.names]
    add_runs(RESULT, jobs, run, lambda row: (row["training_cpu_seconds"], row.get("bits"), row["test"], row.get("truth", "")),
             model=MODEL, fit=FIT, limit=LIMIT)


if __name__ == "__main__": main()
