//! The ways to a segment: inherited, by name, from an agent.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use migshare_collectives::segment::pass;
use migshare_collectives::{Comm, Error, Options, ReduceOp, Segment};

use crate::launch::Launch;

const BYTES: u64 = 16 << 20;

fn two_threads(make: impl Fn(usize) -> std::sync::Arc<Segment> + Sync) {
    std::thread::scope(|scope| {
        for rank in 0..2 {
            let make = &make;
            scope.spawn(move || {
                let mut comm = Comm::join(&make(rank), rank, &Options::default()).unwrap();
                let mut data = [rank as u32 + 1; 10];
                comm.all_reduce(&mut data, ReduceOp::Sum).unwrap();
                assert_eq!(data, [3; 10]);
            });
        }
    });
}

#[test]
fn a_named_segment_serves_without_an_agent() {
    let name = format!("/migshare-test-{}", std::process::id());
    let owner = Segment::create_named(&name, BYTES, 2).unwrap();
    two_threads(|_| Segment::open_named(&name, 2).unwrap());
    drop(owner);
    assert!(Segment::open_named(&name, 2).is_err(), "the name goes with its maker");
}

#[test]
fn an_unsealed_file_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BYTES).unwrap();
    assert!(matches!(Segment::from_descriptor(OwnedFd::from(file), 2), Err(Error::Invalid(_))));
}

#[test]
fn a_second_communicator_of_the_same_rank_is_refused() {
    let segment = Segment::create(BYTES, 1).unwrap();
    let first = Comm::join(&segment, 0, &Options::default()).unwrap();
    assert!(matches!(Comm::join(&segment, 0, &Options::default()), Err(Error::Exhausted(_))));
    drop(first);
    assert!(Comm::join(&segment, 0, &Options::default()).is_ok());
}

#[test]
fn a_second_part_of_a_program_cannot_be_the_same_rank_and_does_the_first_no_harm() {
    Launch::new(2).run(|mut first| {
        assert!(matches!(Comm::from_env(), Err(Error::Invalid(text)) if text.contains("split")));
        first.barrier().unwrap();
        drop(first);
        Comm::from_env().unwrap().barrier().unwrap();
    });
}

#[test]
fn an_attempt_to_join_that_was_given_up_does_not_keep_the_next_from_joining() {
    let made = Segment::create(BYTES, 2).unwrap();
    let impatient = Options { timeout: Duration::ZERO, ..Options::default() };
    assert!(matches!(Comm::join(&made, 0, &impatient), Err(Error::Timeout { .. })));
    two_threads(|rank| match rank {
        0 => made.clone(),
        _ => Segment::from_descriptor(copy_of(&made), 2).unwrap(),
    });
}

#[test]
fn ranks_of_different_numbers_do_not_join() {
    let made = Segment::create(BYTES, 2).unwrap();
    std::thread::scope(|scope| {
        for (rank, ranks) in [(0, 2), (1, 3)] {
            let segment = Segment::from_descriptor(copy_of(&made), ranks).unwrap();
            scope.spawn(move || {
                let error = Comm::join(&segment, rank, &Options::default()).map(drop).unwrap_err();
                assert_eq!(error, Error::Divided { rank: 1 - rank });
            });
        }
    });
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let segment = Segment::create(BYTES, 2).unwrap();
    let options = Options { timeout: Duration::from_millis(50), ..Options::default() };
    let error = Comm::join(&segment, 0, &options).map(|_| ()).unwrap_err();
    assert_eq!(error, Error::Timeout { rank: 1, millis: 50 });
}

/// An agent for tests: answers one connection with `line`, and with a descriptor if there is one.
fn agent(line: String, descriptor: Option<OwnedFd>) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&stream).read_line(&mut request).unwrap();
        assert_eq!(request, "{\"segment\":{\"v\":1}}\n");
        answer(&stream, line.as_bytes(), descriptor.as_ref());
    });
    (folder, path)
}

fn answer(mut stream: &UnixStream, line: &[u8], descriptor: Option<&OwnedFd>) {
    match descriptor {
        Some(descriptor) => pass::send(stream, line, descriptor.as_fd()).unwrap(),
        None => stream.write_all(line).unwrap(),
    }
}

fn copy_of(segment: &Segment) -> OwnedFd {
    segment.descriptor().unwrap().as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn the_agent_hands_a_segment_over() {
    let made = Segment::create(BYTES, 2).unwrap();
    two_threads(|_| {
        let line = format!("{{\"segment\":{{\"bytes\":{BYTES},\"job\":7,\"step\":0}}}}\n");
        let (_folder, path) = agent(line, Some(copy_of(&made)));
        Segment::from_agent(&path, 2).unwrap()
    });
}

#[test]
fn a_refusal_of_the_agent_is_told() {
    let (_folder, path) = agent("{\"refused\":{\"reason\":\"no step of yours\"}}\n".into(), None);
    let refused = Segment::from_agent(&path, 2).map(|_| ()).unwrap_err();
    assert_eq!(refused, Error::Refused("no step of yours".into()));
}

#[test]
fn nonsense_from_the_agent_is_an_error() {
    let made = Segment::create(BYTES, 2).unwrap();
    let wrong_size = "{\"segment\":{\"bytes\":5,\"job\":7,\"step\":0}}\n".to_owned();
    let cases = [
        ("{}\n".to_owned(), None),
        ("\u{0}\u{1}".to_owned(), None),
        ("x".repeat(10_000), None),
        ("{\"segment\":{\"bytes\":5,\"job\":7,\"step\":0}}\n".to_owned(), None),
        (wrong_size, Some(copy_of(&made))),
    ];
    for (line, descriptor) in cases {
        let (_folder, path) = agent(line, descriptor);
        assert!(matches!(Segment::from_agent(&path, 2), Err(Error::Environment(_))));
    }
    let nobody = std::path::Path::new("/nonexistent/segment.sock");
    assert!(matches!(Segment::from_agent(nobody, 2), Err(Error::System { .. })));
}

#[test]
fn a_rank_that_asks_while_the_agent_is_restarted_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("segment.sock");
    let asking = std::thread::spawn({
        let path = path.clone();
        move || Segment::from_agent(&path, 2).map(|_| ())
    });
    // One that was killed leaves its socket behind, and nobody listens there.
    drop(UnixListener::bind(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    // Nor does one that is killed now have time to answer.
    drop(listener.accept().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"{\"refused\":{\"reason\":\"back again\"}}\n").unwrap();
    assert!(matches!(asking.join().unwrap(), Err(Error::Refused(reason)) if reason == "back again"));
}
