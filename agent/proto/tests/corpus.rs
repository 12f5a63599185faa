//! Replays the fuzzer's corpus and its seeds, the golden files: bytes that once were interesting must never panic, and what is read
//! must survive a round trip.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/line.rs"]
mod line;

use std::path::Path;

/// Files of a folder, and the messages in them.
fn replay(folder: &str) -> (usize, usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect();
    (files.len(), files.iter().map(|bytes| line::check(bytes)).sum())
}

#[test]
fn the_corpus_is_read_or_refused_without_a_panic() {
    let (files, messages) = replay("fuzz/corpus/line");
    assert!(files >= 20 && messages >= 7, "the corpus is gone: {files} files, {messages} messages");
}

#[test]
fn every_golden_file_is_a_seed_that_is_read() {
    for folder in ["request", "reply", "reply_1", "segment_request", "segment_answer"] {
        let (files, messages) = replay(&format!("tests/golden/{folder}"));
        assert!(files > 0 && messages >= files, "{folder}: {files} files, {messages} messages");
    }
}
