"The form that all lessons share."
import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "nbs" / "tutorials"
LESSONS = sorted(FOLDER.glob("[0-9]*.ipynb"))


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_form(path):
    text, code = "\n\n".join(cells(path, "markdown")), cells(path, "code")
    assert re.match(rf"# {int(path.stem[:2])} · \S.*\n\n> \S", text), "the title bears the number of the lesson"
    for place in ("colab.research.google.com/github/vae-nb/vae_nb/blob/main", "mybinder.org/v2/gh/vae-nb/vae_nb/main"):
        links = re.findall(rf"https://{place}\S*?(\w+\.ipynb)", text)
        assert links == [path.name], f"{place} opens {links}"
    assert "**What you will learn.**" in text and "## What to remember" in text
    exercises = text.partition("## Exercises")[2]
    asked, solved = len(re.findall(r"^\*\*\d\.\*\*", exercises, re.M)), exercises.count("<summary>Solution</summary>")
    assert asked == solved >= 2 and exercises.count("</details>") == solved
    assert not any("default_exp" in cell for cell in code), "lessons export nothing"
    assert any("assert" in cell for cell in code), "a lesson tests what it says"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_figures(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        source = "".join(cell["source"])
        assert not drawn or "#| fig-cap:" in source and "#| fig-alt:" in source, source[:200]
    for image in re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", "\n".join(cells(path, "markdown"))):
        assert (FOLDER / image).stat().st_size < 300_000, f"{image} is too large"
