"""Exported files, run without this library."""
import os
import subprocess
import sys

import pytest
import torch

from vae_nb import InputError, create_vae, evaluating
from vae_nb.apply.export import export_model

ALONE = """
import sys, torch
sys.modules["vae_nb"] = None  # any import of it fails
encoder, decoder = (torch.export.load(name).module() for name in ("encoder.pt2", "decoder.pt2"))
x = torch.load("x.pt")
torch.save([*encoder(x), *decoder(encoder(x)[0])], "out.pt")
"""
KINDS = [("cnn", "full_covariance", dict(noise="imagewise")),
         ("mlp", "mean_field", dict(likelihood="discretised_logistic")), ("cnn", "mean_field", dict(noise="imagewise", roughness=True)),
         ("cnn", "mean_field", dict(noise="faithful")), ("mlp", "mean_field", dict(likelihood="student_t"))]


def moments(model, x):
    "What the files should give."
    with evaluating(model):
        q = model.encode(x)
        p = model.decode(q.mean)
    return [q.mean, q.stddev, p.mean, p.stddev]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}-{next(iter(kind[2].values()))}")
def model(request):
    network, posterior, options = request.param
    torch.manual_seed(0)
    return create_vae((3, 14, 11), 4, network, network, posterior, hidden=(16,), channels=(4, 4), **options)


def test_torch_alone(tmp_path):
    "PyTorch reads the files where vae_nb can't be imported."
    torch.manual_seed(0)
    model, x = create_vae((3, 14, 11), 4, "cnn", "cnn", channels=(4, 4)), torch.rand(5, 3, 14, 11)
    export_model(model, tmp_path)
    torch.save(x, tmp_path / "x.pt")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, env=env, check=True)
    for found, wanted in zip(torch.load(tmp_path / "out.pt"), moments(model, x), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_flow_is_refused(tmp_path):
    model = create_vae((3, 14, 11), 4, "mlp", "mlp", "flow", hidden=(16,))
    with pytest.raises(InputError, match="FlowPosterior knows no mean"): export_model(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_onnx(model, tmp_path):
    "ONNX Runtime gives what PyTorch gives, for batches of other sizes than the one that was traced."
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    files = export_model(model, tmp_path / "onnx", "onnx")
    run = {}
    for part, path in files.items():
        session = runtime.InferenceSession(str(path))
        [given] = session.get_inputs()
        run[part] = lambda x, session=session, name=given.name: session.run(["mean_out", "stddev_out"], {name: x})
    for n in (1, 6):
        x = torch.rand(n, 3, 14, 11)
        mean, stddev = run["encoder"](x.numpy())
        for found, wanted in zip([mean, stddev, *run["decoder"](mean)], moments(model, x), strict=True):
            torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == ["decoder.onnx", "encoder.onnx"]
