"""The plan of the house: rooms in layers, names of notebooks and modules, the public face, and its types."""
import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, NOTEBOOKS = ROOT / "vae_nb", ROOT / "nbs"

# The order of the layers: nothing imports from a later room, and inside a room nothing from a later number.
ROOMS = ("basics", "core", "data", "networks", "distributions", "models", "training", "generation", "evaluation", "apply",
         "explore", "cli")


def notebook_modules():
    "module -> notebook, for every notebook that exports one; the name of the module is that of the notebook."
    found = {}
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        if any(part.startswith((".", "_")) for part in path.relative_to(NOTEBOOKS).parts): continue
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        if named := re.match(r"#\| default_exp (\S+)", first): found[named[1]] = path.relative_to(NOTEBOOKS)
    return found


MODULES = notebook_modules()


def place(module):
    "Where a module stands in the order: its room, and its number in the room."
    notebook = MODULES[module]
    return ROOMS.index(module.partition(".")[0]), int(notebook.name[:2]) if "." in module else 0


def trees(): # module -> its syntax tree
    return {module: ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")) for module in MODULES}


def public_names(): # name -> module, as the stub says
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    return {alias.asname: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def imports(module, tree):
    "(module it takes something from, name or None, line) for every import of ours in `tree`, inside functions too."
    package = ["vae_nb", *module.split(".")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("vae_nb."): yield alias.name.removeprefix("vae_nb."), None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            if source != "vae_nb" and not source.startswith("vae_nb."): continue
            source = source.removeprefix("vae_nb").removeprefix(".")
            for alias in node.names:
                whole = f"{source}.{alias.name}".removeprefix(".")
                if whole in MODULES: yield whole, None, node.lineno                              # from room import module
                elif source in MODULES: yield source, alias.name, node.lineno
                elif not source and alias.name in public_names(): yield public_names()[alias.name], alias.name, node.lineno
                elif whole != "__version__": yield whole, None, node.lineno                      # a room as a whole


def faults_of(module, tree):
    "What an import of this module does that the plan forbids."
    for source, name, line in imports(module, tree):
        if source not in MODULES: yield f"{module}:{line} imports {source}, which is no module"
        elif place(source) >= place(module): yield f"{module}:{line} imports {name or source} from {source}, which comes later"
        elif name and name.startswith("_"): yield f"{module}:{line} imports the private {name} of {source}"


def test_nothing_imports_upwards():
    faults = [fault for module, tree in trees().items() for fault in faults_of(module, tree)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("code, fault", [
    ("from ..training.fit import fit", "comes later"), ("def f():\n    from vae_nb.training.fit import fit", "comes later"),
    ("from vae_nb import fit", "comes later"), ("from .. import training", "no module"), ("import vae_nb.cli", "comes later"),
    ("from vae_nb.explore import widgets", "comes later"), ("from .fitted_priors import fit_prior", "comes later"),
    ("from .tensor_files import _digest", "private"), ("from ..core import Head", None), ("import torch", None),
    ("from vae_nb import __version__", None)])
def test_the_check_finds_what_it_should(code, fault):
    found = list(faults_of("models.vae", ast.parse(code)))
    assert bool(found) == bool(fault) and all(fault in one for one in found)


FOUND_LATER = {("models.vae", "apply.hub")} # (who, what): methods of VAE that stand in a later room, imported when they are called


def found_by_name(module, tree):
    "Modules that are imported by a name in quotes, and what else reaches them without an import statement."
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "later":
            yield module, ast.unparse(node.args[0]).strip("'")
        elif isinstance(node, ast.Import) and any(alias.name == "vae_nb" for alias in node.names): yield module, "vae_nb"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("import_module", "__import__"):
            if module != "models.vae": yield module, ast.unparse(node)


def test_few_things_are_found_by_name():
    found = {fault for module, tree in trees().items() for fault in found_by_name(module, tree)}
    assert found == FOUND_LATER and all(place(what) > place(who) for who, what in found)
    for code in ('later("cli")', "import vae_nb", "import_module(x)", "importlib.import_module(x)"):
        assert set(found_by_name("core", ast.parse(code))) - FOUND_LATER, code


def test_no_circles():
    graph = {module: {source for source, _, _ in imports(module, tree)} for module, tree in trees().items()}
    while graph:
        free = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert free, f"a circle in {sorted(graph)}"
        for module in free: del graph[module]


def test_names_of_notebooks_modules_and_rooms():
    for module, notebook in MODULES.items():
        assert re.fullmatch(r"\d\d_[a-z]+(_[a-z]+)*", notebook.stem), f"{notebook}: two digits, then words"
        assert module == re.sub(r"\d\d_", "", notebook.with_suffix("").as_posix()).replace("/", "."), notebook
        assert module.partition(".")[0] in ROOMS, notebook
    numbers = [(n.parent, n.name[:2]) for n in MODULES.values()]
    assert len(numbers) == len(set(numbers)), "two notebooks of a room have the same number"
    ours = {PACKAGE / f"{module.replace('.', '/')}.py" for module in MODULES}
    kept = {PACKAGE / name for name in ("__init__.py", "__main__.py", "_modidx.py")}
    others = {p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py"} - ours - kept
    assert not others, f"modules that no notebook makes: {sorted(map(str, others))}"


def test_public_face():
    "What stands in an `__all__` stands in the stub and the other way round; there are few names, and all can be read up."
    import vae_nb
    declared = {}
    for module in MODULES:
        for name in getattr(importlib.import_module(f"vae_nb.{module}"), "__all__", []): declared[name] = module
    assert declared == public_names()
    assert set(vae_nb.__all__) == set(declared) and len(declared) <= 130
    undocumented = [name for name in declared if not (getattr(vae_nb, name).__doc__ or "").strip()]
    assert not undocumented


def untyped(function, method):
    "Parameters of a function without a type, and its return."
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs]
    if method and not any(ast.unparse(d) == "staticmethod" for d in function.decorator_list): named = named[1:]
    missing = [p.arg for p in named if p.annotation is None]
    return missing + ["return"] * (function.returns is None and function.name != "__init__")


def test_public_names_are_typed():
    missing, all_trees = [], trees()
    for name, module in public_names().items():
        for node in all_trees[module].body:
            if getattr(node, "name", None) != name: continue
            if isinstance(node, ast.FunctionDef): missing += [f"{name}({what})" for what in untyped(node, False)]
            elif isinstance(node, ast.ClassDef):
                methods = [m for m in node.body if isinstance(m, ast.FunctionDef)]
                shown = [m for m in methods if not m.name.startswith("_") or m.name in ("__init__", "__call__")]
                missing += [f"{name}.{m.name}({what})" for m in shown for what in untyped(m, True)]
    assert not missing, f"{len(missing)}: " + ", ".join(missing)


def test_types_can_be_read_at_run_time():
    "`help`, the documentation and `typing.get_type_hints` see the types too."
    import inspect
    import typing

    import vae_nb
    for name in vae_nb.__all__:
        thing = getattr(vae_nb, name)
        functions = [thing] if inspect.isfunction(thing) else [
            f for key, f in vars(thing).items() if inspect.isfunction(f) and (key == "__init__" or not key.startswith("_"))]
        for f in functions: typing.get_type_hints(f)


def checked(*arguments, folder=ROOT):
    "What the type checker finds: a list of (file, line, severity, message)."
    if importlib.util.find_spec("basedpyright") is None: pytest.skip("basedpyright is not installed: pip install basedpyright")
    done = subprocess.run([sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson", *arguments],
                          cwd=folder, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(Path(d["file"]), d["range"]["start"]["line"] + 1, d["severity"], d["message"]) for d in found]


def test_types_of_the_package():
    found = checked()
    wrong = [f"{file.relative_to(ROOT)}:{line} {message}" for file, line, severity, message in found if severity == "error"]
    assert not wrong, "\n".join(wrong)


USER = '''\
import torch
import vae_nb as v
from typing import assert_type

data = v.load_data("mnist-10k", limit=100)
model = v.create_vae(data.image_shape, latent_dim=3, noise="imagewise")
history = v.fit(model, data, epochs=1, objective="elbo", out="runs/a")
assert_type(model, v.VAE)
assert_type(v.VAE.load("x"), v.VAE)
assert_type(v.VAE.from_pretrained("me/x", revision="main"), v.VAE)
assert_type(model.push_to_hub("me/x", run="runs/a", data=data), str)
assert_type(history, v.History)
assert_type(model(data.test), v.Terms)
assert_type(model(data.test).kl, torch.Tensor)
assert_type(model.sample(3), torch.Tensor)
model.save("x")
terms = model(data.test, k=2)
v.elbo(terms, kl_weight=0.5).mean().backward()
with v.evaluating(model): q = model.encode(data.test)
prior = v.with_prior(model, v.fit_prior(model, data))
v.pipeline_figure(model, data.test[:3], save="a.png")
'''
MISTAKES = {"v.nonexistent": "nonexistent", "v.create_vae((1, 8, 8), latnt_dim=3)": "latnt_dim",
            'v.create_vae((1, 8, 8), noise="pixel")': "pixel'", "v.fit(model)": "data", 'model.save()': "folder",
            'v.VAE.from_pretrained("me/x", revison="main")': "revison", "model.push_to_hub()": "repo_id",
            'v.fit(model, data, objective="iwea")': "iwea'", "v.log_likelihood(model)": "log_likelihood",
            "v.create_vae((1, 8, 8)).latent_dimension": "latent_dimension"}


def test_types_in_a_users_script(tmp_path):
    "A right script has no error; each mistake is one, in its line; values have their types."
    script = tmp_path / "script.py"
    script.write_text(USER + "".join(f"{line}\n" for line in MISTAKES))
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "basic", "extraPaths": [str(ROOT)]}))
    errors = [(line, message) for _, line, severity, message in checked("script.py", folder=tmp_path) if severity == "error"]
    first = len(USER.splitlines()) + 1
    assert not [e for e in errors if e[0] < first], errors
    for i, (code, word) in enumerate(MISTAKES.items()):
        assert any(line == first + i and word in message for line, message in errors), f"{code}: no error in its line\n{errors}"


def test_lint():
    "The mistakes that ruff finds, by the rules of pyproject.toml; pre-commit runs the same."
    if importlib.util.find_spec("ruff") is None: pytest.skip("ruff is not installed: pip install ruff")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
