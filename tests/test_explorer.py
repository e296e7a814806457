"""Exported explorers compute in Chromium what PyTorch computes: every likelihood, network and activation."""
import pytest
import torch

from vae_nb.explore.web import export_explorer
from vae_nb.models.vae import create_vae
from vae_nb.networks.encoders import ACTIVATIONS

GREY, COLOUR = (1, 12, 10), (3, 13, 9)
CASES = {
    "pixelwise mlp": (GREY, dict(decoder="mlp", noise="pixelwise")),
    "pixelwise mlp int8": (GREY, dict(decoder="mlp", noise="pixelwise", hidden=(64, 48))),
    "imagewise mlp": (COLOUR, dict(decoder="mlp", noise="imagewise", posterior="full_covariance")),
    "homoscedastic linear": (COLOUR, dict(decoder="mlp", noise="homoscedastic", mean="identity", hidden=())),
    "bernoulli mlp": (GREY, dict(decoder="mlp", likelihood="bernoulli")),
    "pixelwise cnn": (COLOUR, dict(decoder="cnn", noise="pixelwise", channels=(16, 8))),
    "pixelwise cnn int8": (GREY, dict(decoder="cnn", noise="pixelwise", channels=(16, 8), kernel_size=5)),
    "imagewise cnn": (GREY, dict(decoder="cnn", noise="imagewise", channels=(8,), mean="identity")),
    "bernoulli cnn": (COLOUR, dict(decoder="cnn", likelihood="bernoulli", channels=(8,))),
} | {name: (GREY, dict(decoder="mlp", activation=name)) for name in ACTIVATIONS}


def page_of(tmp_path, case):
    "A page, its model with weights large enough to bring out every nonlinearity, and latents."
    image, options = CASES[case]
    torch.manual_seed(0)
    model = create_vae(image, latent_dim=5, **{"encoder": "mlp", "hidden": (32,), **options}).eval()
    with torch.no_grad():
        for weight in model.decoder.parameters(): weight.add_(0.3 * weight.std(correction=0) * torch.randn_like(weight))
    told = export_explorer(model, tmp_path / "page.html", torch.rand(4, *image).round(),
                           precision="int8" if "int8" in case else "float16")
    return model, told


@pytest.mark.parametrize("case", CASES)
def test_browser_agrees_with_torch(case, chromium, tmp_path):
    model, told = page_of(tmp_path, case)
    z = torch.randn(20, 5)
    tab = chromium.new_page()
    try:
        faults = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        shown = tab.evaluate("zs => zs.map(z => { const p = document.querySelector('main > div').explorer.decode(z);"
                             " return [[...p.mean], [...p.sigma]]; })", z.tolist())
        assert not faults
    finally: tab.close()
    mean, sigma = torch.tensor(shown).unbind(1)
    with torch.no_grad(): p = model.decode(z)
    mean_error = (mean - p.mean.flatten(1)).abs().max()
    sigma_error = ((sigma - p.stddev.flatten(1)) / p.stddev.flatten(1)).abs().max()
    print(f"{case}: mean {mean_error:.5f}, σ {sigma_error:.3%}")
    assert mean_error <= 0.02 and sigma_error <= 0.1
    if "int8" not in case: assert mean_error < 0.002 and sigma_error < 0.01  # half precision is much nearer


def test_page_is_accessible_and_fits_a_phone(chromium, tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    page_of(tmp_path, "pixelwise cnn")
    for scheme in ("light", "dark"):
        context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        tab = context.new_page()
        tab.goto((tmp_path / "page.html").as_uri())
        found = Axe().run(tab).response["violations"]
        assert not [f for f in found if f["impact"] in ("serious", "critical")], [f["id"] for f in found]
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        context.close()


def test_static_picture_without_javascript(chromium, tmp_path):
    page_of(tmp_path, "imagewise cnn")
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto((tmp_path / "page.html").as_uri())
    assert tab.locator("noscript img").is_visible()
    context.close()
