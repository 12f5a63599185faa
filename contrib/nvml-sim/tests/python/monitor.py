"""nvitop reads GPUs, MIG devices and their processes, and its screen shows them."""

import os
import subprocess
import sys

from nvitop import Device, MigDevice


def main():
    gpus = Device.all()
    assert [gpu.name() for gpu in gpus] == ["NVIDIA H100 80GB HBM3", "NVIDIA A30"], [gpu.name() for gpu in gpus]
    assert all(gpu.is_mig_mode_enabled() for gpu in gpus)
    assert Device.driver_version() == "550.54.15"
    leaves = gpus[0].mig_devices()
    assert len(leaves) == 2 and all(isinstance(leaf, MigDevice) for leaf in leaves)
    assert [leaf.gpu_instance_id() for leaf in leaves] == [7, 8]
    assert leaves[0].memory_total() == 9984 << 20 and leaves[0].name().endswith("MIG 1g.10gb")
    assert len({leaf.uuid() for leaf in leaves}) == 2
    pid = int(os.environ["COMPUTING"])
    processes = leaves[0].processes()
    assert list(processes) == [pid], processes
    assert processes[pid].gpu_memory() == 512 << 20
    assert leaves[0].memory_used() == 512 << 20 and leaves[1].processes() == {}
    assert gpus[1].mig_devices() == []
    screen = subprocess.run([sys.executable, "-m", "nvitop", "--once", "--ascii"], capture_output=True, text=True)
    assert screen.returncode == 0, screen.stderr
    assert "H100" in screen.stdout and "A30" in screen.stdout and str(pid) in screen.stdout, screen.stdout
    print("monitor: ok")


main()
