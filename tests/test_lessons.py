"The form that all lessons share; that they run anywhere; and that the glossary has every term."
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "nbs"
FOLDER = NOTEBOOKS / "tutorials"
LESSONS = sorted(FOLDER.glob("[0-9]*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


@each_lesson
def test_form(path, settings):
    text, code = "\n\n".join(cells(path, "markdown")), cells(path, "code")
    assert re.match(rf"# {int(path.stem[:2])} · \S.*\n\n> \S", text), "the title bears the number of the lesson"
    assert f"*Lesson {int(path.stem[:2])} of {len(LESSONS)} · " in text
    place, branch = settings["git_url"].removeprefix("https://github.com/"), settings["branch"]
    for link in (f"https://colab.research.google.com/github/{place}/blob/{branch}/nbs/tutorials/{path.name}",
                 f"https://mybinder.org/v2/gh/{place}/{branch}?urlpath=lab/tree/nbs/tutorials/{path.name}"):
        assert f"({link})" in text, f"no link to {link}"
    assert len(re.findall(r"https://(?:colab|mybinder)\S+ipynb", text)) == 2
    assert "**What you will learn.**" in text and "## What to remember" in text
    assert not any("default_exp" in cell for cell in code), "lessons export nothing"
    assert any("assert" in cell for cell in code), "a lesson tests what it says"


@each_lesson
def test_solutions_are_computed(path):
    "Every exercise has a folded solution, and a hidden cell `# solution N` that tries it, or it is marked *(theory)*."
    exercises = "\n\n".join(cells(path, "markdown")).partition("## Exercises")[2]
    _, *parts = re.split(r"^\*\*(\d+)\.\*\*", exercises, flags=re.M)
    numbers, texts = parts[::2], parts[1::2]
    assert len(numbers) >= 2 and numbers == [str(i + 1) for i in range(len(numbers))]
    solved = {match[1]: cell for cell in cells(path, "code") if cell.startswith("#| hide")
              for match in re.finditer(r"^# solution (\d+)$", cell, re.M)}
    for number, text in zip(numbers, texts):
        assert text.count("<summary>Solution</summary>") == text.count("</details>") == 1, f"exercise {number}"
        theory = text.lstrip().startswith("*(theory)*")
        assert theory != (number in solved), f"exercise {number}: a hidden cell, or the mark *(theory)*"
        assert theory or re.search(r"assert", solved[number]), f"the solution {number} asserts nothing"
    assert set(solved) <= set(numbers)


@each_lesson
def test_figures(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        source = "".join(cell["source"])
        assert not drawn or "#| fig-cap:" in source and "#| fig-alt:" in source, source[:200]
    for image in re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", "\n".join(cells(path, "markdown"))):
        assert (FOLDER / image).stat().st_size < 300_000, f"{image} is too large"


def frames(gif):
    "Duration and pixels of every frame."
    with Image.open(io.BytesIO(gif)) as film:
        for i in range(film.n_frames):
            film.seek(i)
            yield film.info["duration"], np.asarray(film.convert("RGB"), dtype=float)


@pytest.mark.slow
@pytest.mark.timeout(900)
@each_lesson
def test_lesson_runs_in_an_empty_folder(path, root, tmp_path):
    "By nbconvert, with nothing but the package; the films that it draws are those that the repository has."
    shutil.copy(path, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", path.name,
                           "--ExecutePreprocessor.timeout=800"],
                          cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    made = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    films = set(re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", "\n".join(cells(path, "markdown"))))
    assert made == {path.name} | films
    for film in films:
        ours, new = (list(frames((folder / film).read_bytes())) for folder in (FOLDER, tmp_path))
        assert [(time, image.shape) for time, image in ours] == [(time, image.shape) for time, image in new]
        change = max(np.abs(a - b).mean() for (_, a), (_, b) in zip(ours, new))
        assert change < 8, f"{film} is not what the lesson draws: the grey levels differ by {change:.1f} on average"


def bold_terms(text):
    "Bold passages of at most three words inside a sentence or at its head, but not at the head of a paragraph or item."
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<!--.*?-->", "", text, flags=re.S)
    for match in re.finditer(r"\*\*([^*]+)\*\*", text):
        at_head = re.search(r"(?:^\s*|\n\s*\n|(?:^|\n)\s*(?:[-*>]|\d+\.)\s|\|\s*)$", text[:match.start()])
        words = " ".join(match[1].split())
        if not at_head and words.count(" ") < 3 and words[-1] not in ".:!?": yield words


def glossary():
    "Every form of every term, in lower case."
    rows = re.findall(r"^\| (.+?) \| .+ \|$", "\n".join(cells(NOTEBOOKS / "guide" / "glossary.ipynb", "markdown")), re.M)
    assert rows[1:] == sorted(rows[1:], key=lambda row: row.lower().replace("β", "beta")) and len(rows) > 50
    return {form.lower() for row in rows for form in row.split(", ")}


def test_glossary_has_every_bold_term():
    known, missing = glossary(), []
    for path in sorted(NOTEBOOKS.glob("**/*.ipynb")):
        if ".ipynb_checkpoints" in path.parts: continue
        for term in bold_terms("\n\n".join(cells(path, "markdown"))):
            forms = {term.lower(), term.lower().removesuffix("s"), re.sub("ies$", "y", term.lower())}
            if not forms & known: missing.append(f"{path.relative_to(NOTEBOOKS)}: {term}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("text, terms", [
    ("A **head** turns it.", ["head"]), ("**A head.** It turns.", []), ("- **head**: turns", []), ("| **a** | b |", []),
    ("That is all.\nThe **score-function\ngradient** is", ["score-function gradient"]), ("It is $2**3$.", []),
    ("1. **Network.** For", []), ("So **σ is the exchange rate between both.** Now", [])])
def test_bold_terms(text, terms):
    assert list(bold_terms(text)) == terms
