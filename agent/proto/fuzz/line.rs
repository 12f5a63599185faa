//! What must hold for any bytes at the sockets: they are refused or read without a panic, and what was read survives a round trip.
//! Shared by the fuzz target and by the ordinary test that replays its corpus.

use migshare_proto::segment::{SegmentAnswer, SegmentRequest};
use migshare_proto::{Reply, Request, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Checks all kinds of messages; how many were read.
pub(crate) fn check(bytes: &[u8]) -> usize {
    read::<Request>(bytes)
        + read::<SegmentRequest>(bytes)
        + read::<Reply>(bytes)
        + read::<SegmentAnswer>(bytes)
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> usize {
    let (mut rest, mut count) = (bytes, 0);
    while let Ok(message) = codec::read::<T>(&mut rest) {
        count += 1;
        // A message can be longer than what it was read from: escapes of control characters.
        if let Ok(line) = codec::encode(&message) {
            assert_eq!(codec::decode::<T>(&line).expect("own output is read"), message);
        }
    }
    count
}
