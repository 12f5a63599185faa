//! Unsafe code has few homes: where C calls us or we call C, and where memory is shared.
#![allow(clippy::unwrap_used)]

use migshare_tidy::crates;

/// Crates that may hold unsafe code.
const HOMES: &[&str] = &[
    "migshare-spank",
    "migshare-spank-shim",
    "migshare-nvml",
    "migshare-nvml-sim",
    "migshare-collectives",
    "migshare-capi",
    "migshare-nccl-net",
];

/// Crates that deny it and excuse single modules: the io_uring engine, and two system calls that no crate wraps.
const SINGLE_MODULES: &[&str] = &["migshare-storage"];

#[test]
fn all_other_crates_forbid_unsafe_code() {
    for (name, found) in crates::all() {
        if HOMES.contains(&name.as_str()) {
            continue;
        }
        let head = std::fs::read_to_string(found.dir.join("src/lib.rs")).unwrap();
        let rule = if SINGLE_MODULES.contains(&name.as_str()) { "deny" } else { "forbid" };
        let forbids =
            head.contains("#![forbid(unsafe_code)]") || head.contains(&format!("#![{rule}(unsafe_code)]"));
        assert!(forbids, "{name} must say #![{rule}(unsafe_code)]");
    }
}
