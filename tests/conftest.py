"""What all tests share. They run as notebooks do not: from outside, in other folders and other processes."""
import os
from configparser import ConfigParser
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")  # figures need no screen, in subprocesses neither


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
