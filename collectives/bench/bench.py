"""Measures collectives of migshare and its peers, interleaved, and compares.

All peers of one rank count are started once and wait for commands in a blocking read. For each operation and size
the rounds go through all peers in turn, in an order that is rotated, so that a change of the machine's speed meets
all of them. A figure is the minimum and the median over all samples of all rounds; a ratio is the peer's median
over ours.
"""

import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

QUICK = os.environ.get("QUICK") == "1"
ROUNDS = 6 if QUICK else 8  # of each of two crews
ROUND_NS = 12e6 if QUICK else 25e6  # time that one peer gets per round, about
# Seconds after which a size gets no more rounds of a crew, but it gets three: a busy machine must not make the run endless.
SIZE_BUDGET = 2 if QUICK else 15
ROUNDS_MIN = 3
OPERATIONS = ["broadcast", "reduce", "reduce_scatter", "all_gather", "gather", "scatter", "all_to_all", "barrier"]
BLOCKS = {"reduce_scatter", "all_gather", "gather", "scatter", "all_to_all"}
# Operations of 2 ranks that are also measured with sources that each rank has written just before the call. A benchmark sends the
# same bytes again and again, which flatters whoever reads them by one copy: they lie in the reader's cache already.
FRESH = "fresh_"
FRESH_OPERATIONS = ["all_reduce", *OPERATIONS[:-1]]
FRESH_SIZES = [size << 10 for size in ((32, 512, 8192) if QUICK else (8, 32, 128, 512, 2048, 8192, 32768))]
# A message there and one back, of these lengths; in no key of the result.
PING_PONG = "ping_pong"
PING_PONG_SIZES = [size << 10 for size in ((64, 1024, 16384) if QUICK else (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384))]
BUFFER = 64 << 20
# The non-temporal copy on all ranks at once, and the all-reduce of buffers in the segment (of 4 MiB at most).
BOUND, SEGMENT = "bound", "all_reduce_segment"
OWN = ("migshare", BOUND, SEGMENT)
BOUND_SIZES = {size << 20 for size in (1, 2, 4, 8, 16, 32, 64)}
SEGMENT_SIZES = {size << 20 for size in (1, 2, 4)}
# From here on the fraction of the bound counts.
LARGE = 16 << 20
TCP_ROUNDS = 5 if QUICK else 11


def sizes(step):
    size = 8
    while size <= BUFFER:
        yield size
        size *= step
    if size // step != BUFFER:
        yield BUFFER


