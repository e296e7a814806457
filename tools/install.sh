#!/bin/sh
# Makes .venv, where everything is installed. `make` runs this when .venv/.installed is missing or out of date.
set -eu
cd "$(dirname "$0")/.."

# An environment that was left half built, or was made for another folder, is of no use.
if [ -f .venv/.building ] || { [ -f .venv/.installed ] && [ "$(cat .venv/.installed)" != "$(pwd -P)" ]; }; then
    echo "The environment in .venv is incomplete or belongs to another folder: building it again."
    rm -rf .venv
fi

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! { usable .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null; }; then
    candidates=${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}
    python=
    no_venv=
    for candidate in $candidates; do
        usable "$candidate" || continue # names that are missing, too old, or shims that lead nowhere
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then python=$candidate; break; fi
        no_venv=$candidate
    done
    if [ -z "$python" ] && [ -n "$no_venv" ]; then
        echo "$("$no_venv" --version) ($no_venv) has no ensurepip, so it can't make an environment." >&2
        echo "On Debian and Ubuntu it is a package of its own: apt-get install python3-venv" >&2
        exit 1
    elif [ -z "$python" ]; then
        echo "Python 3.11 or newer is needed; none of these is: $candidates" >&2
        echo "Install one, or name it: make install PYTHON=/path/to/python3" >&2
        exit 1
    fi
    echo "Making .venv with $("$python" --version)"
    rm -rf .venv
    mkdir .venv
    touch .venv/.building # stays behind if what follows is interrupted
    "$python" -m venv .venv
fi

touch .venv/.building
echo "Installing vae_nb and its tools into .venv (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]" || {
    rm .venv/.building # pip has put back what it could not replace
    exit 1
}
rm .venv/.building
pwd -P > .venv/.installed
