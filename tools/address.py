"""Writes the repository's address, which is settled in settings.ini, wherever it stands; `--check` only compares.

What stands for an address is told by its shape (a clone line, a badge, a link to a file of ours), so a new address in
settings.ini needs no search for the old one."""
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORD = r"[\w.-]+"


def settings():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


def shapes():
    "Pattern and replacement for every shape in which the address is written."
    s = settings()
    home, branch = s["git_url"], s["branch"]
    owner = home.removeprefix("https://github.com/")
    ours = "|".join(re.escape(p.name) for p in ROOT.iterdir() if not p.name.startswith(".") and p.name != "runs")
    return {rf"(colab\.research\.google\.com/github/){WORD}/{WORD}/blob/{WORD}/(nbs/)": rf"\g<1>{owner}/blob/{branch}/\2",
            rf"(mybinder\.org/v2/gh/){WORD}/{WORD}/{WORD}(\?urlpath=lab/tree/nbs/)": rf"\g<1>{owner}/{branch}\2",
            rf"(git clone )https://\S+ && cd {WORD}": rf"\1{home} && cd {home.rpartition('/')[2]}",
            rf"(git\+)https://github\.com/{WORD}/{WORD}": rf"\1{home}",
            rf"https://github\.com/{WORD}/{WORD}/(blob|tree)/{WORD}/({ours})\b": rf"{home}/\1/{branch}/\2",
            r"(repository-code: )\S+": rf"\1{home}",
            r"(?m)^(url: )\S+": rf"\g<1>{s['doc_host']}{s['doc_baseurl']}",
            r"(text: GitHub\n +href: )\S+": rf"\1{home}"}


def files():
    yield from (ROOT / "CITATION.cff", ROOT / "_quarto.yml", ROOT / "README.md", ROOT / "SECURITY.md")
    yield from (p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts)
    yield from sorted((ROOT / ".github").rglob("*.yml"))


def main():
    wrong = []
    for path in files():
        before = text = path.read_text(encoding="utf-8")
        for shape, address in shapes().items(): text = re.sub(shape, address, text)
        if text == before: continue
        wrong.append(str(path.relative_to(ROOT)))
        if "--check" not in sys.argv[1:]: path.write_text(text, encoding="utf-8")
    if wrong and "--check" in sys.argv[1:]: raise SystemExit(f"other addresses than in settings.ini: {wrong}; run `make readme`")


if __name__ == "__main__":
    main()
