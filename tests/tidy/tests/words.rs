//! The project speaks of itself alone: what it is and why, for readers who know nothing of how it came about.

use migshare_tidy::tree;

/// Places and phrases that mean nothing to a reader of the tree. Written in halves, so that this file has none.
const FOREIGN: &[(&str, &str)] = &[
    ("../sha", "red"),
    ("/work/", "main"),
    ("as reque", "sted"),
    ("per the ", "brief"),
    ("clau", "de"),
    ("anthro", "pic"),
    ("chat", "gpt"),
    ("copi", "lot"),
    ("ai-gene", "rated"),
];

/// Marks of work that was put off: what is not done is written down where users see it.
const PUT_OFF: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:")];

#[test]
fn no_text_speaks_of_places_or_people_outside() {
    let found = lines_with(FOREIGN, true);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_put_off_in_a_comment() {
    let found = lines_with(PUT_OFF, false);
    assert!(found.is_empty(), "{found:#?}");
}

fn lines_with(halves: &[(&str, &str)], any_case: bool) -> Vec<String> {
    let words: Vec<String> = halves.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut found = Vec::new();
    for file in tree::texts() {
        for (number, line) in (1..).zip(file.text.lines()) {
            let line = if any_case { line.to_lowercase() } else { line.to_owned() };
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    found
}
