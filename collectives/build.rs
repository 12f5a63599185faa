//! Declares `cfg(loom)`, under which `sync` swaps the atomics for loom's.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rerun-if-changed=build.rs");
}
