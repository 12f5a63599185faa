//! Replays the fuzzer's corpus: bytes that once were interesting must never panic, and what is read must survive a
//! round trip.
#![allow(clippy::unwrap_used)]

use migshare_proto::{Request, codec};
use std::path::Path;

#[test]
fn the_corpus_is_read_or_refused_without_a_panic() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/line");
    let (mut files, mut messages) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let mut rest = bytes.as_slice();
        files += 1;
        while let Ok(request) = codec::read::<Request>(&mut rest) {
            messages += 1;
            if let Ok(line) = codec::encode(&request) {
                assert_eq!(codec::decode::<Request>(&line).unwrap(), request);
            }
        }
    }
    assert!(files >= 20 && messages >= 7, "the corpus is gone: {files} files, {messages} messages");
}
