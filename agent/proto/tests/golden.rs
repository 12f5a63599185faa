//! One golden file per message. A change here means: a new file, and a new version if an old peer would misread it.
//!
//! Every file is read back, written again and must come out byte for byte; every kind of message must have a file.
#![allow(clippy::unwrap_used)]

use migshare_proto::message::{Reason, Refused};
use migshare_proto::segment::{SegmentAnswer, SegmentRequest};
use migshare_proto::{Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::path::Path;

const REQUESTS: &[&str] = &[
    "hello",
    "open_lease",
    "grant",
    "job_leaves",
    "open_segment",
    "release",
    "close_lease",
    "status",
    "plan",
    "order",
    "explain",
];
const REPLIES: &[&str] =
    &["hello", "lease", "granted", "segment", "done", "status", "refused", "error", "plan", "story"];
const REPLIES_1: &[&str] = &["status", "refused"];
const SEGMENT_REQUESTS: &[&str] = &["segment"];
const SEGMENT_ANSWERS: &[&str] = &["segment", "refused"];

fn read(kind: &str, name: &str) -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind).join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn names(kind: &str) -> BTreeSet<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let stem = |e: std::io::Result<std::fs::DirEntry>| {
        e.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()
    };
    std::fs::read_dir(dir).unwrap().map(stem).collect()
}

/// Reads each file of a kind, writes it again, and compares.
fn round_trip<T: Serialize + DeserializeOwned>(kind: &str, list: &[&str]) {
    for name in list {
        let text = read(kind, name);
        let message: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(serde_json::to_string(&message).unwrap(), text.trim_end(), "{name}");
        assert!(text.starts_with(&format!("{{\"{name}\":")), "{name} holds another message");
    }
}

#[test]
fn every_request_reads_and_writes_its_golden_line() {
    round_trip::<Request>("request", REQUESTS);
}

#[test]
fn every_reply_reads_and_writes_its_golden_line() {
    round_trip::<Reply>("reply", REPLIES);
}

#[test]
fn every_message_of_the_second_socket_reads_and_writes_its_golden_line() {
    round_trip::<SegmentRequest>("segment_request", SEGMENT_REQUESTS);
    round_trip::<SegmentAnswer>("segment_answer", SEGMENT_ANSWERS);
}

/// What version 1 knows of the replies whose words have changed since.
#[test]
fn a_peer_of_version_1_is_told_in_the_words_of_version_1() {
    round_trip::<Reply>("reply_1", REPLIES_1);
    let words = |reply: &Reply| serde_json::to_string(reply).unwrap();
    for name in REPLIES_1 {
        let now: Reply = serde_json::from_str(&read("reply", name)).unwrap();
        assert_eq!(now.clone().for_protocol(2), now);
        let then = words(&now.for_protocol(1));
        for new in ["fragmented", "\"cordoned\"", "\"missing\""] {
            assert!(!then.contains(new), "{then}");
        }
    }
}

/// The reasons of version 1, as its golden files and its source had them.
#[test]
fn every_reason_has_a_name_in_version_1() {
    const FIRST: [&str; 8] = [
        "no_leaves",
        "fewer_leaves_than_tasks",
        "beyond_lease",
        "no_lease",
        "lease_differs",
        "not_serving",
        "no_segment",
        "bad_request",
    ];
    const SECOND: [(&str, &str); 9] = [
        ("unavailable", "no_leaves"),
        ("fragmented", "no_leaves"),
        ("rate_limited", "bad_request"),
        ("no_such_size", "bad_request"),
        ("wrong_price", "bad_request"),
        ("needs_force", "bad_request"),
        ("would_wait", "bad_request"),
        ("no_such_place", "bad_request"),
        ("in_use", "bad_request"),
    ];
    let refused = |reason| Reply::Refused(Refused::new(reason, ""));
    for (now, then) in FIRST.map(|name| (name, name)).into_iter().chain(SECOND) {
        let reason = Reason::of_name(now);
        assert_eq!(reason.name(), now);
        assert_eq!(refused(reason).for_protocol(1), refused(Reason::of_name(then)), "{now}");
    }
    assert_eq!(Reason::of_name("of_a_later_version"), Reason::Unknown);
}

#[test]
fn every_golden_file_is_tested() {
    let listed = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names("request"), listed(REQUESTS));
    assert_eq!(names("reply"), listed(REPLIES));
    assert_eq!(names("reply_1"), listed(REPLIES_1));
    assert_eq!(names("segment_request"), listed(SEGMENT_REQUESTS));
    assert_eq!(names("segment_answer"), listed(SEGMENT_ANSWERS));
}

/// An agent of a later version may add fields: an older client must read past them.
#[test]
fn unknown_fields_are_read_past() {
    let text = read("reply", "granted").replacen("{\"leaves\"", "{\"news\":1,\"leaves\"", 1);
    assert!(serde_json::from_str::<Reply>(&text).is_ok());
}
