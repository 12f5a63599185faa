//! What README.md promises is there: paths, links, and the targets of `make`.
#![allow(clippy::unwrap_used)]

use migshare_tidy::tree;

fn readme() -> String {
    std::fs::read_to_string(tree::root().join("README.md")).unwrap()
}

#[test]
fn every_path_that_it_names_exists() {
    let text = readme();
    let missing: Vec<_> =
        code_spans(&text).into_iter().filter(|span| is_path(span) && !exists(span)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_link_into_the_tree_leads_somewhere() {
    let text = readme();
    let links = text.match_indices("](").filter_map(|(at, _)| text[at + 2..].split(')').next());
    let inside = links.filter(|l| !l.starts_with("http") && !l.starts_with('#'));
    let dead: Vec<_> =
        inside.map(|l| l.split('#').next().unwrap_or_default()).filter(|l| !exists(l)).collect();
    assert!(dead.is_empty(), "{dead:?}");
}

#[test]
fn every_make_command_is_a_target() {
    let makefile = std::fs::read_to_string(tree::root().join("Makefile")).unwrap();
    let text = readme();
    let targets: Vec<&str> = text
        .match_indices("make ")
        .filter(|(at, _)| text[..*at].ends_with(['`', '\n']))
        .filter_map(|(at, word)| text[at + word.len()..].split(|c: char| !c.is_alphanumeric()).next())
        .collect();
    assert!(
        targets.contains(&"demo") && targets.contains(&"test"),
        "the two commands are not shown: {targets:?}"
    );
    let missing: Vec<_> = targets.iter().filter(|t| !makefile.contains(&format!("\n{t}:"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn code_spans(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|l| !l.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// A word with a folder of the tree in front: `agent/proto`, not `/etc/slurm` nor `gres/mig`.
fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let Some((first, _)) = span.split_once('/') else { return false };
    !first.is_empty()
        && span.chars().all(plain)
        && tree::root().join(first).is_dir()
        && !span.starts_with("gres/m")
}

fn exists(path: &str) -> bool {
    tree::root().join(path).exists()
}
