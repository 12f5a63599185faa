#!/bin/sh
# Builds the wheel with libmigshare inside, installs it into a fresh virtual environment and runs the tests with it.
# The build needs setuptools from PyPI; the tests need numpy.
# usage: wheel.sh [FOLDER]        FOLDER (default: out/wheel at the root) gets the wheel
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root/out/wheel}
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$root"
cargo build --release -q -p migshare-capi
mkdir -p "$out"
# setuptools leaves build folders beside the sources: not in this tree.
cp -r "$here" "$work/python"
/usr/bin/python3 -m venv "$work/venv"
pip="$work/venv/bin/pip --quiet --disable-pip-version-check"
MIGSHARE_LIBRARY=$target/release/libmigshare.so $pip wheel --no-deps -w "$out" "$work/python"
wheel=$(ls -t "$out"/migshare-*.whl | head -n 1)
$pip install "$wheel[numpy]"
cd "$work/python/tests"
"$work/venv/bin/python" -m unittest -q test_numpy
echo "$wheel"
