"""Tests everything in a temporary copy of the working tree; the last line is `N passed, N failed`.

Export and clean must leave no diff, the README must agree with its notebook, every notebook must be stored executed and
without an error, and must run; and tests/ must pass. The exit code is 0 if something passed and nothing failed."""
import argparse
import compileall
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path

import psutil

# Commands are forked from one process that has loaded what nearly all of them load, which takes seconds each time.
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["torch", "torchvision", "matplotlib.pyplot", "seaborn", "scipy.stats", "nbdev.test", "pytest"])
ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
BUILT = shutil.ignore_patterns(".git", ".venv", "_proc", "_docs", "runs", "build", "dist", "__pycache__", "*.egg-info")
running = set()  # processes to end when we are stopped
LONGEST = "test_widgets", "test_site", "test_combinations", "test_streams", "test_cli", "test_house"  # begin with these
SILENT = 300     # seconds without any processor time after which a process hangs
deadline = float("inf")


def copy_tree(to):
    "The files that git tracks or would track; without git, all but what is built."
    git = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try: names = subprocess.run(git, capture_output=True, check=True, text=True).stdout.split("\0")[:-1]
    except (OSError, subprocess.CalledProcessError): return shutil.copytree(ROOT, to, symlinks=True, ignore=BUILT)
    for name in names:
        if not os.path.lexists(ROOT / name): continue  # deleted, but not committed yet
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)


def tree(pid):
    "A process and its children."
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess: return []


def cpu_seconds(pid):
    "Processor time that a process and its children have taken, those that have ended included."
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.Error): total += sum(process.cpu_times()[:4])
    return total


def stop(process, how=signal.SIGKILL):
    "End a process with all its children."
    try: os.killpg(process.pid, how)
    except (ProcessLookupError, PermissionError): return  # it has ended
    process.join(20)


def wait(process, limit):
    """The exit code, or None if the process hangs: it has taken more than `limit` seconds of processor time, or for `SILENT`
    seconds none at all. How fast the machine is, and what else it does, plays no part."""
    used, since = 0.0, time.monotonic()
    while True:
        process.join(2)
        if process.exitcode is not None: return process.exitcode
        now = cpu_seconds(process.pid)
        if now > used + 0.05: used, since = max(now, used), time.monotonic()
        if now > limit or time.monotonic() > min(since + SILENT, deadline): return None


def begin(folder, out, script, arguments):
    "In the forked process: be the leader of a group of its own, write into a file, and run the script."
    os.setsid()
    os.chdir(folder)
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(out, os.O_WRONLY)
    for target, source in enumerate([null, out, out]): os.dup2(source, target)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def run(folder, limit, script, *arguments):
    "Run a Python script or installed command: its exit code (None if it had to be stopped), output, and seconds it took."
    script, start = BIN / script if "/" not in str(script) else folder / script, time.monotonic()
    with tempfile.NamedTemporaryFile("r", errors="replace") as out:  # no pipe: a stray grandchild would hold it open
        process = WARM.Process(target=begin, args=(folder, out.name, str(script), [str(a) for a in arguments]))
        process.start()
        running.add(process)
        try: code = wait(process, limit)
        finally:
            if process.is_alive(): stop(process, signal.SIGABRT)  # faulthandler prints where it hung
            stop(process)
            running.discard(process)
        return code, out.read().replace(str(folder), "."), time.monotonic() - start


times = {}  # name of a notebook or test file -> seconds


def verdict(name, code, output, seconds):
    "One row of the report: (name, what happened, details)."
    times[str(name)] = seconds
    if code == 0: return name, "passed", f"{seconds:.0f} s"
    return name, "failed", (f"exit code {code}" if code else f"hung: stopped after {seconds:.0f} s") + f"\n{output}"


