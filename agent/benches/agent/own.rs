//! The agent's own time for each request, by its debug events: from the request's line read whole until the reply is handed to the
//! kernel. The event is written after the reply, so that it is no part of what it tells.

use crate::rig::{LONG, Rig};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The events that are read here, beside the usual ones.
const EVENTS: &str = "info,migshare_agent::server::desk=debug";

/// Makes an agent write these events, each as a line of JSON.
pub(crate) fn told_by(command: &mut Command) {
    command.args(["--log", "json"]).env("MIGSHARE_LOG", EVENTS);
}

/// A reader of an agent's log.
pub(crate) struct Own {
    log: PathBuf,
    /// Bytes that were read.
    read: usize,
}

impl Own {
    /// From here on.
    pub(crate) fn of(rig: &Rig) -> Own {
        Own { log: rig.path("log"), read: rig.log().len() }
    }

    /// The times of the requests since the last call, which must be `count` of each of these kinds; in the order of the requests.
    pub(crate) fn take<const KINDS: usize>(
        &mut self,
        kinds: &[&str; KINDS],
        count: usize,
    ) -> [Vec<Duration>; KINDS] {
        let deadline = Instant::now() + LONG;
        loop {
            let (times, read) = self.look(kinds);
            if times.iter().all(|times| times.len() == count) {
                self.read = read;
                return times;
            }
            assert!(Instant::now() < deadline, "{:?} of {kinds:?}", times.map(|times| times.len()));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What has been told by now, and how far the log goes.
    fn look<const KINDS: usize>(&self, kinds: &[&str; KINDS]) -> ([Vec<Duration>; KINDS], usize) {
        let bytes = std::fs::read(&self.log).unwrap();
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last + 1);
        let mut times = [(); KINDS].map(|()| Vec::new());
        for line in BufReader::new(&bytes[self.read.min(whole)..whole]).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let kind = kinds.iter().position(|kind| event["request"] == **kind);
            if let Some((kind, own)) = kind.zip(event["own_us"].as_f64()) {
                times[kind].push(Duration::from_secs_f64(own / 1e6));
            }
        }
        (times, whole)
    }
}
