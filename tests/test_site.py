"""The site as its readers get it: built without Quarto, served from a sub-path, read in a real browser."""
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from bs4 import BeautifulSoup
from torch import nn

PAGES = {"front": "index.html", "component": "distributions/posteriors.html", "tutorial": "tutorials/first_vae.html"}
TEX = re.compile(r"\$\$|\\\(|\\\[|\\(?:begin|frac|math|log|sigma|mu|mid|sum)\b|\$[^$\n]*\\[a-z]+[^$\n]*\$")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope="session")
def site(root, tmp_path_factory):
    "The folder of the built site; /vae_nb below its parent, as on the web."
    if not list(Path(sys.prefix).glob("katex@*")) and not shutil.which("npm"):
        if os.environ.get("VAE_NB_BROWSER") == "required": pytest.fail("npm, which fetches KaTeX, is not installed")
        pytest.skip("npm, which fetches KaTeX, is not installed")
    folder = tmp_path_factory.mktemp("site") / "vae_nb"
    done = subprocess.run([sys.executable, "tools/docs.py", "site", folder], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert 500_000 < (folder / "live" / "playground.html").stat().st_size <= 1_500_000  # it is made with the site
    return folder


@pytest.fixture(scope="session")
def address(site):
    handler = partial(Quiet, directory=site.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/vae_nb/"
        server.shutdown()


@pytest.fixture(scope="session")
def pages(site):
    return {page.relative_to(site): BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
            for page in sorted(site.rglob("*.html"))}


@pytest.fixture
def visit(chromium, address):
    "Opens a page; afterwards no error may have shown in the console, and nobody else been asked for anything."
    contexts, faults = [], []

    def open_page(page, **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url))
        tab.on("response", lambda r: faults.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(address + page, wait_until="load")
        return tab

    yield open_page
    for context in contexts: context.close()
    assert not faults


def test_links_lead_somewhere(site, pages):
    ids = {page: {tag["id"] for tag in soup.find_all(id=True)} for page, soup in pages.items()}
    checked, broken = 0, []
    for page, soup in pages.items():
        for tag in soup.find_all(["a", "img", "script", "link", "source", "iframe"]):
            link = tag.get("href") or tag.get("src")
            if not link or link.startswith(("data:", "mailto:", "javascript:")): continue
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if tag.name != "a": broken.append(f"{page}: loads {link} from elsewhere")
                if "vae-nb.github.io" in url.netloc: broken.append(f"{page}: {link} leads away from this copy")
                continue
            checked += 1
            target = (site / page.parent / unquote(url.path)).resolve() if url.path else site / page
            if target.is_dir(): target /= "index.html"
            if not target.is_file(): broken.append(f"{page}: {link}")
            elif (url.fragment and target.suffix == ".html"
                  and unquote(url.fragment) not in ids[target.relative_to(site)]):
                broken.append(f"{page}: {link} (no such anchor)")
    print(f"{len(pages)} pages, {checked} internal links")
    assert checked > 20 * len(pages) and not broken, "\n".join(broken)


def test_every_figure_has_its_place_and_words(root, pages):
    shown, missing = 0, []
    for page, soup in pages.items():
        for image in soup.select("main img"):
            if not (image.get("alt") or "").strip(): missing.append(f"{page}: an image without alternative text")
        for figure in soup.select("main div.cell-output-display figure"):
            if not figure.find("figcaption"): missing.append(f"{page}: a figure without caption")
        drawn, stem = len(soup.select("main .cell-output-display img, main .cell-output-display svg")), page.stem
        shown += drawn
        for notebook in (root / "_proc").rglob("*.ipynb"):  # as the build left them, without hidden cells
            cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            front = "".join(cells[0]["source"]) if cells[0]["cell_type"] == "raw" else ""
            if notebook.relative_to(root / "_proc").parent != page.parent: continue
            if f"output-file: {stem}.html" not in front: continue
            drawings = sum(any(kind.startswith("image/") for kind in output.get("data", {})) for cell in cells
                           if not re.search(r"^#\| *(include|output): *false", "".join(cell["source"]), re.M)
                           for output in cell.get("outputs", []))
            if drawn < drawings: missing.append(f"{page}: {drawn} of {drawings} figures")
    assert shown > 20 and not missing, "\n".join(missing)


def raw_tex(text):
    "The first formula that is shown as it was written, with its surroundings."
    found = TEX.search(text)
    return found and text[max(found.start() - 40, 0):found.end() + 40]


def test_pages_show_neither_tex_nor_tracebacks(pages, visit):
    faults, formulas = [], []
    for page, soup in pages.items():
        main = BeautifulSoup(str(soup.find("main")), "html.parser")
        if "Traceback (most recent call last)" in main.get_text() or main.select(".cell-output-error"):
            faults.append(f"{page}: a traceback")
        if page.parts[0] != "live" and not soup.select(".nav-page a"): faults.append(f"{page}: neither previous nor next")
        for math in main.select(".math"): formulas.append((str(page), math.extract().get_text().strip()[2:-2]))
        for code in main.select("pre, code, script, noscript"): code.extract()
        if raw := raw_tex(main.get_text()): faults.append(f"{page}: raw TeX: {raw!r}")
    tab = visit(PAGES["component"])  # where KaTeX is loaded: can it set the formulas of all pages?
    faults += tab.evaluate("""formulas => formulas.flatMap(([page, tex]) => {
        try { katex.renderToString(tex, {strict: false}); return []; }
        catch (error) { return [`${page}: ${error.message}`]; }
    })""", formulas)
    print(f"{len(formulas)} formulas")
    assert len(formulas) > 100 and not faults, "\n".join(faults)


def test_search_finds_pixelwise(visit):
    tab = visit("index.html")
    box = tab.locator("input[type=search]").first
    box.click()
    box.press_sequentially("pixelwise")
    found = tab.locator("a[href*='likelihoods.html']").filter(has_text=re.compile("pixelwise", re.I)).first
    found.wait_for()
    found.click()
    tab.wait_for_url("**/likelihoods.html*")


def front_model(root):
    "The decoder in PyTorch, made of what digits.js holds."
    script = (root / "nbs" / "live" / "digits.js").read_text()
    spec, data = (json.loads(re.search(rf"^const {name} = (.*);$", script, re.M)[1]) for name in ("SPEC", "DATA"))
    data = base64.b64decode(data)

    def read(place):
        kind = getattr(torch, place["type"])
        x = torch.frombuffer(bytearray(data), dtype=kind, count=place["n"], offset=place["at"]).float()
        return (x.view(place["scale"]["n"], -1) * read(place["scale"])[:, None]).flatten() if "scale" in place else x

    layers = []
    for layer in spec["layers"]:
        if layer["kind"] == "linear":
            weight, bias = read(layer["weight"]), read(layer["bias"])
            layers.append(nn.Linear(len(weight) // len(bias), len(bias)))
            layers[-1].weight.data, layers[-1].bias.data = weight.view(len(bias), -1), bias
        else: layers.append(dict(silu=nn.SiLU(), relu=nn.ReLU())[layer["kind"]])
    from vae_nb.distributions.likelihoods import PixelwiseGaussian
    return nn.Sequential(*layers, nn.Unflatten(1, (2, 28, 28)), PixelwiseGaussian((1, 28, 28)))


HOST = "[...document.querySelectorAll('*')].find(e => e.explorer).explorer"


def test_front_page_explorer_is_the_model(root, visit):
    tab = visit("index.html")
    z = 1.5 * torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    decoded = f"zs => zs.map(z => {{ const p = {HOST}.decode(z); return [[...p.mean], [...p.sigma]]; }})"
    shown = tab.evaluate(decoded, z.tolist())
    mean, sigma = torch.tensor(shown).unbind(1)
    with torch.no_grad(): p = front_model(root)(z)
    torch.testing.assert_close(mean, p.mean.flatten(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(sigma, p.stddev.flatten(1), atol=1e-6, rtol=1e-3)
    told = json.loads((root / "nbs" / "live" / "digits.json").read_text())["page"]  # rounding, measured when made
    size = (root / "nbs" / "live" / "digits.js").stat().st_size
    assert told["bytes"] == size <= 600_000 and told["mean_error"] <= 0.02 and told["sigma_error"] <= 0.1


def test_front_page_explorer_obeys_mouse_finger_and_keys(visit):
    tab = visit("index.html", viewport={"width": 390, "height": 844}, has_touch=True)
    canvas = HOST.replace(").explorer", ").shadowRoot.querySelector('canvas')")
    def latent(): return tab.evaluate(f"[...{HOST}.latent]")
    def picture(): return tab.evaluate(f"{canvas}.toDataURL()")

    seen = [latent()], [picture()]
    slider = tab.get_by_label("latent 3 of 8")

    def changed():
        assert latent() != seen[0][-1] and picture() != seen[1][-1]
        seen[0].append(latent())
        seen[1].append(picture())

    slider.focus()
    for _ in range(30): slider.press("ArrowRight")
    changed()
    tab.get_by_role("button", name="an image of class 7").click()
    changed()
    tab.get_by_role("button", name="random").click()
    changed()
    pad = tab.get_by_label("place between four presets")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    tab.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.9 * box["height"])
    changed()
    tab.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    changed()
    pad.focus()
    for _ in range(4): pad.press("ArrowLeft")
    changed()
    assert pad.get_attribute("aria-valuetext") == "70 % across, 10 % down"
    tab.get_by_role("button", name="other corners").click()
    changed()


def test_front_page_without_javascript(visit):
    tab = visit("index.html", java_script_enabled=False)
    picture = tab.locator("img[src='live/digits.png']")
    assert picture.is_visible() and picture.bounding_box()["width"] > 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_pages_are_accessible(kind, scheme, visit, artefacts):
    from axe_playwright_python.sync_playwright import Axe
    tab = visit(PAGES[kind], color_scheme=scheme)
    tab.wait_for_timeout(300)  # the scheme's last rules come with a delay
    tab.screenshot(path=artefacts / f"{kind}_{scheme}.png")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c < 90)")
    assert dark == (scheme == "dark")
    text = tab.evaluate("""() => { const main = document.querySelector('main').cloneNode(true);
        main.querySelectorAll('pre, code, script, noscript, .katex').forEach(e => e.remove());
        return main.textContent; }""")
    assert not raw_tex(text) and not tab.query_selector(".katex-error")
    assert kind == "front" or tab.query_selector(".katex")
    grave = [f for f in Axe().run(tab).response["violations"] if f["impact"] in ("serious", "critical")]
    told = [f"{f['id']} ({f['impact']}): {node['html'][:150]}" for f in grave for node in f["nodes"][:4]]
    assert not grave, "\n".join(told)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_timeout(500)  # the sidebar slides away
    tab.screenshot(path=artefacts / f"{kind}_{scheme}_phone.png")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
