//! The client against agents that are away, silent, rude or wrong.
#![allow(clippy::unwrap_used)]

use migshare_proto::message::{Reason, StatusQuery};
use migshare_proto::{Client, ClientError, Request};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(300);
const HELLO: &str = "{\"hello\":{\"protocol\":1,\"oldest\":1,\"program\":\"migshared 0.1.0\"}}\n";

/// An agent that sends one line of `script` for every line it reads, then hangs up.
fn agent(script: Vec<String>) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<()>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for answer in script {
            lines.next();
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        lines.next();
    });
    (dir, path, thread)
}

fn ask_status(script: &[&str]) -> Result<(), ClientError> {
    let (_dir, path, thread) = agent(script.iter().map(|s| (*s).to_owned()).collect());
    let result = Client::connect(&path, "test", PATIENCE)
        .and_then(|mut c| c.ask(&Request::Status(StatusQuery {})).map(|_| ()));
    thread.join().unwrap();
    result
}

#[test]
fn no_socket_means_away() {
    let dir = tempfile::tempdir().unwrap();
    let got = Client::connect(&dir.path().join("none"), "test", PATIENCE);
    assert!(matches!(got, Err(ClientError::Away { .. })));
}

#[test]
fn a_silent_agent_is_away_after_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let got = Client::connect(&path, "test", PATIENCE);
    assert!(
        matches!(got, Err(ClientError::Away { ref cause, .. }) if cause.contains("no answer in time")),
        "{got:?}"
    );
}

#[test]
fn an_agent_that_hangs_up_is_away() {
    assert!(matches!(ask_status(&[HELLO, ""]), Err(ClientError::Away { .. })));
}

#[test]
fn a_refusal_keeps_its_reason() {
    let no = "{\"refused\":{\"reason\":\"no_lease\",\"text\":\"job 7 has no lease\"}}\n";
    match ask_status(&[HELLO, no]) {
        Err(ClientError::Refused(r)) => {
            assert_eq!((r.reason, r.text.as_str()), (Reason::NoLease, "job 7 has no lease"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_endless_or_foreign_answer_is_nonsense() {
    assert!(matches!(ask_status(&[HELLO, "{\"cheese\":{}}\n"]), Err(ClientError::Nonsense(_))));
    assert!(matches!(ask_status(&["{\"done\":{\"found\":true}}\n"]), Err(ClientError::Nonsense(_))));
}

#[test]
fn a_version_error_is_broken_not_away() {
    let no = "{\"error\":{\"code\":\"version\",\"text\":\"this agent speaks 2 to 3\"}}\n";
    assert!(matches!(ask_status(&[no]), Err(ClientError::Broken(_))));
}
