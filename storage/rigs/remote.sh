#!/bin/bash
# A remote file system behind a network that can be shaped, shared and cut, and a cache device with a rate: all in network
# namespaces and user space, from Debian packages (nbdkit, libnbd-bin, glusterfs-server, iperf3, iproute2). Needs root.
#
#   remote.sh up nbd|gluster DIR MIB [CONNECTIONS]
#                                       a server with MIB of space; its client's mount is DIR/remote; CONNECTIONS (4) of nbd
#   remote.sh cache DIR MIB             a cache device; its file system is DIR/local
#   remote.sh rate DIR MBYTES           what the network carries from now on, in MB/s of file data
#   remote.sh cache-rate DIR MBYTES     what the cache device delivers from now on, in MB/s
#   remote.sh flows DIR N               N competing TCP flows (iperf3) through the same bottleneck, 0: none
#   remote.sh link DIR up|down          the server's end of the cable
#   remote.sh down DIR                  ends everything that was started for DIR
#   remote.sh check nbd|gluster|cache   says what is missing here, and fails, when something is
#
# The server's and the client's end of the cable are in namespaces of their own, so that rigs do not see each other and no
# address of the machine is used. Rates of the cache device are nbdkit's (smooth); blkio throttling opens and shuts in slices of
# 100 ms, which no reader of two devices can use. Both devices keep their data in memory: a disk that others use, or a page cache
# that somebody drops, would be measured instead.
set -euo pipefail
server_ip=10.213.7.2 client_ip=10.213.7.1 port=10809

say() { printf 'remote.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
remember() { echo "$2" >>"$dir/state/$1"; }
in_server() { "${server[@]}" "$@"; }
in_client() { "${client[@]}" "$@"; }
until_true() { # what, command
    local what=$1 i; shift
    for i in $(seq 300); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
    fail "in vain for 30 s: $what"
}

check() {
    local tool missing=()
    [ "$(id -u)" = 0 ] || fail "root is needed: namespaces, mounts and loop devices"
    case $1 in
    gluster) set -- ip tc nsenter glusterd gluster mount.glusterfs iperf3 ;;
    nbd) set -- ip tc nsenter nbdkit nbdfuse losetup mkfs.ext4 iperf3 ;;
    cache) set -- nbdkit nbdfuse losetup mkfs.ext4 ;;
    *) fail "nbd, gluster or cache, not $1" ;;
    esac
    for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ ${#missing[@]} = 0 ] || fail "not installed: ${missing[*]} (packages nbdkit libnbd-bin glusterfs-server iperf3 iproute2)"
    [ -e /dev/fuse ] || fail "no /dev/fuse: load the fuse module"
    local probe=mssp$$
    ip link add "$probe" type veth peer name "${probe}p" 2>/dev/null || fail "the kernel has no veth"
    tc qdisc add dev "$probe" root handle 1: htb 2>/dev/null || { ip link del "$probe"; fail "the kernel has no HTB"; }
    ip link del "$probe"
}

shape() { # namespace's function, device, MB/s of payload
    local mbit=$(($3 * 8 * 106 / 100)) what=change
    if [ ! -e "$dir/state/shaped.$2" ]; then
        what=add
        touch "$dir/state/shaped.$2"
        "$1" tc qdisc add dev "$2" root handle 1: htb default 10 r2q 10000
    fi
    for class in "parent 1: classid 1:1" "parent 1:1 classid 1:10"; do
        # shellcheck disable=SC2086
        "$1" tc class $what dev "$2" $class htb rate "${mbit}mbit" burst 256k cburst 256k
    done
    [ $what = change ] || "$1" tc qdisc add dev "$2" parent 1:10 pfifo limit 2000
}

network() {
    ip netns add "$id-s"
    ip netns add "$id-c"
    ip link add srv netns "$id-s" type veth peer name cli netns "$id-c"
    in_server ip addr add "$server_ip/24" dev srv
    in_client ip addr add "$client_ip/24" dev cli
    for side in server client; do
        in_$side ip link set lo up
        in_$side ip link set "$([ $side = server ] && echo srv || echo cli)" up
    done
    shape in_server srv 1000
    shape in_client cli 1000
}

disk() { # name, MIB, where it is mounted, nbdfuse's URI, its namespace function and its connections
    local name=$1 mount=$3 uri=$4 enter=$5 connections=$6 loop
    mkdir -p "$dir/state/$name.nbd" "$mount"
    # shellcheck disable=SC2086
    $enter nbdfuse -P "$dir/state/$name.fuse.pid" -C "$connections" "$dir/state/$name.nbd" "$uri" >>"$dir/state/log" 2>&1 &
    remember pids $!
    until_true "nbdfuse of $name" test -s "$dir/state/$name.fuse.pid"
    remember mounts "$dir/state/$name.nbd"
    loop=$(losetup -f --show --direct-io=on "$dir/state/$name.nbd/nbd")
    remember loops "$loop"
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 -O ^has_journal "$loop"
    mount -o noatime "$loop" "$mount"
    remember mounts "$mount"
}

up_nbd() {
    in_server nbdkit -P "$dir/state/server.pid" -i $server_ip -p $port --threads 16 memory "$1M" \
        >>"$dir/state/log" 2>&1
    until_true "nbdkit" test -s "$dir/state/server.pid"
    remember pids "$(cat "$dir/state/server.pid")"
    disk remote "$1" "$dir/remote" "nbd://$server_ip:$port" "${client[*]}" "${2:-4}"
}

