//! Bytes from any process of the node, as the agent and its clients read them: lines, then messages.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run line fuzz/corpus/line tests/golden/{request,reply,segment_request,segment_answer}` in
//! `agent/proto`. What it finds becomes a file in `corpus/line`, which the ordinary test `corpus.rs` replays.
#![no_main]

#[path = "../line.rs"]
mod line;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    line::check(bytes);
});
