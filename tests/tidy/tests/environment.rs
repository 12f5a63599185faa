//! Environment variables are an interface: all of them stand in one table, and users can read about each.

use migshare_proto::env::VARIABLES;
use migshare_tidy::tree;
use std::collections::BTreeSet;

/// Variables that only tests read.
const OF_TESTS: &[&str] = &["MIGSHARE_REQUIRE"];

#[test]
fn every_variable_in_a_source_is_in_the_table() {
    let known: BTreeSet<&str> = VARIABLES.iter().map(|v| v.name).chain(OF_TESTS.iter().copied()).collect();
    let texts = tree::texts();
    // The C library names its constants in the same way; they stand in its header.
    let headers: String = texts.iter().filter(|t| t.path.ends_with(".h")).map(|t| t.text.as_str()).collect();
    let mut unknown = BTreeSet::new();
    for file in texts.iter().filter(|t| t.is_rust() || t.path.ends_with(".py")) {
        for name in names(&file.text) {
            if !known.contains(name) && !headers.contains(name) {
                unknown.insert(format!("{}: {name}", file.path));
            }
        }
    }
    assert!(unknown.is_empty(), "not in agent/proto/src/env.rs: {unknown:#?}");
}

#[test]
fn every_variable_in_the_table_is_in_a_document() {
    let documents: String =
        tree::texts().into_iter().filter(tree::Text::is_document).map(|t| t.text).collect();
    let missing: Vec<_> = VARIABLES.iter().map(|v| v.name).filter(|n| !documents.contains(n)).collect();
    assert!(missing.is_empty(), "in no document: {missing:?}");
}

/// What a string literal begins with: `MIGSHARE_` and what follows, where something follows.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let prefix = concat!("\"MIGSHARE", "_");
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let rest = &text[at + prefix.len()..];
        let len = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(rest.len());
        (len > 0).then(|| &text[at + 1..at + prefix.len() + len])
    })
}
