"""The repository's address is settled in settings.ini; everything else follows from there."""
import re
import shutil
import subprocess
import sys


def test_a_new_address_reaches_everything(root, settings, tmp_path):
    "Another owner, name, branch and site: nothing that users read or click says the old ones any more."
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True,
                           text=True).stdout.split("\0")[:-1] or [
        str(p.relative_to(root)) for p in root.rglob("*") if not {"_proc", "_docs", ".venv", "runs", "nbdev.yml"} & set(p.relative_to(root).parts)]
    kept = [n for n in names if n.endswith((".ipynb", ".md", ".cff", ".yml", ".py", ".sh", ".txt", ".ini", ".toml", "Makefile", "LICENSE"))]
    for name in kept:
        if not (root / name).is_file() or (root / name).is_symlink(): continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    old = settings["git_url"].removeprefix("https://github.com/")
    text = (tmp_path / "settings.ini").read_text()
    text = text.replace(settings["git_url"], "https://github.com/someone/pictures").replace(settings["doc_host"], "https://someone.org")
    (tmp_path / "settings.ini").write_text(re.sub(r"(?m)^branch = .*", "branch = trunk", text))
    run = [sys.executable, str(tmp_path / "tools" / "address.py")]
    assert subprocess.run([*run, "--check"], capture_output=True).returncode != 0
    assert subprocess.run(run, capture_output=True).returncode == 0
    assert subprocess.run([*run, "--check"], capture_output=True).returncode == 0
    left = [name for name in kept if name not in ("settings.ini", "vae_nb/_modidx.py") and (tmp_path / name).is_file()
            and (old in (tmp_path / name).read_text(encoding="utf-8")
                 or settings["doc_host"] in (tmp_path / name).read_text(encoding="utf-8"))]
    assert not left
    lesson = (tmp_path / "nbs" / "tutorials" / "01_first_vae.ipynb").read_text()
    assert "colab.research.google.com/github/someone/pictures/blob/trunk/nbs/tutorials/01_first_vae.ipynb" in lesson
    assert "git clone https://github.com/someone/pictures && cd pictures" in (tmp_path / "nbs" / "index.ipynb").read_text()
