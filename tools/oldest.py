"""Prints the lowest version of every requirement in settings.ini, in the form that pip takes."""
from configparser import ConfigParser
from pathlib import Path

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).resolve().parents[1] / "settings.ini", encoding="utf-8")
for requirement in config["DEFAULT"]["requirements"].split(): print(requirement.replace(">=", "=="))
