#!/usr/bin/env python3
"""A node of two simulated H100 whose jobs come and go while a real Prometheus scrapes its agent; then draw.py draws the dashboard.

    record.py TARGET [SECONDS] > migshare.svg      TARGET: where cargo has built migshared and libnvidia_ml.so (target/debug)

Needs prometheus. Everything that it starts ends with it.
"""
import json, os, random, socket, subprocess, sys, tempfile, time
from pathlib import Path

target, seconds = Path(sys.argv[1]).resolve(), float(sys.argv[2]) if len(sys.argv) > 2 else 90
START = 1_700_000_000


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Agent:
    def __init__(self, path):
        self.path = path

    def ask(self, request):
        with socket.socket(socket.AF_UNIX) as client, client.makefile("rw") as lines:
            client.settimeout(60)
            client.connect(self.path)
            for line in ({"hello": {"protocol": 1, "oldest": 1, "program": "record"}}, request):
                lines.write(json.dumps(line) + "\n")
                lines.flush()
                answer = json.loads(lines.readline())
            return answer

    def ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                status = self.ask({"status": {}})["status"]
                if status["usable"] == status["counted"] == 14:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        sys.exit("the agent does not become ready")


def play(agent, until):
    """Jobs of one to six leaves, which stay for a while; some are refused."""
    chance, jobs, number = random.Random(7), {}, 4700
    while time.monotonic() < until:
        number += 1
        key = {"job": number, "start": START, "uid": 1000}
        answer = agent.ask({"open_lease": {"job": key, "leaves": chance.choice([1, 2, 2, 3, 4, 6])}})
        if "lease" in answer:
            jobs[number] = time.monotonic() + chance.uniform(5, 25)
        for job in [job for job, end in jobs.items() if end < time.monotonic()]:
            del jobs[job]
            agent.ask({"close_lease": {"job": job, "uid": 1000, "start": START}})
        time.sleep(chance.uniform(0.5, 2))


def main(at):
    metrics, prometheus = free(), free()
    (at / "sim.toml").write_text(
        f'state = "{at}/nvml"\nroot = "{at}/root"\ndriver = "550.54.15"\ncuda = "12.4"\ncaps_major = 235\nenforce_caps = false\n'
        '[[gpu]]\nmodel = "h100-sxm-80"\ncount = 2\ngi_order = "half-swapped"\nmig = true\nnuma_node = 0\ncpu_affinity = "0-1"\n'
    )
    (at / "agent.toml").write_text(
        f'node = "n1"\nstate_dir = "{at}/state"\nsocket = "{at}/agent.sock"\nproc_root = "{at}/root/proc"\n'
        f'nvml_library = "{target}/libnvidia_ml.so"\n[metrics]\nlisten = "{metrics}"\n'
        '[slurm]\ndrain = false\nscontrol = "/bin/false"\nsqueue = "/bin/false"\n'
    )
    (at / "prometheus.yml").write_text(
        f'global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: migshare\n    static_configs: [{{targets: ["{metrics}"], labels: {{instance: n1}}}}]\n'
    )
    tied, quiet = ["setpriv", "--pdeathsig", "KILL", "--"], subprocess.DEVNULL
    agent = tied + [target / "migshared", "--config", at / "agent.toml"]
    server = tied + ["prometheus", f"--config.file={at}/prometheus.yml", f"--storage.tsdb.path={at}/tsdb", f"--web.listen-address={prometheus}"]
    environment = dict(os.environ, NVML_SIM_CONFIG=f"{at}/sim.toml")
    children = [subprocess.Popen(agent, env=environment, stdout=quiet), subprocess.Popen(server, stdout=quiet, stderr=quiet)]
    node = Agent(f"{at}/agent.sock")
    node.ready()
    play(node, time.monotonic() + seconds)
    draw = Path(__file__).with_name("draw.py")
    subprocess.run([sys.executable, draw, f"http://{prometheus}", str(seconds)], check=True)
    for child in children:
        child.kill()
        child.wait()


with tempfile.TemporaryDirectory() as directory:
    main(Path(directory))
