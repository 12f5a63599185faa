#!/bin/sh
# Runs the Python tests with a virtual environment that is made once. Exit status 77: it cannot be made here.
#   run.sh VENV LIBRARY_DIRECTORY TEST.py
set -eu
venv=$1 libraries=$2 test=$3
here=$(dirname "$0")
if ! cmp -s "$here/requirements.txt" "$venv/installed"; then
    python3 -m venv "$venv" || exit 77
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" || exit 77
    cp "$here/requirements.txt" "$venv/installed"
fi
LD_LIBRARY_PATH=$libraries exec "$venv/bin/python" "$here/$test"
