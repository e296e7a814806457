"""Mutation testing: code is changed in one place, and its tests must fail.

The changes are those of cosmic-ray (`pip install cosmic-ray`). From each of the modules below, places are drawn with a
seed, each with one change; annotations are left out. In a temporary copy, each mutant is met by the cells of the module's
notebook that are not exported, and by fast tests. Counts and survivors go into tests/mutants.json. A survivor that does
the same as the original gets a reason under "equivalent" there, by hand; it is kept when the mutant comes again."""
import argparse
import ast
import compileall
import difflib
import importlib.metadata
import json
import os
import platform
import random
import resource
import tempfile
import time
from collections import defaultdict
from datetime import date
from pathlib import Path

import run_tests
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

RESULTS, PROOFS = (run_tests.ROOT / "tests" / name for name in ("mutants.json", "proofs.json"))
MODULES = { # notebook without its ending: tests beside its own cells
    "00_core": ["test_distributions.py::test_moments_are_those_of_its_samples"],
    "basics/01_numerics": [],
    "distributions/00_posteriors": ["test_distributions.py", "test_properties.py::test_posteriors_of_any_raw_numbers"],
    "distributions/01_priors": ["test_distributions.py"],
    "distributions/02_likelihoods": ["test_distributions.py", "test_properties.py::test_likelihoods_of_any_raw_numbers"],
    "distributions/03_beta_nll": [],
    "training/00_objectives": ["test_properties.py::test_objectives"],
    "training/07_runs": [*(f"test_resume.py::{test}" for test in ("test_what_can_not_go_on", "test_damaged_files",
                           "test_interrupted_in_the_first_epoch")),
                         "test_data.py::test_resume_refuses_other_images"],
    "models/00_tensor_files": ["test_readers.py::test_damaged_tensors_are_never_other_tensors", "test_saved_models.py"],
    "data/02_splits": ["test_data.py"]}


def cells(notebook):
    "The module that a notebook makes, and its cells that aren't exported."
    sources = ["".join(cell["source"]) for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    module = next(line.split()[-1] for source in sources for line in source.splitlines() if "#| default_exp" in line)
    left = ("#| export", "#| default_exp", "#| slow", "#| data", "#| gpu")
    own = [s for s in sources if not any(line.startswith(left) for line in s.splitlines()) and "nbdev_export" not in s]
    return f"vae_nb.{module}", "\n\n".join(own) + "\n"


def annotated(source):
    "Where annotations stand: (first line, first character), (last line, last character)."
    lines = source.splitlines()
    def place(line, byte): return line, len(lines[line - 1].encode()[:byte].decode())
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            if (at := getattr(node, name, None)) is not None:
                yield place(at.lineno, at.col_offset), place(at.end_lineno, at.end_col_offset)


def mutants(source):
    "All that cosmic-ray would do, by place: lists of (operator, how many of its places come before)."
    places, tree, apart = defaultdict(list), get_ast(source), list(annotated(source))
    for name in operator_names():
        if get_operator(name).arguments() or "NoOp" in name: continue
        positions = [at for node in ast_nodes(tree) for at, _ in get_operator(name)().mutation_positions(node)]
        for i, at in enumerate(positions):
            if not any(start <= at < end for start, end in apart): places[at].append((name, i))
    return places


def draw(source, count, seed):
    "`count` mutants in different places: operator, lines that are changed, and the whole mutated code."
    random_state, places = random.Random(seed), mutants(source)
    for at in random_state.sample(sorted(places), len(places)):
        if count == 0: return
        name, i = random_state.choice(places[at])
        try: compile(mutated := mutate_code(source, get_operator(name)(), i), "mutant", "exec")
        except (SyntaxError, AttributeError): continue  # cosmic-ray can't change an exception with a dot in its name
        diff = [line for line in difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0)
                if line[0] in "+-" and line[:3] not in ("+++", "---")]
        if not diff: continue
        count -= 1
        yield name.removeprefix("core/"), diff, mutated


