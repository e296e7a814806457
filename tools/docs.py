"""Builds the site from the notebooks: `docs.py build` with Quarto, `docs.py site` without it, and `docs.py preview [PORT]`
shows the latter.

`docs.py process` does only the first step, and fails if some symbol can't be documented."""
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import webbrowser
from configparser import ConfigParser
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROC, DOCS = ROOT / "_proc", ROOT / "_docs"
KATEX, KATEX_FILES = "katex@0.16.47", ("katex.min.js", "katex.min.css", "contrib/auto-render.min.js", "fonts/*.woff2")


def process():
    "Notebooks with the documentation of every symbol, in _proc. (nbdev_docs would do it too, and download Quarto.)"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    shutil.rmtree(PROC, ignore_errors=True)
    refresh_quarto_yml()  # nbs/nbdev.yml, from settings.ini
    _build_modidx()
    proc_nbs(n_workers=2)


def add_katex():
    "KaTeX beside the pages: formulas need no other site. It is fetched once, with npm, and kept in .venv."
    kept = ROOT / ".venv" / KATEX
    if not (kept / "fonts").exists():
        if not shutil.which("npm"): raise SystemExit("npm is needed once, to fetch KaTeX: https://nodejs.org")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["npm", "pack", "--silent", KATEX], cwd=folder, check=True)
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive: archive.extractall(folder, filter="data")
            dist = Path(folder) / "package" / "dist"
            for file in (f for pattern in KATEX_FILES for f in dist.glob(pattern)):
                (kept / file.relative_to(dist)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, kept / file.relative_to(dist))
    shutil.copytree(kept, PROC / "katex")


def build():
    "The site in _docs. Quarto ends well on broken links too, so its log is read."
    if not shutil.which("quarto"):
        raise SystemExit("Quarto is not installed (https://quarto.org); `make preview` shows the site without it")
    process()
    add_katex()
    quarto = subprocess.Popen(["quarto", "render", "--no-cache", "--no-execute"], cwd=PROC, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    broken = []
    for line in quarto.stdout:
        print(line, end="", flush=True)
        if "Unable to resolve link target" in line: broken.append(line.strip())
    if quarto.wait(): raise SystemExit(quarto.returncode)
    if broken: raise SystemExit(f"{len(broken)} broken links:\n" + "\n".join(broken))
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(PROC / DOCS.name, DOCS)
    relative_links()


def site():
    "The site in _docs by smalldocs, which reads _quarto.yml too and is close to what Quarto makes."
    import smalldocs.layout
    from smalldocs.config import load
    from smalldocs.site import Site

    class Renamed(Site):
        "A page is called what nbdev calls it, as with Quarto: 05_posteriors.ipynb becomes posteriors.html."
        def read(self, src):
            page = super().read(src)
            page.out = page.out.with_name(page.front.get("output-file", page.out.name))
            return page

    process()
    add_katex()
    smalldocs.layout.KATEX = "/katex"  # in place of a CDN
    built = Renamed(load(PROC), quiet=True)
    pages = built.build()
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(built.out, DOCS)
    relative_links()
    print(f"{pages} pages in {DOCS.name}")
    for warning in built.warnings: print("warning:", warning)


def relative_links():
    "Links within the site depend on no address: it works from any folder of any host, and offline."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    here = config["DEFAULT"]["doc_host"] + config["DEFAULT"]["doc_baseurl"]
    for page in DOCS.rglob("*.html"):
        up = "../" * (len(page.relative_to(DOCS).parts) - 1) or "./"
        text = page.read_text(encoding="utf-8")
        text = re.sub(rf'(<(?:a|link|script)\b[^>]*\s(?:href|src)=")(?:{re.escape(here)}/?|/(?=katex/))', rf"\1{up}", text)
        page.write_text(text, encoding="utf-8")


def preview(port=4200):
    "The same site, shown in a browser until Ctrl-C."
    site()
    handler = partial(SimpleHTTPRequestHandler, directory=DOCS)
    with ThreadingHTTPServer(("127.0.0.1", int(port)), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"{address} (Ctrl-C to stop)", flush=True)
        if sys.stdout.isatty(): webbrowser.open(address)
        with suppress(KeyboardInterrupt): server.serve_forever()


if __name__ == "__main__":
    {"process": process, "build": build, "site": site, "preview": preview}[sys.argv[1]](*sys.argv[2:])
