# Part of run.sh: fio writes blocks with checksums in random order and reads them back, buffered and past the page cache,
# while policies flip; then again from a warm cache.
start_daemon "${asked[@]}"
flips() {
    while :; do
        for policy in cache-only backend-only orthus window; do
            "$binary" policy "$work/mount" "$policy" >/dev/null 2>&1 || return 0
            sleep 0.1
        done
    done
}
flips &
flipping=$!
for direct in 0 1; do
    job=(--name=verify --filename="$work/mount/fio-$direct" --size=12M --bsrange=4k-256k --rw=randwrite --direct=$direct
        --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --randseed=7 --output-format=terse
        --aux-path="$work")
    fio "${job[@]}" >"$work/fio.txt" 2>&1 || { tail -n 5 "$work/fio.txt"; bad "fio, direct=$direct"; }
    sleep 2.2
    "$binary" warm "$work/mount/fio-$direct" >/dev/null
    fio "${job[@]}" --verify_only --loops=3 >"$work/fio.txt" 2>&1 || { tail -n 5 "$work/fio.txt"; bad "fio from the cache, direct=$direct"; }
done
kill $flipping
wait $flipping 2>/dev/null || true
echo "fio: verified, $("$binary" stats --json "$work/mount" | sed 's/.*"hit_bytes_total":\([0-9]*\).*/\1/') bytes from the cache or split"
stop_daemon TERM
