#!/usr/bin/env bash
# Installs what building, demo and tests of migshare need on Debian 12: Slurm, munge, clang's library for
# bindgen, and in a virtual environment NVIDIA's Python binding of NVML, scikit-learn (for its data set of digits),
# matplotlib and setuptools (for the wheel). Run as root; does nothing when everything is there. It starts
# no service: demo and tests bring their own daemons up on loopback.
#
# usage: install-needs.sh demo|all|guest [TARGET_DIR]     the virtual environment becomes TARGET_DIR/venv; guest: QEMU too, and
#        Debian's kernel unpacked in TARGET_DIR/guest, for the storage sidecar's test over real NVMe/TCP
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}
target=${2:-${CARGO_TARGET_DIR:-$here/../../target}}

packages=(
  gcc libc6-dev                 # rustc links with them
  slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge
  libslurm-dev clang libclang-dev   # the plugin is built against Slurm's headers by bindgen
  python3-numpy                 # the training in the demo, as any user; tests of the collectives' Python package
  nbdkit libnbd-bin iperf3 iproute2   # a remote file system in network namespaces, for the storage sidecar
  python3-venv                  # NVIDIA's nvidia-ml-py and nvitop are the witnesses of the simulated NVML
)
for_tests=(
  binutils strace systemd       # tests look at exported symbols, end a process at a chosen system call, run the unit in a container
  prometheus                    # scrapes the agent in a test; promtool checks figures and alerts
  fuse3                         # mounts of the storage sidecar by users
  procps                        # kill and pgrep, which a minimal Debian has not
  fio acl                       # writes and verifies on such mounts; access control lists there
  glusterfs-server glusterfs-client   # a remote file system of others
  bindfs                        # a bare pass-through FUSE to compare with
  python3-torch openmpi-bin     # tests of the collectives' Python package, and of launchers in a job step
)

for_guest=(
  qemu-system-x86 busybox-static kmod   # the guest, its shell, and the order of its modules
  dmsetup e2fsprogs binutils            # run in the guest; strip makes its image small
)

say() { printf 'needs: %s\n' "$*"; }
fail() { printf 'needs: %s\n' "$*" >&2; exit 1; }

missing_packages() {
  local name
  for name in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || printf '%s\n' "$name"
  done
}

# Debian starts a package's services when it is installed, unless this file says no.
forbid_service_start() {
  local policy=/usr/sbin/policy-rc.d
  [ ! -e $policy ] || return 0
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

# Nor are they to come up with the next boot: only those that this script brought.
disable_new_services() {
  [ -d /run/systemd/system ] || return 0
  local name
  for name in "$@"; do
    case $name in slurmctld | slurmd | munge | prometheus | glusterd | iperf3) systemctl disable --quiet "$name" || true ;; esac
  done
}

install_packages() {
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand what provides: $*"
  [ "$(id -u)" = 0 ] || fail "root is needed to install: $*"
  say "installing $* (a few minutes on a fresh machine)"
  forbid_service_start
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "$@"
  disable_new_services "$@"
}

# Debian's own python3, whatever else is first in PATH: jobs of other users must be able to run it.
make_venv() {
  local wanted=$here/python-needs.txt venv=$target/venv
  if [ -x "$venv/bin/python" ] && cmp -s "$wanted" "$venv/installed.txt"; then return 0; fi
  say "python packages of $(basename "$wanted") into $venv"
  mkdir -p "$target"
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$venv/installed.txt"
}

# Unpacked, not installed: no boot loader of this machine hears of it.
fetch_guest_kernel() {
  local dir=$target/guest name
  [ ! -e "$dir/complete" ] || return 0
  name=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
  [ -n "$name" ] || fail "apt knows no linux-image-amd64: the guest's kernel is Debian's"
  say "kernel of the guest ($name) into $dir"
  rm -rf "$dir" && mkdir -p "$dir"
  (cd "$dir" && apt-get download -q "$name" && dpkg-deb -x "$name"_*.deb . && rm "$name"_*.deb)
  depmod -b "$dir" "${name#linux-image-}"
  touch "$dir/complete"
}

case $what in
  demo) ;;
  guest) packages=("${for_guest[@]}") ;;
  all) packages+=("${for_tests[@]}") ;;
  *) fail "demo, all or guest, not $what" ;;
esac
command -v cargo >/dev/null || fail "no cargo in PATH: install a Rust toolchain first (README.md says which)"
mapfile -t missing < <(missing_packages)
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
if [ "$what" = guest ]; then fetch_guest_kernel; else make_venv; fi
say "everything is there"
