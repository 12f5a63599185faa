//! Dashboards and alerts ask for metrics by name; a name that nobody exports is an empty panel and a silent alert.

use migshare_tidy::tree::{self, Text};
use std::collections::BTreeSet;

/// What Prometheus makes of one histogram.
const OF_HISTOGRAM: &[&str] = &["_bucket", "_sum", "_count"];

#[test]
fn every_metric_that_is_asked_for_is_exported() {
    let texts = tree::texts();
    let asked: BTreeSet<&str> = texts.iter().filter(|t| asks(t)).flat_map(|t| names(&t.text)).collect();
    assert!(!asked.is_empty(), "no dashboard and no alert asks for anything");
    let sources: Vec<&Text> = texts.iter().filter(|t| t.is_rust() && t.path.contains("/src/")).collect();
    let missing: Vec<_> = asked.into_iter().filter(|name| !exported(&sources, name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

fn asks(file: &Text) -> bool {
    file.path.starts_with("contrib/grafana/") || file.path.starts_with("contrib/prometheus/")
}

/// The agent's names stand in full; the sidecar's without their prefix.
fn exported(sources: &[&Text], name: &str) -> bool {
    let base = OF_HISTOGRAM.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let (room, literal) = match base.strip_prefix("migshare_storage_") {
        Some(rest) => ("storage/", format!("\"{rest}\"")),
        None => ("agent/", format!("\"{base}\"")),
    };
    sources.iter().any(|t| t.path.starts_with(room) && t.text.contains(&literal))
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("migshare_").map(|(at, _)| {
        let rest = &text[at..];
        &rest[..rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len())]
    })
}
