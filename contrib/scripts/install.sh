#!/usr/bin/env bash
# Installs what was built, as a package would: programs, plugin, libraries with the names that linkers and NCCL look for, header,
# manual pages, completions, units. Starts nothing and overwrites no configuration.
#
# usage: install.sh [BUILD_DIR]               default: target/release
#   DESTDIR            a root to install below, for packagers
#   PREFIX             /usr, where the units expect the programs; they are adapted where it is another
#   LIBDIR             PREFIX/lib
#   SLURM_PLUGIN_DIR   LIBDIR/slurm; plugstack.conf names the plugin by its whole path
#   SYSCONFDIR         /etc
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-${CARGO_TARGET_DIR:-target}/release}
prefix=${PREFIX:-/usr}
libdir=${LIBDIR:-$prefix/lib}
plugins=${SLURM_PLUGIN_DIR:-$libdir/slurm}
sysconf=${SYSCONFDIR:-/etc}
root=${DESTDIR:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

for name in migshare migshared migshare-gres migshare-storage libspank_migshare.so libmigshare.so libnccl_net_migshare.so; do
  [ -e "$build/$name" ] || { echo "install.sh: $build/$name is missing: run cargo build --release first" >&2; exit 1; }
done

put() { install -D -m "$1" "$2" "$root$3"; echo "$3"; }
# The same file with other paths.
put_adapted() {
  local text
  text=$(sed -e "s|/usr/sbin/|$prefix/sbin/|g" -e "s|/etc/migshare/|$sysconf/migshare/|g" "$1")
  install -d "$root$(dirname "$2")"
  printf '%s\n' "$text" >"$root$2"
  chmod 644 "$root$2"
  echo "$2"
}

for name in migshare migshare-gres migshare-storage; do put 755 "$build/$name" "$prefix/bin/$name"; done
# The units start both daemons from sbin.
put 755 "$build/migshared" "$prefix/sbin/migshared"
install -d "$root$prefix/sbin" && ln -sf ../bin/migshare-storage "$root$prefix/sbin/migshare-storage"
put 755 "$build/libspank_migshare.so" "$plugins/spank_migshare.so"

# The linker looks for libmigshare.so, programs for the name in it.
put 755 "$build/libmigshare.so" "$libdir/libmigshare.so.1"
ln -sf libmigshare.so.1 "$root$libdir/libmigshare.so"
# NCCL_NET_PLUGIN=migshare makes NCCL look for this name.
put 755 "$build/libnccl_net_migshare.so" "$libdir/libnccl-net-migshare.so"
put 644 collectives/capi/include/migshare.h "$prefix/include/migshare.h"
install -d "$root$libdir/pkgconfig"
cat >"$root$libdir/pkgconfig/migshare.pc" <<PC
prefix=$prefix
Name: migshare
Description: Collectives over host shared memory between MIG instances
Version: $version
Cflags: -I\${prefix}/include
Libs: -L$libdir -lmigshare
PC
echo "$libdir/pkgconfig/migshare.pc"

"$build/migshare" manual man --dir "$root$prefix/share/man/man1"
install -d "$root$prefix/share/man/man8" && mv "$root$prefix/share/man/man1/migshared.8" "$root$prefix/share/man/man8/"
echo "$prefix/share/man/man1/migshare*.1, man8/migshared.8"
complete() { install -d "$root$(dirname "$2")" && "$build/migshare" manual "$1" >"$root$2" && echo "$2"; }
complete bash "$prefix/share/bash-completion/completions/migshare"
complete zsh "$prefix/share/zsh/site-functions/_migshare"
complete fish "$prefix/share/fish/vendor_completions.d/migshare.fish"

for unit in migshared.service migshare-storage@.service; do
  put_adapted "contrib/systemd/$unit" "$prefix/lib/systemd/system/$unit"
done
[ -e "$root$sysconf/migshare/agent.toml" ] || put 644 contrib/systemd/agent.toml "$sysconf/migshare/agent.toml"
for file in contrib/prometheus/*.yml contrib/grafana/*.json contrib/job_submit.lua; do
  put 644 "$file" "$prefix/share/migshare/$(basename "$file")"
done
