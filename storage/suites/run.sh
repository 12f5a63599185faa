#!/bin/sh
# Runs pjdfstest and fsx on a mount of the sidecar and on its backend, and compares: what passes on the backend must pass
# on the mount. Needs root, /dev/fuse and libacl1-dev; installs the suites from the crate registry.
#   storage/suites/run.sh [BINARY]      FSX_OPS=10000 operations per seed, FSX_SEEDS="1 2 … 10"
set -eu
binary=${1:-}
if [ -z "$binary" ]; then
    binary=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/migshare-storage
    cargo build --release -p migshare-storage
fi
tools=${SUITES:-${TMPDIR:-/tmp}/migshare-suites}
[ -x "$tools/bin/pjdfstest" ] && [ -x "$tools/bin/fsx" ] ||
    cargo install -q --root "$tools" pjdfstest@0.2.2 fsx@0.3.2

work=$(mktemp -d)
chmod 755 "$work"
mkdir "$work/backend" "$work/mount"
"$binary" mount "$work/backend" "$work/mount" --cache "$work/cache" --size 64M --attributes-ms 0 2>"$work/log" &
daemon=$!
trap 'kill $daemon 2>/dev/null || true; wait $daemon || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do mountpoint -q "$work/mount" && break; sleep 0.1; done
mountpoint -q "$work/mount" || { cat "$work/log"; exit 1; }

cat >"$work/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
TOML
for side in backend mount; do
    mkdir -m 755 "$work/$side/pj-$side"
    "$tools/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$work/$side/pj-$side" >"$work/pj-$side.txt" 2>&1 || true
    grep Summary "$work/pj-$side.txt" | sed "s/^/pjdfstest on $side: /"
done
# A test that is skipped on the mount (LINK_MAX is unknown through FUSE) is no failure.
awk '$NF == "ok" {print $1}' "$work/pj-backend.txt" | sort -u >"$work/a"
awk '$NF == "ok" || $NF == "skipped" {print $1}' "$work/pj-mount.txt" | sort -u >"$work/b"
lost=$(comm -23 "$work/a" "$work/b")
[ -s "$work/a" ] || { echo "pjdfstest ran nothing"; head "$work/pj-backend.txt"; exit 1; }
[ -z "$lost" ] || { echo "pass on the backend but not on the mount:"; echo "$lost"; failed=1; }

cat >"$work/fsx.toml" <<'TOML'
[weights]
punch_hole = 1.0
copy_file_range = 1.0
fsync = 0.2
invalidate = 0.5
TOML
for seed in ${FSX_SEEDS:-1 2 3 4 5 6 7 8 9 10}; do
    # Policies flip and the cache forgets while fsx runs.
    (while :; do for p in cache-only backend-only orthus window; do
        "$binary" policy "$work/mount" $p && sleep 0.2 || exit 0; done; done) >/dev/null 2>&1 &
    flips=$!
    "$tools/bin/fsx" -f "$work/fsx.toml" -S "$seed" -N "${FSX_OPS:-10000}" "$work/mount/fsx-$seed" >"$work/fsx.txt" 2>&1 ||
        { echo "fsx seed $seed failed:"; tail -n 20 "$work/fsx.txt"; failed=1; }
    kill $flips; wait $flips 2>/dev/null || true
    echo "fsx seed $seed: $(tail -n 1 "$work/fsx.txt")"
done
exit ${failed:-0}