def measure(copy, name, tests, count, seed, wanted, say):
    "Counts and survivors of one module; `wanted`: only the mutants with these changed lines, if there are any."
    module, code = cells(copy / "nbs" / f"{name}.ipynb")
    path = copy / f"{module.replace('.', '/')}.py"
    for old in path.parent.glob(f"__pycache__/{path.stem}.*"): old.unlink()
    (copy / "tests" / "cells.py").write_text(code)
    (copy / "tests" / "test_cells.py").write_text(
        "import runpy\nfrom importlib import import_module\n\n\n"
        f"def test_cells(monkeypatch):\n    monkeypatch.chdir({str((copy / 'nbs' / name).parent)!r})\n"
        f"    runpy.run_path({str(copy / 'tests' / 'cells.py')!r}, dict(vars(import_module({module!r}))))\n")
    files = ["tests/test_cells.py", *(f"tests/{test}" for test in tests)]
    options = "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--timeout", 0
    def run(limit): return run_tests.run(copy, limit, "pytest", *options, *files)
    status, output, seconds = run(1000)
    if status: raise SystemExit(f"{module}: its tests fail as it is\n{output}")
    say(f"{module}: its tests take {seconds:.0f} s, {len(mutants(path.read_text()))} places")
    source, survivors, n, start = path.read_text(), [], 0, time.monotonic()
    for operator, diff, mutated in draw(source, count, seed):
        n += 1
        if wanted is not None and diff not in wanted: continue
        path.write_text(mutated)
        status, output, took = run(10 + 3 * seconds)
        if status == 0: survivors.append(dict(module=module, operator=operator, diff=diff))
        say(f"{'survived' if status == 0 else 'killed'} {took:.0f} s {operator}", *diff * (status == 0), sep="\n    ")
    path.write_text(source)
    return dict(mutants=n, places=len(mutants(source)), seconds=round(time.monotonic() - start)), survivors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES), help=f"notebooks: {' '.join(MODULES)}")
    parser.add_argument("--count", type=int, default=25, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="only the survivors of last time, with its count and seed")
    parser.add_argument("--at-least", type=float, default=0, help="share to be killed, or the exit code is 1")
    parser.add_argument("--baseline", action="store_true", help="only say what the tests take, without mutants")
    args = parser.parse_args()
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if args.again: args.count, args.seed = before["count"], before["seed"]
    run_tests.SILENT = 60
    resource.setrlimit(resource.RLIMIT_AS, (2 ** 35, 2 ** 35))  # a mutant may ask for any memory
    old = before.get("survivors", [])
    reasons = {(s["module"], *s["diff"]): s["equivalent"] for s in old if s.get("equivalent")}
    share, same = 1, (args.count, args.seed) == (before.get("count"), before.get("seed"))
    with tempfile.TemporaryDirectory(prefix="vae_nb-") as folder:
        copy = Path(folder).resolve() / "vae_nb"
        run_tests.copy_tree(copy)
        os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", MPLBACKEND="Agg")
        compileall.compile_dir(copy / "vae_nb", quiet=1)
        for name in args.modules:
            module = cells(copy / "nbs" / f"{name}.ipynb")[0]
            wanted = [s["diff"] for s in old if s["module"] == module and not s.get("equivalent")] if args.again else None
            if wanted == []: continue
            counts, found = measure(copy, name, MODULES[name], 0 if args.baseline else args.count, args.seed, wanted,
                                    lambda *text, **how: print(*text, **how, flush=True))
            if args.baseline: continue
            if args.again: found += [s for s in old if s["module"] == module and s.get("equivalent")]
            for s in found: s |= {"equivalent": reason} if (reason := reasons.get((module, *s["diff"]))) else {}
            now = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            rows = {**(now.get("modules", {}) if same else {}), module: counts}
            kept = [s for s in now.get("survivors", []) if same and s["module"] != module]
            share = report(args, rows, kept + found)
            same = True
    raise SystemExit(int(share < args.at_least))


def report(args, modules, survivors):
    "Write what is known so far; the share that was killed."
    for module, counts in modules.items():
        own = [s for s in survivors if s["module"] == module]
        counts |= dict(survived=len(own), equivalent=sum("equivalent" in s for s in own))
        counts["killed"] = counts["mutants"] - len(own)
    whats = "mutants", "killed", "survived", "equivalent"
    total = {what: sum(counts[what] for counts in modules.values()) for what in whats}
    total["killed of those that differ"] = round(total["killed"] / (total["mutants"] - total["equivalent"]), 3)
    versions = {name: importlib.metadata.version(name) for name in ("cosmic-ray", "torch")}
    when = {"date": str(date.today()), "versions": versions | {"python": platform.python_version()}}
    write(RESULTS, when | dict(seed=args.seed, count=args.count, total=total, modules=modules, survivors=survivors))
    proofs = json.loads(PROOFS.read_text()) if PROOFS.exists() else {}
    write(PROOFS, dict(sorted({**proofs, "tools/mutate.py": when | total}.items())))
    print(total, flush=True)
    return total["killed of those that differ"]


def write(path, content): path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__": main()
