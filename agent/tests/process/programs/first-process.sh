#!/bin/sh
# Becomes systemd, as the first process of a container: first-process.sh ROOT, itself the first process of new namespaces (unshare --mount
# --pid --fork --cgroup --ipc --uts --net). The container is this machine's /usr beneath ROOT/usr, ROOT/etc, ROOT/srv for what is to be seen
# from outside, and nothing else. It has the part of the cgroup tree that this process is in, by version 2.
set -eu
root=$1
mount --make-rprivate /
mkdir -p "$root/new"
mount -t tmpfs -o mode=755 none "$root/new"
cd "$root/new"
mkdir -p etc proc sys dev run tmp var srv usr old
mount -t overlay -o "lowerdir=$root/usr:/usr" none usr
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
cp -a "$root/etc/." etc
cp /etc/ld.so.cache etc
mount --bind "$root/srv" srv
mount -t proc none proc
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
mkdir dev/pts dev/shm
for name in null zero full random urandom tty; do : >"dev/$name"; mount --bind "/dev/$name" "dev/$name"; done
mount -t tmpfs -o mode=755 none run
pivot_root . old
exec </dev/null >/dev/null 2>&1
umount -l /old
exec env -i container=migshare PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd --system --log-target=null --show-status=no
