#!/bin/sh
# Intel MPI from PyPI as one more peer: installs it below FOLDER and builds the MPI worker against it. Fails, with the
# reason on stderr, where PyPI or the wheels are out of reach; the benchmark then goes on without this peer.
# usage: intel-mpi.sh FOLDER WORKER.O        makes FOLDER/intelmpi and FOLDER/intel, the prefix it runs from
set -eu
folder=$1 worker=$2
here=$(cd "$(dirname "$0")" && pwd)
prefix=$folder/intel
wanted="impi-rt==2021.18.1 impi-devel==2021.18.1"

if [ "$(cat "$prefix/wanted.txt" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$prefix"
    /usr/bin/python3 -m venv "$prefix"
    "$prefix/bin/pip" install --quiet --disable-pip-version-check $wanted
    echo "$wanted" >"$prefix/wanted.txt"
fi
cc -O3 -I"$here/peers" -I"$prefix/include" "$here/peers/mpi.c" "$worker" \
    -L"$prefix/lib" -lmpi -Wl,-rpath,"$prefix/lib" -o "$folder/intelmpi"
