"""Makes README.md from nbs/index.ipynb, without Quarto; `--check` only says whether the two agree."""
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK, README = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"
HEADER = "<!-- Made from nbs/index.ipynb by `make readme`: edit the notebook. -->\n"


def from_root(target):
    "A link of the notebook as a link from the top folder; it must lead somewhere."
    if re.match(r"[a-z]+:|#|/", target): return target
    path, _, anchor = target.partition("#")
    file = (NOTEBOOK.parent / path).resolve()
    if not file.exists(): raise SystemExit(f"{NOTEBOOK.name} refers to {path}, which is not there")
    return str(file.relative_to(ROOT)) + (f"#{anchor}" if anchor else "")


def captioned(m):
    "Quarto's figure, a line `![caption](image){fig-alt=...}`, as an image with that text and a caption below."
    caption, target, alt = m[1], m[2], re.search(r'fig-alt="([^"]*)"', m[3])
    return f"![{alt[1]}]({target})\n\n*{caption}*" if alt and caption else f"![{alt[1] if alt else caption}]({target})"


def markdown(source):
    "Text with links from the top folder; code stays as it is."
    parts = re.split(r"(^```.*?^```|`[^`\n]*`)", source, flags=re.M | re.S)
    for i in range(0, len(parts), 2):
        text = re.sub(r'(\]\(|src="|href=")([^)\s"]+)', lambda m: m[1] + from_root(m[2]), parts[i])
        parts[i] = re.sub(r"^!\[(.*)\]\((\S+)\)\{(.*)\} *$", captioned, text, flags=re.M)
    return "".join(parts)


def shown(output, place):
    "An output as text, fenced."
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        raise SystemExit(f"{place} shows an image: save it in nbs/images and refer to it, then the README has it too")
    if "text/markdown" in data: return data["text/markdown"].strip()
    text = output.get("text") or data.get("text/plain", "")
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def render():
    "README.md as it should be."
    blocks = [HEADER]
    for i, cell in enumerate(nbformat.read(NOTEBOOK, as_version=4).cells):
        lines = cell.source.strip().splitlines()
        options = dict(re.findall(r"^#\|\s*([\w-]+):?\s*(.*)$", "\n".join(lines), flags=re.M))
        if "hide" in options or options.get("include") == "false" or cell.cell_type == "raw": continue
        if cell.cell_type == "markdown": blocks.append(markdown("\n".join(lines)))
        else:
            code = "\n".join(line for line in lines if not line.startswith("#|")).strip()
            if code and options.get("echo") != "false": blocks.append(f"```python\n{code}\n```")
            if options.get("output") != "false": blocks += [shown(output, f"cell {i}") for output in cell.outputs]
    return "\n\n".join(block.strip() for block in blocks if block.strip()) + "\n"


def main():
    text, check = render(), "--check" in sys.argv[1:]
    if check and (not README.exists() or README.read_text(encoding="utf-8") != text):
        raise SystemExit("README.md does not agree with nbs/index.ipynb: run `make readme`")
    if not check: README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