def cases(ranks, step, operations):
    """What is measured with this many ranks: operation, size in bytes, count of elements, and operations beside it."""
    two = ranks == 2
    for size in sorted({*sizes(step), *((LARGE, *SEGMENT_SIZES) if two else ())}):
        more = [BOUND] * (two and size in BOUND_SIZES) + [SEGMENT] * (two and size in SEGMENT_SIZES)
        yield "all_reduce", size, size // 4, more

    def in_blocks(operation, size):
        return (size // ranks if operation in BLOCKS else size) // 4

    for operation in operations:
        for size in [4] if operation == "barrier" else sizes(step * 4):
            if in_blocks(operation, size):
                yield operation, size, in_blocks(operation, size), ()
    for operation in FRESH_OPERATIONS if two else ():
        for size in FRESH_SIZES:
            yield FRESH + operation, size, in_blocks(operation, size), ()
    for operation in (PING_PONG, FRESH + PING_PONG) if two else ():
        for size in PING_PONG_SIZES:
            yield operation, size, size // 4, ()


class Peer:
    """The processes of one peer with a number of ranks."""

    def __init__(self, name, command, ranks, folder, env):
        self.name, self.ranks = name, ranks
        self.pipes = [f"{folder}/{name}.{rank}" for rank in range(ranks)]
        for pipe in [*self.pipes, f"{folder}/{name}.out"]:
            os.mkfifo(pipe)
        self.processes = [
            subprocess.Popen(argv, env={**os.environ, **env, **extra}, pass_fds=fds, stderr=subprocess.DEVNULL)
            for argv, extra, fds in command
        ]
        self.into = [self.open(pipe, os.O_WRONLY) for pipe in self.pipes]
        self.out = os.fdopen(self.open(f"{folder}/{name}.out", os.O_RDONLY), "r")

    def open(self, pipe, mode):
        deadline = time.monotonic() + 60
        while True:
            try:
                descriptor = os.open(pipe, mode | os.O_NONBLOCK if mode == os.O_WRONLY else mode)
                os.set_blocking(descriptor, True)
                return descriptor
            except OSError:  # nobody reads yet
                if time.monotonic() > deadline or any(p.poll() is not None for p in self.processes):
                    raise RuntimeError(f"{self.name} does not start") from None
                time.sleep(0.02)

    def run(self, operation, count, calls, samples):
        """Nanoseconds per call, or None when the peer has no such operation."""
        for pipe in self.into:
            os.write(pipe, f"{operation} {count} {calls} {samples}\n".encode())
        answer = self.out.readline().split()
        if not answer:
            raise RuntimeError(f"{self.name} died in {operation} of {count} elements")
        return None if answer == ["none"] else [float(value) for value in answer]

    def stop(self):
        for pipe in self.into:
            os.close(pipe)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def start(name, binary, ranks, folder, oversubscribed):
    """Starts a peer in the mode that suits it; with more ranks than cores, the yielding one."""
    worker = [f"{binary}/{name}", folder, name]
    if name == "openmpi":
        launcher = ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
        launcher += ["--mca", "mpi_yield_when_idle", str(int(oversubscribed))]
        return Peer(name, [(launcher + worker, {}, ())], ranks, folder, {})
    if name == "mpich":
        # CH4 yields by itself when MPIR_CVAR_POLLS_BEFORE_YIELD polls found nothing; 1 is its most yielding mode.
        env = {"MPIR_CVAR_POLLS_BEFORE_YIELD": "1"} if oversubscribed else {}
        return Peer(name, [(["mpirun.mpich", "-n", str(ranks), *worker], {}, ())], ranks, folder, env)
    if name == "intelmpi":
        prefix = f"{binary}/intel"
        env = {"I_MPI_ROOT": prefix, "I_MPI_FABRICS": "shm", "I_MPI_PIN": "0", "LD_LIBRARY_PATH": f"{prefix}/lib"}
        env |= {"PATH": f"{prefix}/bin:{os.environ['PATH']}", "I_MPI_THREAD_YIELD": "2" if oversubscribed else "0"}
        return Peer(name, [([f"{prefix}/bin/mpirun", "-n", str(ranks), *worker], {}, ())], ranks, folder, env)
    fds = ()
    env = {"MIGSHARE_SIZE": str(ranks)}
    if name == "migshare":
        fd = sealed_memory(256 << 20)
        fds, env["MIGSHARE_SEGMENT_FD"] = (fd,), str(fd)
    return Peer(name, [(worker, {"MIGSHARE_RANK": str(rank)}, fds) for rank in range(ranks)], ranks, folder, env)


def sealed_memory(size):
    import fcntl

    fd = os.memfd_create("bench", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    add_seals, seal, shrink, grow = 1033, 1, 2, 4  # linux/fcntl.h
    fcntl.fcntl(fd, add_seals, seal | shrink | grow)
    return fd


def measure(peers, operation, count, more=(), rounds=ROUNDS):
    """Samples by name, in interleaved rounds: of `operation` by all peers, and of `more` operations by the first."""
    plan, samples = {}, {}
    for name, peer, what in [(peer.name, peer, operation) for peer in peers] + [(what, peers[0], what) for what in more]:
        probe = peer.run(what, count, 1, 2)
        if probe is None:
            continue
        # How many calls fill a round: long enough for the clock, short enough for several samples.
        calls = max(1, min(2000, int(20e3 / max(min(probe), 50))))
        plan[name] = peer, what, calls, max(1, min(200, int(ROUND_NS / max(min(probe) * calls, 1))))
        samples[name] = []
    order = list(plan)
    begin = time.monotonic()
    for turn in range(rounds):
        if turn >= ROUNDS_MIN and time.monotonic() - begin > SIZE_BUDGET:
            break
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            peer, what, calls, wanted = plan[name]
            started = time.monotonic_ns()
            samples[name] += peer.run(what, count, calls, wanted)
            # The probe was lucky: fewer samples from now on.
            excess = (time.monotonic_ns() - started) / (4 * ROUND_NS)
            if excess > 1:
                plan[name] = peer, what, calls, max(1, int(wanted / excess))
    return samples


def geomean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def summary(samples):
    return {name: (min(values), statistics.median(values)) for name, values in samples.items() if values}


def best_ratio(figures):
    """The best peer's median over ours."""
    others = [median for name, (_, median) in figures.items() if name not in OWN]
    return min(others) / figures["migshare"][1] if others else None


def show(operation, ranks, size, figures, note=""):
    cells = "  ".join(f"{name} {low / 1e3:9.2f} {mid / 1e3:9.2f}" for name, (low, mid) in figures.items())
    ratio = best_ratio(figures) if "migshare" in figures else None
    print(f"{operation:18} {ranks} ranks {size:>9} B  {cells}  " + (f"ratio {ratio:.2f}" if ratio else "") + note, flush=True)


class Bench:
    def __init__(self, binary, out):
        self.binary, self.out = binary, out
        self.names = ["migshare"] + [n for n in ("openmpi", "mpich", "intelmpi", "gloo") if os.path.exists(f"{binary}/{n}")]
        self.samples = {}  # (operation, ranks, size) -> {name: nanoseconds}
        self.table = {}  # (operation, ranks) -> {size: figures}
        self.result = {}

    def crew(self, ranks, folder, order):
        """All peers, started in this order."""
        peers = {name: start(name, self.binary, ranks, folder, ranks > os.cpu_count()) for name in order}
        return [peers[name] for name in self.names]

    def run_ranks(self, ranks, step, operations):
        """Measures every case with two crews: whoever starts earlier gets pages that are more scattered, and is slower by them."""
        for order in (self.names, self.names[::-1]):
            with tempfile.TemporaryDirectory() as folder:
                peers = self.crew(ranks, folder, order)
                for operation, size, count, more in cases(ranks, step, operations):
                    self.record(operation, ranks, size, measure(peers, operation, count, more))
                for peer in peers:
                    peer.stop()

    def own_ratios(self, name, least):
        """Median of `name` over that of our ordinary all-reduce of 2 ranks, from `least` bytes on."""
        rows = self.table["all_reduce", 2].items()
        return {size: row[name][1] / row["migshare"][1] for size, row in rows if name in row and size >= least}

    def record(self, operation, ranks, size, samples):
        """Adds samples to what other crews have given."""
        known = self.samples.setdefault((operation, ranks, size), {})
        for name, values in samples.items():
            known.setdefault(name, []).extend(values)
        figures = summary(known)
        self.table.setdefault((operation, ranks), {})[size] = figures
        show(operation, ranks, size, figures)

    def ratios(self, operation, ranks):
        rows = self.table.get((operation, ranks), {})
        return {size: ratio for size, figures in rows.items() if (ratio := best_ratio(figures))}

    def finish(self):
        two = self.ratios("all_reduce", 2)
        worst = min(two, key=two.get)
        others = [ratio for op in OPERATIONS for ratio in self.ratios(op, 2).values()]
        fractions = self.own_ratios(BOUND, LARGE)
        gains = {size: 1 / ratio for size, ratio in self.own_ratios(SEGMENT, 0).items()}
        self.result.update(
            allreduce_worst_ratio=round(two[worst], 3),
            allreduce_worst_size=worst,
            allreduce_geomean=round(geomean(two.values()), 3),
            bound_fraction_large=round(min(fractions.values()), 3),
            segment_gain=round(min(gains.values()), 3),
            others_geomean=round(geomean(others), 3) if others else None,
            peers=versions(self.names, self.binary),
        )
        for ranks in (4, 8):
            more = self.ratios("all_reduce", ranks)
            large = [ratio for size, ratio in more.items() if size >= 4096]
            small = [ratio for size, ratio in more.items() if size < 4096]
            if more:
                print(f"all_reduce, {ranks} ranks: worst from 4 KiB {min(large):.2f}, below {min(small):.2f}")
        fresh = {op: geomean(self.ratios(FRESH + op, 2).values()) for op in FRESH_OPERATIONS}
        print("fresh sources, geometric means: " + ", ".join(f"{op} {mean:.2f}" for op, mean in fresh.items() if mean))
        for what, rows in (("fraction of the bound", fractions), ("gain by buffers in the segment", gains)):
            print(f"{what}: " + ", ".join(f"{size >> 20} MiB {value:.2f}" for size, value in rows.items()))

    def net(self):
        """The NCCL net plugin against a loopback TCP stream of the same messages."""
        for label, buffers, key in (("hot", 1, "net_over_tcp"), ("rotating", 32, "net_over_tcp_rotating")):
            rates = {"plugin": [], "tcp": []}
            cpu = {"plugin": [], "tcp": []}
            for _ in range(TCP_ROUNDS):
                for way in rates:
                    argv = [f"{self.binary}/net", way, f"{self.binary}/libnccl-net-migshare.so", str(buffers)]
                    rate, used = map(float, subprocess.check_output(argv, text=True).split())
                    rates[way].append(rate)
                    cpu[way].append(used)
            middle = {way: statistics.median(values) for way, values in rates.items()}
            self.result[key] = round(middle["plugin"] / middle["tcp"], 3)
            self.result[f"{key}_cpu"] = {way: round(statistics.median(values), 3) for way, values in cpu.items()}
            for way in rates:
                print(f"net {label:9} {way:7} {middle[way]:.2f} GB/s, CPU {statistics.median(cpu[way]):.3f} ns/byte")


def versions(names, binary):
    commands = {
        "openmpi": (["mpirun.openmpi", "--version"], r"\) ([\d.]+)"),
        "mpich": (["mpichversion"], r"MPICH Version:\s+(\S+)"),
        "intelmpi": ([f"{binary}/intel/bin/pip", "show", "impi-rt"], r"Version: (\S+)"),
        "gloo": (["dpkg-query", "-W", "-f", "${Version}", "libgloo-dev"], r"(\S+)"),
    }
    found = {}
    for name in names:
        if name in commands:
            argv, pattern = commands[name]
            text = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
            match = re.search(pattern, text)
            found[name] = match.group(1) if match else "unknown"
    return found


def plot(bench):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    for operation in {operation for operation, _ in bench.table}:
        counts = sorted(ranks for op, ranks in bench.table if op == operation)
        figure, axes = pyplot.subplots(1, len(counts), figsize=(6 * len(counts), 4.5), squeeze=False)
        for axis, ranks in zip(axes[0], counts):
            rows = bench.table[operation, ranks]
            for name in [*bench.names, BOUND, SEGMENT]:
                points = [(size, figures[name]) for size, figures in rows.items() if name in figures]
                if points:
                    at = [size for size, _ in points]
                    line = axis.plot(at, [mid / 1e3 for _, (_, mid) in points], marker=".", label=name)
                    axis.plot(at, [low / 1e3 for _, (low, _) in points], linestyle=":", color=line[0].get_color())
            axis.set(xscale="log", yscale="log", xlabel="bytes", ylabel="µs (median; dotted: minimum)")
            axis.set_title(f"{operation}, {ranks} ranks")
            axis.legend()
        figure.tight_layout()
        figure.savefig(f"{bench.out}/{operation}.svg")
        pyplot.close(figure)


def main():
    binary, out = sys.argv[1:3]
    bench = Bench(binary, out)
    for ranks, step in ((2, 4), (4, 8), (8, 8)) if QUICK else ((2, 2), (4, 4), (8, 4)):
        bench.run_ranks(ranks, step, OPERATIONS if ranks == 2 else ["barrier"])
    bench.net()
    bench.finish()
    rows = {f"{op}/{ranks}": rows for (op, ranks), rows in bench.table.items()}
    with open(f"{out}/figures.json", "w") as file:
        json.dump({"figures_ns_min_median": rows, **bench.result}, file, indent=1)
    plot(bench)
    print(f"figures and plots are in {out}")
    print("RESULT " + json.dumps(bench.result))


if __name__ == "__main__":
    main()
