#!/usr/bin/env bash
# Everything that is checked about the code without running it, then the rules in tests/tidy.
# usage: check.sh [TARGET_DIR]                tools that have to be built are kept in TARGET_DIR/tools
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-${CARGO_TARGET_DIR:-target}}

step() { printf '\n== %s\n' "$*"; }

# Built from crates.io once: Debian has none.
deny() {
  if command -v cargo-deny >/dev/null; then echo cargo-deny; return; fi
  [ -x "$target/tools/bin/cargo-deny" ] ||
    CARGO_TARGET_DIR=$target/tools/build cargo install --quiet --locked --root "$target/tools" cargo-deny@0.20.2 >&2
  echo "$target/tools/bin/cargo-deny"
}

step "format"
cargo fmt --all --check
step "lints"
cargo clippy --workspace --all-targets --quiet -- -D warnings
step "fuzz target"
cargo check --quiet --manifest-path agent/proto/fuzz/Cargo.toml --target-dir "$target/fuzz"
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
step "licences, bans, sources of dependencies"
"$(deny)" check --hide-inclusion-graph licenses bans sources
step "advisories about dependencies"
if timeout 60 "$(deny)" fetch db 2>/dev/null; then
  "$(deny)" check --hide-inclusion-graph advisories
else
  echo "SKIP: the advisory database cannot be fetched from here"
fi
step "rules about the code"
cargo test --quiet -p migshare-tidy
printf '\nall checks passed\n'
