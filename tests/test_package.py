"""The package as its users get it: built, installed in a clean folder, and imported without our tools."""
import os
import shutil
import subprocess
import sys
from email import message_from_string
from zipfile import ZipFile

import pytest

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
TOOLS = ("nbdev", "execnb", "ghapi", "fastgit", "ipykernel", "jupyter_client", "jupyter_core", "jupyterlab",
         "jupytext", "nbconvert", "nbformat", "pytest", "setuptools")

WITHOUT_TOOLS = f"""
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    "Finds what is installed, as if our tools were not."
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {TOOLS} else super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""


def call(*command, folder, **environment):
    "What a command prints, run outside the repository."
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(root, tmp_path_factory):
    "Built through a source distribution, so that this one is whole too."
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in ("vae_nb", "settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE",
                 "constraints.txt", "CHANGELOG.md", "CITATION.cff"):
        if (root / name).is_dir(): shutil.copytree(root / name, source / name)
        elif (root / name).exists(): shutil.copy(root / name, source / name)
    call(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('..')", folder=source)
    (sdist,) = folder.glob("*.tar.gz")
    call(*PIP, "wheel", "--no-build-isolation", "--no-deps", "--no-index", sdist, folder=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def clean(wheel, tmp_path_factory):
    "Runs Python where our package is the wheel's and our tools are missing."
    folder, target = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("clean")
    call(*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel, folder=folder)

    def run(code):
        check = f"import vae_nb; assert vae_nb.__file__.startswith({str(target)!r}), vae_nb.__file__\n"
        return call(sys.executable, "-c", WITHOUT_TOOLS + check + code, folder=folder, PYTHONPATH=str(target))
    return run


def test_wheel_holds_the_package_and_nothing_else(wheel, root):
    names = set(ZipFile(wheel).namelist())
    ours = {str(p.relative_to(root)) for p in (root / "vae_nb").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert any(name.endswith("/LICENSE") for name in names)
    assert wheel.stat().st_size < 4e6


def test_metadata_is_that_of_settings(wheel, settings):
    archive = ZipFile(wheel)
    read = {name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    metadata = message_from_string(read["METADATA"])
    assert (metadata["Name"], metadata["Version"]) == (settings["lib_name"], settings["version"])
    assert metadata["Requires-Python"] == f">={settings['min_python']}"
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert sorted(required) == sorted(settings["requirements"].split())
    assert settings["console_scripts"].partition("=")[2] in read["entry_points.txt"]


def test_every_module_and_name_works_without_our_tools(clean):
    clean("""
import importlib, pkgutil
for module in pkgutil.walk_packages(vae_nb.__path__, "vae_nb."): importlib.import_module(module.name)
for name in vae_nb.__all__: assert getattr(vae_nb, name) is not None
assert set(vae_nb.__all__) <= set(dir(vae_nb))
""")


def test_import_is_light(clean):
    "Names come when they are asked for: the command line can answer --help at once."
    loaded = clean("print(*sys.modules)").split()
    assert not {"torch", "numpy", "matplotlib", "seaborn", "pandas", "ipywidgets", "accelerate"} & set(loaded)


def test_unknown_names_are_refused(clean):
    clean("""
try: vae_nb.no_such_name
except AttributeError as e: assert "no_such_name" in str(e)
else: raise AssertionError
""")


def test_one_version(root, settings):
    assert f'__version__ = "{settings["version"]}"' in (root / "vae_nb" / "__init__.py").read_text(encoding="utf-8")
    assert f"version: {settings['version']}\n" in (root / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## [{settings['version']}]" in (root / "CHANGELOG.md").read_text(encoding="utf-8")
