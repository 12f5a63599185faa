//! The shape of files: small, headed by what they are for, named for a noun of the problem.

use migshare_tidy::tree::{self, Text};

fn rust() -> Vec<Text> {
    tree::texts().into_iter().filter(Text::is_rust).collect()
}

/// Code that nobody reads at one sitting hides its defects; the figures are those of well-kept code bases of this
/// field (see the table of models in mountpoint-s3, linkerd2-proxy, sudo-rs, propolis, s2n-quic).
#[test]
fn half_of_the_files_are_short_and_nine_in_ten_are_not_long() {
    let mut sizes: Vec<(usize, String)> = rust().iter().map(|t| (t.code_lines(), t.path.clone())).collect();
    sizes.sort();
    let at = |share: usize| &sizes[(sizes.len() - 1) * share / 100];
    assert!(at(50).0 < 110, "the median file has {} code lines", at(50).0);
    assert!(at(90).0 < 350, "one file in ten is longer than {:?}", at(90));
    let giants: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > 600).collect();
    assert!(giants.is_empty(), "giant files: {giants:?}");
}

/// A reader learns from the first line what a module is for and what it deliberately does not do.
#[test]
fn every_file_says_what_it_is_for() {
    // `x/tests.rs` belongs to `x.rs` and says nothing of its own.
    let modules = rust().into_iter().filter(|t| !t.path.ends_with("/tests.rs"));
    let silent: Vec<_> = modules.filter(|t| !has_heading(&t.text)).map(|t| t.path).collect();
    assert!(silent.is_empty(), "no `//!` at the head of {silent:#?}");
}

/// Fuzz targets and the like start with an inner attribute.
fn has_heading(text: &str) -> bool {
    let mut lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with("#!["));
    lines.next().is_some_and(|l| l.starts_with("//!"))
}

/// A room without a noun becomes a place where things are put that belong nowhere.
#[test]
fn no_file_is_named_for_nothing() {
    const NAMELESS: &[&str] = &["mod", "util", "utils", "helper", "helpers", "common", "misc", "manager"];
    let stem = |path: &str| path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let named: Vec<_> =
        rust().into_iter().map(|t| t.path).filter(|p| NAMELESS.contains(&stem(p).as_str())).collect();
    assert!(named.is_empty(), "{named:?}");
}
