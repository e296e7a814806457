"""The table of long proofs in CONTRIBUTING.md, from tests/proofs.json; with --check only says whether they agree."""
import json
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = "| test | what it counted | seconds | date |\n|---|---|---:|---|\n"


def table(proofs):
    "One row for a test, with the sums over its parameters."
    groups = {}
    for name, proof in proofs.items(): groups.setdefault(name.partition("[")[0], []).append(proof)
    rows = []
    for name, several in groups.items():
        counts = sum((Counter({what: n for what, n in proof.items() if isinstance(n, (int, float))}) for proof in several), Counter())
        seconds = counts.pop("seconds", None)
        said = ", ".join(f"{n:,} {what}" for what, n in counts.items())
        rows.append(f"| `{name}` | {said} | {seconds or ''} | {max(proof['date'] for proof in several)} |\n")
    return HEAD + "".join(rows)


def main():
    path, proofs = ROOT / "CONTRIBUTING.md", json.loads((ROOT / "tests" / "proofs.json").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    before, found, after = text.partition(HEAD)
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith("|"): del rest[0]
    new = before + table(proofs) + "".join(rest)
    if not found: sys.exit("CONTRIBUTING.md has no table of long proofs")
    if "--check" in sys.argv and new != text: sys.exit("the table in CONTRIBUTING.md is old: run tools/proofs.py")
    if new != text: path.write_text(new, encoding="utf-8")


if __name__ == "__main__": main()
