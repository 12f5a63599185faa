//! Imports and statistics of the Lustre client: one import per object storage target (OST).
//!
//! The files moved with the releases, and so did who may read them: /proc/fs/lustre (up to 2.16, for all),
//! /sys/kernel/debug/lustre (root). Each file is looked for in both; what cannot be read is not used.
//! A target that was connected and is not any more makes the backend gone: readers of its files would hang. One that never
//! was, or is lost for long, was taken out on purpose and must not end splitting for ever.

mod parse;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::backend::Peer;
use super::trend::Best;
use super::{Finding, Root, Source, SourceName};

const ROOTS: [&str; 2] = ["proc/fs/lustre/osc", "sys/kernel/debug/lustre/osc"];
/// A target that is lost this long is not waited for.
const GIVEN_UP: Duration = Duration::from_secs(600);
/// The port of the socket network driver.
const SOCKLND: u16 = 988;
/// Fewer requests in an interval say nothing of the mean.
const FEWEST_REQUESTS: u64 = 10;

/// The client of one file system.
#[derive(Debug)]
pub(crate) struct Client {
    name: String,
    targets: Vec<Target>,
    best: Best,
}

#[derive(Debug)]
struct Target {
    /// `lustrefs-OST0000`
    name: String,
    /// Directories that may hold its files.
    dirs: Vec<PathBuf>,
    connected: bool,
    lost: Option<Instant>,
    waits: Option<parse::Waits>,
}

impl Client {
    /// The client, if its files can be read.
    pub(crate) fn find(root: &Root, name: &str) -> Option<Self> {
        let mut targets: Vec<Target> = Vec::new();
        for entries in ROOTS.iter().map(|r| fs::read_dir(root.at(r))) {
            for entry in entries.into_iter().flatten().flatten() {
                let device = entry.file_name().to_string_lossy().into_owned();
                // "-osc-MDT…" are a server's imports.
                let Some((target, client)) = device.split_once("-osc-") else { continue };
                let ours = target.strip_prefix(name).is_some_and(|t| t.starts_with("-OST"));
                if !ours || client.starts_with("MDT") {
                    continue;
                }
                match targets.iter_mut().find(|t| t.name == target) {
                    Some(known) => known.dirs.push(entry.path()),
                    None => targets.push(Target::new(target, entry.path())),
                }
            }
        }
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        let found = targets.iter().any(|t| t.state().is_some());
        found.then(|| Self { name: name.to_owned(), targets, best: Best::default() })
    }

    /// Peers that are reached over TCP, and whether any is reached by RDMA.
    pub(crate) fn ways(&self) -> (Vec<Peer>, bool) {
        let imports = self.targets.iter().filter_map(|t| t.read("import"));
        let nids: Vec<String> = imports.filter_map(|i| parse::connection(&i)).collect();
        let mut peers: Vec<Peer> = Vec::new();
        for (address, net) in nids.iter().filter_map(|n| n.split_once('@')) {
            if let (true, Ok(address)) = (net.starts_with("tcp"), address.parse()) {
                let peer = Peer { address, port: Some(SOCKLND) };
                if !peers.contains(&peer) {
                    peers.push(peer);
                }
            }
        }
        (peers, nids.iter().any(|n| n.contains("@o2ib")))
    }

    /// Mean time that requests waited since the last look, over all targets, in microseconds.
    fn mean_wait(&mut self) -> Option<u64> {
        let since: Vec<parse::Waits> = self.targets.iter_mut().filter_map(Target::waits_since).collect();
        let requests: u64 = since.iter().map(|w| w.count).sum();
        let micros: u64 = since.iter().map(|w| w.micros).fold(0, u64::saturating_add);
        (requests >= FEWEST_REQUESTS).then(|| micros / requests)
    }
}

impl Target {
    fn new(name: &str, dir: PathBuf) -> Self {
        Self { name: name.to_owned(), dirs: vec![dir], connected: false, lost: None, waits: None }
    }

    fn read(&self, file: &str) -> Option<String> {
        self.dirs.iter().find_map(|dir: &PathBuf| read_text(&dir.join(file)))
    }

    fn state(&self) -> Option<String> {
        let small = self.read("state").and_then(|t| parse::current_state(&t));
        small.or_else(|| self.read("import").and_then(|t| parse::import_state(&t)))
    }

    /// What is wrong with it.
    fn complaint(&mut self, now: Instant) -> Option<String> {
        let state = self.state()?;
        if matches!(state.as_str(), "FULL" | "IDLE") {
            self.connected = true;
            self.lost = None;
            return None;
        }
        let lost = *self.lost.get_or_insert(now);
        let missed = self.connected && now.saturating_duration_since(lost) < GIVEN_UP;
        missed.then(|| format!("{} is {state}", self.name))
    }

    fn waits_since(&mut self) -> Option<parse::Waits> {
        let now = parse::waits(&self.read("stats")?)?;
        let before = self.waits.replace(now)?;
        Some(now.since(before))
    }
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

impl Source for Client {
    fn name(&self) -> SourceName {
        SourceName::Lustre
    }

    fn watches(&self) -> String {
        format!("{} targets of Lustre {}", self.targets.len(), self.name)
    }

    fn look(&mut self, now: Instant) -> Finding {
        let lost: Vec<String> = self.targets.iter_mut().filter_map(|t| t.complaint(now)).collect();
        if !lost.is_empty() {
            return Finding::gone(lost.join(", "));
        }
        match self.mean_wait().and_then(|wait| Some((wait, self.best.exceeded(now, wait)?))) {
            Some((wait, best)) => Finding::degraded(format!(
                "requests to Lustre {} wait {wait} us, {best} us at best lately",
                self.name
            )),
            None => Finding::live(),
        }
    }
}

#[cfg(test)]
mod tests;