def check_drift(copy, limit, command):
    "Export or clean must change no file."
    def files(): return {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    before, (code, output, seconds), after = files(), run(copy, limit, command), files()
    changed = [str(p) for p in sorted(before.keys() | after.keys()) if before.get(p) != after.get(p)]
    if code == 0 and changed: code, output = 1, "\n".join(["it changes", *changed])
    return verdict(f"{command} leaves no diff", code, output, seconds)


# folders that only the machine has on which a notebook ran, and files with the number of a line
MACHINE = r"/(?:root|home|Users|tmp)/[\w.-]+|/[\w-]+(?:/[\w.-]+)+\.py(?=:\d)"


def check_stored(copy, path):
    "A notebook must be stored executed, without errors and without paths of the machine that it ran on."
    faults, executed, notebook = [], False, json.loads(path.read_text(encoding="utf-8"))
    if "widgets" in notebook["metadata"]: faults.append("its metadata hold the state of widgets: remove them")
    for i, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", []):
            executed = True
            data = {kind: text for kind, text in output.get("data", {}).items() if kind.startswith("text/")}
            text = json.dumps([output.get("text"), data])
            if output["output_type"] == "error" or "Traceback (most recent call last)" in text:
                faults.append(f"cell {i} holds an error")
            faults += [f"cell {i} shows {path}" for path in re.findall(MACHINE, text)]
    if not executed: faults.append("no cell has an output: store it executed")
    return f"{path.relative_to(copy)} as stored", "failed" if faults else "passed", "\n".join(faults)


def run_notebook(copy, limit, path, flags):
    "nbdev_test must say `Success.`: its exit code is 0 also when it found no notebook."
    code, output, seconds = run(copy, limit, "nbdev_test", "--path", path, "--n_workers", 0, "--flags", flags)
    return verdict(path.relative_to(copy), 1 if code == 0 and "Success." not in output else code, output, seconds)


def run_pytest(copy, limit, file, marks):
    "One row for each test of a file, and one for pytest itself if it didn't come to its end or found nothing."
    report, rows = copy / f"{file.stem}.xml", []
    code, output, seconds = run(copy, limit, "pytest", file, "-v", "-p", "no:cacheprovider", "-m", marks, "--timeout", "0",
                                "--junitxml", report, "-o", "junit_logging=out-err")
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else []:
        tags = {element.tag for element in case}
        what = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        brief = what == "skipped" and case.get("classname")  # else a whole file, with the reason in the text
        details = "\n".join(e.get("message", "") if brief else e.text or "" for e in case)
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        rows.append((name, what, details.replace(str(copy), ".").strip()))
    nothing = code == 5 and all(what == "skipped" for _, what, _ in rows)  # or all are left to the long run
    if not nothing and (not rows or code != 0 and all(what != "failed" for _, what, _ in rows)):
        rows.append(verdict(file.name, 1 if code == 0 else code, output, seconds))
    times[file.name] = seconds
    return rows


def rows_of(name, check, *arguments):
    "What a check returns, as rows; its own breakdown is a failure like any other."
    try: rows = check(*arguments)
    except Exception: rows = name, "failed", traceback.format_exc()
    return rows if isinstance(rows, list) else [rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="also run what is marked slow, and what downloads data")
    parser.add_argument("--workers", type=int, default=2, help="how many things run at the same time")
    parser.add_argument("--limit", type=float, help="seconds of processor time for a notebook or test file (1800, or 7200 with --long)")
    parser.add_argument("--total", type=float, help="seconds for everything (5000, or 14400 with --long)")
    parser.add_argument("--times", action="store_true", help="also print where the time went")
    args = parser.parse_args()
    limit, total = args.limit or (7200 if args.long else 1800), args.total or (14400 if args.long else 5000)
    global deadline
    deadline, counts, loud = time.monotonic() + total, dict(passed=0, failed=0, skipped=0), dict(failed=[], skipped=[])

    def note(rows):
        files = Counter()  # one line for each test that passed would be too many: one for each file
        for name, what, details in rows:
            counts[what] += 1
            if what != "passed": loud[what].append((name, details))
            if what == "passed" and "::" in str(name): files[name.partition("::")[0]] += 1
            else: print(what, name, details if what == "passed" else "", flush=True)
        for name, n in files.items(): print("passed", name, f"{n} tests", flush=True)

    with tempfile.TemporaryDirectory(prefix="vae_nb-") as folder, ThreadPoolExecutor(args.workers) as pool:
        copy = Path(folder).resolve() / ROOT.name
        copy_tree(copy)
        os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(copy), PYTHONFAULTHANDLER="1", PYTHONDONTWRITEBYTECODE="1",
                          PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")  # of the warm process and all that it forks
        notebooks = sorted(p for p in copy.glob("nbs/**/*.ipynb") if not re.search(r"/[._]", str(p.relative_to(copy))))
        if not notebooks: note([("notebooks", "failed", "there are none in nbs/")])
        for path in notebooks: note(rows_of(path.name, check_stored, copy, path))
        for command in ("nbdev_export", "nbdev_clean"): note(rows_of(command, check_drift, copy, limit, command))
        for name, script in {"README.md agrees with nbs/index.ipynb": ["tools/make_readme.py", "--check"],
                             "the address is that of settings.ini": ["tools/address.py", "--check"],
                             "CONTRIBUTING.md agrees with tests/proofs.json": ["tools/proofs.py", "--check"]}.items():
            note([verdict(name, *run(copy, limit, *script))])
        compileall.compile_dir(copy / "vae_nb", quiet=1)
        if args.long: os.environ.setdefault("VAE_NB_EXAMPLES", "300")  # of each property, and new ones
        if args.long: os.environ.setdefault("VAE_NB_PROOFS", str(ROOT / "tests" / "proofs.json"))  # the counts of this run
        flags, marks = ("slow data" + " gpu" * bool(shutil.which("nvidia-smi")), "") if args.long else ("", "not slow")
        try:
            tests = sorted(copy.glob("tests/test_*.py"), key=lambda p: (p.stem not in LONGEST, p.stem))
            jobs = [pool.submit(lambda file=file: rows_of(file.name, run_pytest, copy, limit, file, marks)) for file in tests]
            jobs += [pool.submit(lambda path=path: rows_of(path.name, run_notebook, copy, limit, path, flags))
                     for path in notebooks]
            jobs.append(pool.submit(lambda: [verdict("every notebook becomes a page",
                                                     *run(copy, limit, "tools/docs.py", "process"))]))
            for job in as_completed(jobs): note(job.result())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running): stop(process)

    for name, details in loud["failed"]: print(f"\n{'=' * 100}\nFAILED {name}", *details.splitlines()[-80:], sep="\n")
    for name, reason in loud["skipped"]: print(f"\nSKIPPED {name}\n        {reason}")
    if args.times:
        for name, seconds in sorted(times.items(), key=lambda item: -item[1]): print(f"{seconds:7.1f} s  {name}")
    if not counts["skipped"]: del counts["skipped"]
    print("\n" + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return int(counts["failed"] > 0 or counts["passed"] == 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # A shell that starts this in the background lets it ignore Ctrl-C, and all that it starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
