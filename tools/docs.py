"""Builds the site from the notebooks: `docs.py build` with Quarto, `docs.py site [FOLDER]` without it, and
`docs.py preview [PORT]` shows the latter.

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
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
ADDRESS = SETTINGS["DEFAULT"]["doc_host"] + SETTINGS["DEFAULT"]["doc_baseurl"]
KATEX, KATEX_FILES = "katex@0.16.47", ("katex.min.js", "katex.min.css", "contrib/auto-render.min.js", "fonts/*.woff2")


def process():
    "Notebooks with the documentation of every symbol, in _proc. (nbdev_docs would do it too, and download Quarto.)"
    from nbdev.doclinks import _build_modidx
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    from vae_nb import export_playground
    shutil.rmtree(PROC, ignore_errors=True)
    refresh_quarto_yml()  # nbs/nbdev.yml, from settings.ini
    _build_modidx()
    proc_nbs(n_workers=2)
    (PROC / "api.qmd").write_text(api(), encoding="utf-8")
    export_playground(PROC / "live" / "playground.html", site="..")


def api():
    "A page that lists every public name by room, with what it is and where it is explained."
    import vae_nb
    from vae_nb._modidx import d
    rooms, titles = {}, {}
    for line in (ROOT / "vae_nb" / "__init__.pyi").read_text(encoding="utf-8").splitlines():
        if title := re.match(r"# (\w+): (.*)", line): titles[title[1]] = title[2]
    for module, symbols in d["syms"].items():
        places = {name.removeprefix(f"{module}."): place for name, (place, _) in symbols.items()}
        for name in set(places) & set(vae_nb.__all__):
            rooms.setdefault(module.split(".")[1], []).append((name, module, places[name]))
    lines = ["---", "title: API", "description: Every public name, and where it is explained", "---", "",
             f"The {len(vae_nb.__all__)} names that the package offers, by room. Each can be reached from the top, "
             "`import vae_nb as v; v.NAME`; `help(v.NAME)` shows its parameters with shapes and units.", ""]
    for room, title in titles.items():
        lines += [f"## {room}", "", f"{title[0].upper()}{title[1:]}.", "", "| name | what it is |", "|---|---|"]
        for name, _, place in sorted(rooms[room], key=lambda row: (row[1], row[0].lower())):
            told = getattr(vae_nb, name).__doc__.strip().splitlines()[0].replace("|", "\\|")
            lines.append(f"| [`{name}`]({ADDRESS}/{place}) | {told} |")
        lines.append("")
    return "\n".join(lines)


def add_katex():
    "KaTeX beside the pages: formulas need no other site. It is fetched once, with npm, and kept in the environment."
    kept = Path(sys.prefix) / KATEX
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
    finish(DOCS)


def site(folder=DOCS):
    "The site in `folder` by smalldocs, which reads _quarto.yml too and is close to what Quarto makes."
    import smalldocs.layout
    from smalldocs.config import load
    from smalldocs.site import Site

    class Renamed(Site):
        "A page is called what nbdev calls it, as with Quarto: 00_posteriors.ipynb becomes posteriors.html."
        def read(self, src):
            page = super().read(src)
            page.out = page.out.with_name(page.front.get("output-file", page.out.name))
            return page

    process()
    add_katex()
    smalldocs.layout.KATEX = "/katex"  # in place of a CDN
    plain = Path(smalldocs.__file__).parent / "assets" / "vendor" / "bootstrap" / "bootstrap.min.css"
    dark = plain.read_text(encoding="utf-8").replace("[data-bs-theme=dark]", ":root")
    (PROC / "bootstrap-dark.css").write_text(dark, encoding="utf-8")
    built, folder = Renamed(load(PROC), quiet=True), Path(folder).resolve()
    built.out = folder
    print(f"{built.build()} pages in {folder.name}")
    finish(folder)
    for warning in built.warnings:
        if not re.search("output-file is not read|html-math-method is ignored", warning): print(warning)


def finish(folder):
    "Links that depend on no address, so that the site works from any folder of any host and offline; no mute controls."
    repairs = {
        rf'(<(?:a|link|script)\b[^>]*\s(?:href|src)=")(?:{re.escape(ADDRESS)}/?|/(?=katex/))': r"\1UP",
        r"<pre(?=[ >])(?![^>]*tabindex)": '<pre tabindex="0"',  # what scrolls must be reached by keyboard
        r'(<i class="bi [^"]*") role="img"(?=>)': r'\1 aria-hidden="true"'}  # beside it stands a text
    texts = {page: page.read_text(encoding="utf-8") for page in folder.rglob("*.html")}
    ids = {page.name: set(re.findall(r'\sid="([^"]+)"', text)) for page, text in texts.items()}

    def to_anchor(link):
        "Names without an anchor of their own: a method is linked under its class, a helper on its page."
        start, page, anchor = link.groups()
        known = ids.get(page, {anchor})
        anchor = next((a for a in (anchor, anchor.partition(".")[0]) if a in known), None)
        return f"{start}{page}" + (f"#{anchor}" if anchor else "") + chr(34)

    for page, text in texts.items():
        up = "../" * (len(page.relative_to(folder).parts) - 1) or "./"
        for fault, repaired in repairs.items(): text = re.sub(fault, repaired.replace("UP", up), text)
        text = re.sub(r'(<a\b[^>]*\shref="[^"#:]*?)([\w-]+\.html)#([^"]+)"', to_anchor, text)
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
