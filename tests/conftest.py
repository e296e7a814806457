"""What all tests share. They run as notebooks do not: from outside, in other folders and other processes."""
import json
import os
import platform
import shutil
import signal
from configparser import ConfigParser
from datetime import date
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # figures need no screen, in subprocesses neither
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore Ctrl-C


@pytest.fixture
def one_thread():
    "The same sums in the same order, here and in other processes."
    import torch
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def root():
    "The top folder of the project."
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def settings(root):
    "settings.ini, the one place for name, version and requirements."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


@pytest.fixture(scope="session")
def chromium():
    "A headless Chromium. Without one the test is skipped, except where VAE_NB_BROWSER=required."
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        if os.environ.get("VAE_NB_BROWSER") == "required": pytest.fail("no Chromium is installed")
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    "A folder for screenshots and numbers: that of VAE_NB_ARTEFACTS, if it is set."
    folder = Path(os.environ.get("VAE_NB_ARTEFACTS") or tmp_path_factory.mktemp("artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pytest_runtest_logreport(report):
    """What a long proof counts, with `record_property`, is kept in the file that VAE_NB_PROOFS names, as `make test-long`
    does: by test, with date, versions and seconds. Of a test with parameters only the slow ones are proofs."""
    path = os.environ.get("VAE_NB_PROOFS")
    if not path or report.when != "call" or not report.passed or not report.user_properties: return
    if "[" in report.nodeid and "slow" not in report.keywords: return
    import torch
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    with open(path, "a+", encoding="utf-8") as file:
        if os.name == "posix":  # two test files may come to their ends at once
            import fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        proofs = json.loads(file.read() or "{}")
        proofs[report.nodeid.removeprefix("tests/")] = {
            "date": str(date.today()), "versions": versions, "seconds": round(report.duration)} | dict(report.user_properties)
        file.truncate(0)
        file.write(json.dumps(dict(sorted(proofs.items())), indent=1, ensure_ascii=False) + "\n")
