"""Exported explorers: clean scripts, which compute in Chromium what PyTorch computes, for every kind of model."""
import json
import shutil
import subprocess

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

ESLINT = "eslint@9.39.5"  # fetched by npx once, and kept in npm's cache
RULES = ("no-undef no-unused-vars no-redeclare no-const-assign no-dupe-keys no-unreachable no-self-assign "
         "no-fallthrough no-cond-assign no-loss-of-precision no-empty no-var prefer-const eqeqeq use-isnan "
         "valid-typeof").split()
GLOBALS = "document,atob,ImageData"  # of the browser, that the script uses


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


def test_each_script_parses(root):
    if not shutil.which("node"): pytest.skip("Node is not installed")
    scripts = sorted((root / "vae_nb" / "explore" / "assets").glob("*.js"))
    assert len(scripts) == 7
    for script in scripts: subprocess.run(["node", "--check", script], check=True)


def test_whole_script_passes_eslint(tmp_path):
    "The pieces share one scope, so names are checked in the whole: none unknown, unused or declared twice."
    if not shutil.which("npx"): pytest.skip("npx, which fetches ESLint, is not installed")
    model = create_vae(GREY, 2, "mlp", "mlp", hidden=(8,))
    export_explorer(model, tmp_path / "page.js", torch.rand(2, *GREY))
    rules = json.dumps(dict.fromkeys(RULES, "error"))
    words = ["npx", "--yes", ESLINT, "--no-config-lookup", "--no-inline-config", "--parser-options",
             "sourceType:script", "--global", GLOBALS, "--rule", rules, "page.js"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    if "npm error" in done.stderr: pytest.skip(f"ESLint can't be fetched: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "page.js").write_text("const unused = unknown;\n")
    wrong = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=240).stdout
    assert "no-unused-vars" in wrong and "no-undef" in wrong  # the check can fail


def test_notebooks_show_the_files(root):
    "A notebook stores what it shows of a file; it must be the file as it is."
    folder = root / "nbs" / "explore"
    cells = [cell for path in sorted(folder.glob("*.ipynb")) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    shown = "\n".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    for asset in sorted(path for path in (root / "vae_nb" / "explore" / "assets").rglob("*") if path.is_file()):
        assert asset.read_text("utf-8") in shown, f"{asset.name} has changed: execute the notebook that shows it"


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
