# Part of run.sh: one fsx per seed, all at once, in rounds. While they run, policies flip, a file larger than the cache is
# read, the cache loses files and finds garbage in its data. fsx keeps its file open, so the daemon is restarted between
# rounds, by SIGTERM and by SIGKILL in turn; each time what fsx left must read the same from the cache and from the backend.
need_crates
seeds=${FSX_SEEDS:-1 2 3 4 5 6 7 8 9 10}
ops=${FSX_OPS:-10000}
rounds=${FSX_ROUNDS:-5}
cat >"$work/fsx.toml" <<'TOML'
[weights]
close_open = 0.5
punch_hole = 1.0
posix_fallocate = 0.5
copy_file_range = 1.0
sendfile = 0.5
fsync = 0.2
invalidate = 0.5
TOML
head -c 48M /dev/urandom >"$work/backend/noise"

garbage() {
    dd if=/dev/urandom of="$work/cache/data" bs=64k seek=$((RANDOM % 256)) count=4 conv=notrunc status=none
}

trouble() {
    while :; do
        for policy in cache-only backend-only orthus window; do
            "$binary" policy "$work/mount" "$policy" >/dev/null 2>&1 || return 0
            dd if="$work/mount/noise" of=/dev/null bs=256k iflag=direct skip=$((RANDOM % 128)) count=64 status=none || bad noise
            garbage
            "$binary" forget "$work/mount/noise" || bad forget
        done
    done
}

# Every file reads the same on both sides, by any policy, from a warm cache, a spoilt one and a new daemon's.
compare() {
    local policy seed
    for policy in cache-only backend-only window; do
        "$binary" policy "$work/mount" "$policy"
        for seed in $seeds; do
            dd if="$work/mount/fsx-$seed" bs=64k iflag=direct status=none | cmp -s - "$work/backend/fsx-$seed" ||
                bad "fsx-$seed differs from the backend: $1, $policy"
        done
    done
}

# With write-back, until all of it is at the backend.
flushed() {
    for _ in $(seq 600); do
        "$binary" stats --json "$work/mount" | grep -q '"dirty_files":[1-9]' || return 0
        sleep 0.1
    done
    bad "dirty data is not flushed"
}

# $1: operations per seed; $2: first seed of this round.
run_fsx() {
    local seed
    declare -A runs=()
    trouble &
    local troubles=$!
    for seed in $seeds; do
        "$tools/bin/fsx" -f "$work/fsx.toml" -S $((seed * 1000 + $2)) -N "$1" "$work/mount/fsx-$seed" >"$work/fsx-$seed.txt" 2>&1 &
        runs[$seed]=$!
    done
    for seed in $seeds; do
        if wait "${runs[$seed]}"; then
            done_ops=$((done_ops + $1))
        else
            tail -n 20 "$work/fsx-$seed.txt"
            bad "fsx seed $((seed * 1000 + $2)), mounted with ${arguments[*]:-nothing}"
        fi
    done
    kill $troubles
    wait $troubles 2>/dev/null || true
}

warm_all() {
    local seed files=()
    sleep 2.2 # after this a file counts as settled and is admitted to the cache
    for seed in $seeds; do files+=("$work/mount/fsx-$seed"); done
    "$binary" warm "${files[@]}" >/dev/null 2>&1 || bad warm
}

restart() {
    hits=$((hits + $("$binary" stats --json "$work/mount" | sed 's/.*"hit_bytes_total":\([0-9]*\).*/\1/')))
    stop_daemon "$([ $((round % 2)) = 0 ] && echo TERM || echo KILL)"
    start_daemon "${arguments[@]}"
}

arguments=("${asked[@]}")
done_ops=0
hits=0
start_daemon "${arguments[@]}"
for round in $(seq "$rounds"); do
    run_fsx $((ops / rounds)) "$round"
    warm_all
    compare warm
    for _ in 1 2 3 4 5 6; do garbage; done
    compare "garbage in the cache"
    restart
    compare "after a restart"
done
[ "$hits" -gt 0 ] || bad "the cache was never hit"
echo "fsx: $done_ops operations, $rounds restarts, $hits bytes compared from the cache"
stop_daemon TERM

# The daemon ends while what fsx left is dirty, and nothing of it may be lost.
for local in "" "--fsync local"; do
    # shellcheck disable=SC2206
    arguments=("${back[@]}" $local)
    done_ops=0
    start_daemon "${arguments[@]}"
    for round in 1 2; do
        run_fsx $((ops / 10)) "9$round"
        before=$(cd "$work/mount" && md5sum fsx-*)
        restart
        [ "$before" = "$(cd "$work/mount" && md5sum fsx-*)" ] || bad "other bytes after a restart with dirty data"
        flushed
        compare "flushed"
        warm_all
        compare "cached after a flush"
    done
    echo "fsx: $done_ops operations with ${arguments[*]}"
    stop_daemon TERM
done
