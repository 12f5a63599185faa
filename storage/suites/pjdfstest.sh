# Part of run.sh: pjdfstest on the backend and on the mount.
need_crates
cat >"$work/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
[settings]
naptime = 0.02 # some ticks of the kernel's clock, by which times are told apart
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
TOML
# What may be skipped on the mount and runs on the backend, each with its reason. One that is not skipped must go from here.
declare -A skips=(
    [link::link_count_max]="pathconf(2) knows no LINK_MAX of a FUSE file system, so the test has no count to go to"
)

# $1: backend or mount; $2: names the output.
pjdfstest() {
    mkdir -m 755 "$work/$1/pj-$2"
    "$tools/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$work/$1/pj-$2" >"$work/pj-$2.txt" 2>&1 || true
    grep Summary "$work/pj-$2.txt" | sed "s/^/pjdfstest on $1 ($2): /"
}
# $1: what the outcome is; $2: names the output.
with_outcome() { awk -v outcome="$1" '$NF == outcome {print $1}' "$work/pj-$2.txt" | sort -u; }

pjdfstest backend bare
with_outcome ok bare >"$work/a"
[ -s "$work/a" ] || { head "$work/pj-bare.txt"; bad "pjdfstest ran nothing"; }
# $1: names a way of mounting; the rest: its arguments.
pjdfstest_on_mount() {
    local name=$1 lost; shift
    start_daemon "$@"
    pjdfstest mount "$name"
    (with_outcome ok "$name"; printf '%s\n' "${!skips[@]}") | sort -u >"$work/b"
    lost=$(comm -23 "$work/a" "$work/b")
    [ -z "$lost" ] || bad "pass on the backend but not on the mount ($name): $lost"
    for test in "${!skips[@]}"; do
        with_outcome skipped "$name" | grep -qxF "$test" || bad "$test is in the list of skipped tests and was not skipped ($name)"
    done
    stop_daemon TERM
}
pjdfstest_on_mount asked "${asked[@]}"
pjdfstest_on_mount default
pjdfstest_on_mount back "${back[@]}"
pjdfstest_on_mount back-local "${back[@]}" --fsync local
