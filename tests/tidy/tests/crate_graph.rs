//! Who may depend on whom. The graph is what keeps the plugin small, the policy pure and the storage sidecar
//! usable without the rest; it is drawn in README.md and changes only together with it.

use migshare_tidy::crates;
use std::collections::BTreeSet;

/// Every crate of the workspace and what it may depend on of ours. Only tests may depend on everything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("migshare-proto", &[]),
    ("migshare-policy", &["migshare-proto"]),
    ("migshare-nvml", &["migshare-policy", "migshare-proto"]),
    ("migshare-agent", &["migshare-gres", "migshare-nvml", "migshare-policy", "migshare-proto"]),
    ("migshare-sim", &["migshare-policy", "migshare-proto"]),
    ("migshare-spank", &["migshare-proto"]),
    ("migshare-spank-shim", &["migshare-spank"]),
    ("migshare-gres", &["migshare-proto"]),
    ("migshare-collectives", &["migshare-proto"]),
    ("migshare-capi", &["migshare-collectives"]),
    ("migshare-nccl-net", &["migshare-collectives"]),
    ("migshare-storage", &[]),
    ("migshare-nvml-sim", &[]),
    ("migshare-harness", &["migshare-proto"]),
    ("migshare-tidy", &["migshare-proto"]),
];

/// What the plugin must not bring into srun and slurmstepd: threads of a runtime, and NVML.
const NOT_IN_PLUGIN: &[&str] = &["tokio", "nvml-wrapper", "nvml-wrapper-sys", "tracing-subscriber"];

#[test]
fn every_crate_is_in_the_graph_and_keeps_to_it() {
    for (name, found) in crates::all() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(n, _)| *n == name) else {
            panic!("{name} is not in the graph: add it here and to the code map in README.md");
        };
        let ours: BTreeSet<&str> =
            found.normal.iter().map(String::as_str).filter(|d| d.starts_with("migshare-")).collect();
        let extra: Vec<_> = ours.iter().filter(|d| !allowed.contains(d)).collect();
        assert!(extra.is_empty(), "{name} must not depend on {extra:?}");
    }
}

#[test]
fn the_graph_names_no_crate_that_is_gone() {
    let crates = crates::all();
    let gone: Vec<_> = ALLOWED.iter().filter(|(name, _)| !crates.contains_key(*name)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn the_plugin_brings_no_runtime_and_no_nvml() {
    let crates = crates::all();
    for name in ["migshare-proto", "migshare-spank", "migshare-spank-shim"] {
        let found = &crates[name].normal;
        let brought: Vec<_> = NOT_IN_PLUGIN.iter().filter(|d| found.contains(**d)).collect();
        assert!(brought.is_empty(), "{name} depends on {brought:?}");
    }
}

#[test]
fn policy_does_no_io() {
    let allowed = ["migshare-proto", "serde", "thiserror"];
    let extra: Vec<_> = crates::all()["migshare-policy"]
        .normal
        .iter()
        .filter(|d| !allowed.contains(&d.as_str()))
        .cloned()
        .collect();
    assert!(extra.is_empty(), "policy is pure, so it needs no {extra:?}");
}
