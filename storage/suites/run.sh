#!/bin/bash
# Runs suites that others wrote on a mount of the sidecar: pjdfstest on the mount and on its backend, where what passes on
# the backend must pass on the mount; fsx, many at a time, with policy flips, eviction, garbage in the cache and restarts of
# the daemon; fio with verification. The first two also with write-back and with what the kernel remembers of attributes. Needs root, /dev/fuse, libacl1-dev and fio; installs pjdfstest and fsx as crates.
#   storage/suites/run.sh [BINARY]
#   SUITES=DIR where the tools are or go · FSX_SEEDS="1 2 … 10" · FSX_OPS=10000 operations per seed, in FSX_ROUNDS=5 rounds; a
#   fifth of that with write-back
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin
binary=${1:-}
if [ -z "$binary" ]; then
    target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    binary=$target/release/migshare-storage
    cargo build --release -p migshare-storage
fi
tools=${SUITES:-${TMPDIR:-/tmp}/migshare-suites}
need_crates() {
    [ -x "$tools/bin/pjdfstest" ] && [ -x "$tools/bin/fsx" ] ||
        cargo install -q --root "$tools" pjdfstest@0.2.2 fsx@0.3.2
}

work=$(mktemp -d)
chmod 755 "$work"
mkdir "$work/backend" "$work/mount"
daemon=
failed=0
bad() { echo "FAILED: $*"; failed=1; }

# What every attribute is asked for at the backend, and what an administrator gets who says nothing.
asked=(--attributes-ms 0)
back=(--writes back --dirty 16M)
# The cache is smaller than what is read, so extents are evicted all the time. Arguments: of the mount.
start_daemon() {
    "$binary" mount "$work/backend" "$work/mount" --cache "$work/cache" --size 16M "$@" 2>>"$work/log" &
    daemon=$!
    for _ in $(seq 300); do
        mountpoint -q "$work/mount" && return
        sleep 0.1
    done
    cat "$work/log"
    exit 1
}

# $1: the signal; after KILL the mount point has to be cleaned up.
stop_daemon() {
    kill "-$1" "$daemon"
    wait "$daemon" 2>/dev/null || [ "$1" = KILL ] || bad "the daemon ended with an error"
    ! mountpoint -q "$work/mount" && stat "$work/mount" >/dev/null 2>&1 || umount -l "$work/mount"
}

clean_up() {
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    umount -l "$work/mount" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

for phase in pjdfstest fsx fio; do
    case " ${PHASES:-pjdfstest fsx fio} " in *" $phase "*) ;; *) continue ;; esac
    # shellcheck source=/dev/null
    . "$here/$phase.sh"
done
exit $failed