up_gluster() {
    local g=$dir/state/gluster
    mkdir -p "$g/work" "$g/brick" "$dir/remote"
    cat >"$g/vol" <<VOL
volume management
    type mgmt/glusterd
    option working-directory $g/work
    option run-directory $g
    option transport-type socket
    option transport.socket.bind-address $server_ip
    option transport.socket.keepalive-time 10
    option glusterd-sockfile $g/sock
end-volume
VOL
    "${server[@]}" glusterd -N -f "$g/vol" -p "$g/pid" -l "$g/log" &
    remember pids $!
    # Asked too early, the client waits for ten seconds.
    until_true "the socket of glusterd" test -S "$g/sock"
    until_true glusterd in_server gluster --glusterd-sock="$g/sock" --mode=script volume info
    in_server gluster --glusterd-sock="$g/sock" --mode=script volume create gv0 "$server_ip:$g/brick" force >>"$dir/state/log"
    for x in io-cache read-ahead quick-read open-behind; do
        in_server gluster --glusterd-sock="$g/sock" --mode=script volume set gv0 performance.$x off >>"$dir/state/log"
    done
    in_server gluster --glusterd-sock="$g/sock" --mode=script volume start gv0 >>"$dir/state/log"
    until_true "the brick" sh -c "ls $g/work/vols/gv0/run/*.pid $g/vols/gv0/*.pid 2>/dev/null | grep -q ."
    for pid in $(cat "$g"/work/vols/gv0/run/*.pid "$g"/vols/gv0/*.pid 2>/dev/null); do remember pids "$pid"; done
    "${client[@]}" glusterfs -N --volfile-server=$server_ip --volfile-id=gv0 --log-file="$g/client.log" "$dir/remote" &
    remember pids $!
    until_true "the mount of GlusterFS" mountpoint -q "$dir/remote"
    remember mounts "$dir/remote"
}

cache_device() {
    local rate_file=$dir/state/cache.rate
    echo 8000000000 >"$rate_file"
    nbdkit -P "$dir/state/cache.pid" -U "$dir/state/cache.sock" --threads 16 --filter=rate memory "$1M" \
        rate=8000000000 rate-file="$rate_file" burstiness=0.01 >>"$dir/state/log" 2>&1
    until_true "nbdkit of the cache" test -s "$dir/state/cache.pid"
    remember pids "$(cat "$dir/state/cache.pid")"
    disk cache "$1" "$dir/local" "nbd+unix://?socket=$dir/state/cache.sock" "" 4
}

end_pids() { # file: ends the processes that it names
    [ -e "$1" ] || return 0
    local pid i
    for pid in $(tac "$1"); do kill "$pid" 2>/dev/null || true; done
    for i in $(seq 20); do
        for pid in $(cat "$1"); do
            [ ! -e "/proc/$pid" ] || { sleep 0.1; continue 2; }
        done
        break
    done
    for pid in $(cat "$1"); do kill -9 "$pid" 2>/dev/null || true; done
    rm -f "$1"
}

flows() {
    # At once: told to end, iperf3 first exchanges results through the queue that it has filled, for seconds.
    [ ! -e "$dir/state/flows" ] || xargs -r kill -9 <"$dir/state/flows" 2>/dev/null || true
    end_pids "$dir/state/flows"
    [ "$1" != 0 ] || return 0
    "${server[@]}" iperf3 -s -p 5201 >/dev/null 2>&1 &
    remember flows $!
    until_true "the server of iperf3" sh -c "nsenter --net=/run/netns/$id-s ss -ltn | grep -q :5201"
    "${client[@]}" iperf3 -c $server_ip -p 5201 -R -P "$1" -t 86400 >/dev/null 2>&1 &
    remember flows $!
}

down() {
    [ -d "$dir/state" ] || return 0
    [ ! -e "/run/netns/$id-s" ] || in_server ip link set srv up || true
    end_pids "$dir/state/flows"
    local m l
    for m in $(tac "$dir/state/mounts" 2>/dev/null); do
        case $m in "$dir/state/"*) continue ;; esac
        umount "$m" 2>/dev/null || umount -l "$m" 2>/dev/null || true
    done
    for l in $(cat "$dir/state/loops" 2>/dev/null); do losetup -d "$l" 2>/dev/null || true; done
    for m in $(tac "$dir/state/mounts" 2>/dev/null); do umount -l "$m" 2>/dev/null || true; done
    end_pids "$dir/state/pids"
    ip netns del "$id-c" 2>/dev/null || true
    ip netns del "$id-s" 2>/dev/null || true
    rm -rf "$dir/state"
}

[ $# -ge 2 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
command=$1
case $command in
check) check "$2"; exit ;;
up) kind=$2; shift ;;
esac
mkdir -p "$2"
dir=$(cd "$2" && pwd)
id=ms$(printf %s "$dir" | cksum | cut -d' ' -f1)
# Commands in the background start with these, so that $! is the pid of the program and not of a shell.
server=(nsenter "--net=/run/netns/$id-s") client=(nsenter "--net=/run/netns/$id-c")
case $command in
up)
    check "$kind"
    [ ! -e "$dir/state" ] || fail "$dir is in use: remote.sh down $dir"
    mkdir "$dir/state"
    trap '[ $? = 0 ] || { tail -n 20 "$dir/state/log" "$dir/state/gluster/log" 2>/dev/null >&2; down; }' EXIT
    network
    "up_$kind" "${@:3}"
    ;;
cache) check cache; mkdir -p "$dir/state"; cache_device "$3" ;;
rate) shape in_server srv "$3"; shape in_client cli "$3" ;;
cache-rate) echo $(($3 * 8000000)) >"$dir/state/cache.rate" ;;
flows) flows "$3" ;;
link) in_server ip link set srv "$3" ;;
down) down ;;
*) fail "unknown: $command" ;;
esac
