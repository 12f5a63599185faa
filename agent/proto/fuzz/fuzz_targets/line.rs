//! Bytes from any process of the node, as the agent reads them: lines, then messages.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run line` in `agent/proto`. What it finds becomes a file in `corpus/line`, which the
//! ordinary test `corpus.rs` replays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use migshare_proto::{Reply, Request, codec};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(request) = codec::read::<Request>(&mut rest) {
        let line = codec::encode(&request).expect("what fitted in a line fits in a line again");
        assert_eq!(codec::decode::<Request>(&line).expect("own output is read"), request);
    }
    if let Ok(reply) = codec::decode::<Reply>(bytes) {
        let _ = codec::encode(&reply);
    }
});
