//! A dependency that nobody uses costs every build and every audit.
#![allow(clippy::unwrap_used)]

use migshare_tidy::{crates, tree};

/// Crates that a test needs built, and loads by path instead of by name.
const LOADED: &str = "migshare-nvml-sim";

#[test]
fn every_dependency_is_named_in_the_sources_of_its_crate() {
    let root = tree::root().canonicalize().unwrap();
    let texts = tree::texts();
    let crates = crates::all();
    let mut unused = Vec::new();
    for found in crates.values() {
        let dir = found.dir.canonicalize().unwrap();
        let below = format!("{}/", dir.strip_prefix(&root).unwrap().display());
        let nested: Vec<String> = crates
            .values()
            .filter(|c| c.dir != found.dir && c.dir.starts_with(&found.dir))
            .map(|c| format!("{}/", c.dir.strip_prefix(&root).unwrap().display()))
            .collect();
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        let inside = |path: &str| {
            path.starts_with(&below) && !nested.iter().any(|n| path.starts_with(n))
                || outside(&manifest, path)
        };
        let sources: Vec<_> = texts.iter().filter(|t| t.is_rust() && inside(&t.path)).collect();
        for name in found.normal.iter().chain(&found.other) {
            let ident = name.replace('-', "_");
            let named = sources.iter().any(|t| names(&t.text, &ident));
            if !named && name != LOADED {
                unused.push(format!("{}: {name}", found.name));
            }
        }
    }
    assert!(unused.is_empty(), "unused dependencies: {unused:#?}");
}

/// Whether the manifest takes a target from this path: `path = "../stories/main.rs"` brings its folder.
fn outside(manifest: &str, path: &str) -> bool {
    manifest.lines().filter_map(|line| line.strip_prefix("path = \"../")).any(|rest| {
        let folder = rest.trim_start_matches("../").rsplit_once('/').map_or("", |(folder, _)| folder);
        path.contains(&format!("{folder}/"))
    })
}

fn names(text: &str, ident: &str) -> bool {
    text.match_indices(ident).any(|(at, _)| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let before = text[..at].chars().next_back();
        let after = text[at + ident.len()..].chars().next();
        !before.is_some_and(word) && !after.is_some_and(word)
    })
}
