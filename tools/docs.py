"""Builds the site from the notebooks: `docs.py build` with Quarto, `docs.py preview [PORT]` without it.

`docs.py process` does only the first step, and fails if some symbol can't be documented."""
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
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


def preview(port=4200):
    "The site by smalldocs, which reads _quarto.yml too; close to what Quarto makes, for looking at."
    if not find_spec("smalldocs"):
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "smalldocs>=0.5"], check=True)
    import smalldocs.layout
    from smalldocs.serve import preview
    process()
    add_katex()
    smalldocs.layout.KATEX = "/katex"  # in place of a CDN
    raise SystemExit(preview(PROC, port=int(port), open_browser=sys.stdout.isatty()))


if __name__ == "__main__":
    {"process": process, "build": build, "preview": preview}[sys.argv[1]](*sys.argv[2:])
