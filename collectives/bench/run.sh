#!/bin/sh
# Builds the library and the peers, measures all of them interleaved and prints `RESULT {json}` last.
# QUICK=1 ends within ten minutes. On Debian, root gets what is missing installed; elsewhere peers that are not there
# are named and left out.
# OUT (default: out/bench-collectives at the root) gets the raw figures and the plots.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${OUT:-$root/out/bench-collectives}
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$out"

needs="gcc g++ libopenmpi-dev openmpi-bin libmpich-dev mpich libgloo-dev python3-numpy python3-matplotlib python3-venv"
missing=$(for name in $needs; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
done)
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing" $missing
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    apt-get install -q -y --no-install-recommends $missing >/dev/null
fi

cd "$root"
cargo build --release -q -p migshare-capi -p migshare-nccl-net
bin=$out/bin
mkdir -p "$bin"
cp "$target/release/libmigshare.so" "$bin/libmigshare.so.1"
cp "$target/release/libnccl_net_migshare.so" "$bin/libnccl-net-migshare.so"

flags="-O3 -I$here/peers -I$root/collectives/capi/include"
cc $flags -c "$here/peers/worker.c" -o "$bin/worker.o"
cc $flags "$bin/worker.o" "$here/peers/migshare.c" "$bin/libmigshare.so.1" -Wl,-rpath,"$bin" -o "$bin/migshare"
cc $flags "$here/peers/net.c" -ldl -o "$bin/net"
build_peer() { # name compiler source libraries...
    name=$1 compiler=$2 source=$3
    shift 3
    rm -f "$bin/$name"
    if command -v "$compiler" >/dev/null && "$compiler" $flags "$here/peers/$source" "$bin/worker.o" "$@" \
        -o "$bin/$name" 2>"$bin/$name.log"; then
        echo "peer $name: built"
    else
        echo "peer $name: not here, left out"
    fi
}
build_peer openmpi mpicc.openmpi mpi.c
build_peer mpich mpicc.mpich mpi.c
build_peer gloo c++ gloo.cc -lgloo -lpthread
rm -f "$bin/intelmpi"
if "$here/intel-mpi.sh" "$bin" "$bin/worker.o" 2>"$bin/intelmpi.log"; then
    echo "peer intelmpi: built"
else
    echo "peer intelmpi: not here, left out"
fi

# Debian's interpreter has matplotlib.
python=/usr/bin/python3
exec "$python" "$here/bench.py" "$bin" "$out"
