# Part of run.sh: pjdfstest on the backend and on the mount.
need_crates
cat >"$work/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
TOML
start_daemon
for side in backend mount; do
    mkdir -m 755 "$work/$side/pj-$side"
    "$tools/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$work/$side/pj-$side" >"$work/pj-$side.txt" 2>&1 || true
    grep Summary "$work/pj-$side.txt" | sed "s/^/pjdfstest on $side: /"
done
# A test that is skipped on the mount (LINK_MAX is unknown through FUSE) is no failure.
awk '$NF == "ok" {print $1}' "$work/pj-backend.txt" | sort -u >"$work/a"
awk '$NF == "ok" || $NF == "skipped" {print $1}' "$work/pj-mount.txt" | sort -u >"$work/b"
lost=$(comm -23 "$work/a" "$work/b")
[ -s "$work/a" ] || { head "$work/pj-backend.txt"; bad "pjdfstest ran nothing"; }
[ -z "$lost" ] || bad "pass on the backend but not on the mount: $lost"
stop_daemon TERM
