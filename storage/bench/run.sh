#!/bin/bash
# Measures the engine against the bare device in paired blocks: full hits past the page cache, cold misses, small files.
#   storage/bench/run.sh [PERF_PROFILE.csv [PUBLISHED_RESULTS.csv]]     QUICK=1: one pair of short blocks per figure
# Needs root, fio and jq. BENCH_DIR: a directory on the disk to measure (default /var/tmp). Last line: RESULT {json}.
# Figures are medians of the ratios of blocks run one after the other. Nothing here splits over a network.
set -euo pipefail
cd "$(dirname "$0")/.."
blocks=5 seconds=4
[ -z "${QUICK:-}" ] || { blocks=3; seconds=2; }
target=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
cargo build -q --release -p migshare-storage --bin migshare-storage --example emulated_pair
binary=$target/release/migshare-storage

work=$(mktemp -d "${BENCH_DIR:-/var/tmp}/migshare-bench.XXXXXX")
mkdir "$work/backend" "$work/mount"
size=256
dd if=/dev/urandom of="$work/backend/data" bs=1M count=$size status=none
cp "$work/backend/data" "$work/raw"
mkdir "$work/backend/tree"
for i in $(seq 500); do echo "$i" >"$work/backend/tree/$i"; done
sync
"$binary" mount "$work/backend" "$work/mount" --cache "$work/cache" --size 1G --policy cache-only 2>"$work/log" &
daemon=$!
trap 'kill $daemon 2>/dev/null || true; wait $daemon || true; rm -rf "$work"' EXIT
until mountpoint -q "$work/mount"; do kill -0 $daemon || { cat "$work/log"; exit 1; }; sleep 0.1; done

fio_rate() { # file, pattern, block size, depth -> bytes per second
    fio --name=b --filename="$1" --rw="$2" --bs="$3" --iodepth="$4" --ioengine=libaio --direct=1 --time_based \
        --runtime=$seconds --size=${size}M --readonly --output-format=json | jq '.jobs[0].read.bw_bytes'
}
cold_rate() { # file: buffered sequential read with nothing cached
    sync; echo 3 >/proc/sys/vm/drop_caches
    local start end; start=$(date +%s%N); cat "$1" >/dev/null; end=$(date +%s%N)
    echo $((size * 1000000000000 / (end - start)))
}
tree_rate() { # directory: stat and read 500 small files
    sync; echo 3 >/proc/sys/vm/drop_caches
    local start end; start=$(date +%s%N)
    find "$1" -type f -newermt 1970-01-01 -exec cat {} + >/dev/null; end=$(date +%s%N)
    echo $((1000000000000000 / (end - start)))
}
paired() { # name, command for ours, command for theirs -> median ratio
    local ratios=()
    for _ in $(seq $blocks); do
        local ours theirs; ours=$($2); theirs=$($3)
        ratios+=("$(jq -n "$ours / $theirs")")
    done
    printf '%s\n' "${ratios[@]}" | sort -g | sed -n "$(((blocks + 1) / 2))p" >"$work/$1.median"
    echo "$1: ${ratios[*]}"
}
cold_mount() { "$binary" forget "$work/mount/data"; cold_rate "$work/mount/data"; }

# Figures of full hits mean nothing with misses among them.
"$binary" warm --json "$work/mount/data" | jq -e ".cached_bytes == .bytes" >/dev/null || { echo "the file is not wholly cached"; exit 1; }
paired seq_over_raw "fio_rate $work/mount/data read 1M 4" "fio_rate $work/raw read 1M 4"
paired rand_over_raw "fio_rate $work/mount/data randread 4k 16" "fio_rate $work/raw randread 4k 16"
paired noise_floor "fio_rate $work/raw read 1M 4" "fio_rate $work/raw read 1M 4"
paired cold_miss_over_backend cold_mount "cold_rate $work/backend/data"
paired metadata_over_backend "tree_rate $work/mount/tree" "tree_rate $work/backend/tree"
emulated='{}'
[ $# -eq 0 ] || emulated=$("$target/release/examples/emulated_pair" "$@" | tee "$work/emulated" | sed -n 's/^RESULT //p')
[ $# -eq 0 ] || cat "$work/emulated"
figures='{}'
for file in "$work"/*.median; do
    figures=$(jq -c --arg k "$(basename "$file" .median)" --argjson v "$(cat "$file")" '. + {($k): $v}' <<<"$figures")
done
echo "RESULT $(jq -cn --argjson a "$figures" --argjson b "$emulated" '$a + $b')"
