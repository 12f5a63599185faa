//! Gives the shared object its name for the dynamic linker.

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmigshare.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
