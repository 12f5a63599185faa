//! Any sequence of operations, in each write mode, against a reference model: names lead to inodes, inodes are bytes. Among
//! them changes behind the sidecar's back, policy flips, restarts and crashes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::rig::{Rig, can_mount, content, read};

/// Largest place that is written to.
const LARGEST: usize = 1 << 20;
const POLICIES: [&str; 5] = ["cache-only", "backend-only", "orthus", "window", "fixed-50"];
const NAMES: u8 = 5;
const SLOTS: usize = 3;

/// Bytes for a place in a file.
#[derive(Clone, Debug)]
struct Bytes {
    at: usize,
    len: usize,
    seed: u8,
}

#[derive(Clone, Debug)]
enum Step {
    /// By a name, which is made if it is missing.
    Write(u8, Bytes),
    Append(u8, Bytes),
    Truncate(u8, usize),
    Rename(u8, u8),
    Link(u8, u8),
    Unlink(u8),
    /// A descriptor that stays open over the steps that follow.
    Open(usize, u8),
    WriteOpen(usize, Bytes),
    TruncateOpen(usize, usize),
    ReadOpen(usize),
    Sync(usize),
    Close(usize),
    /// By another node.
    Elsewhere(u8, Bytes),
    Read(u8),
    Warm(u8),
    Policy(usize),
    Restart,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..NAMES;
    let slot = || 0..SLOTS;
    let bytes =
        || (0..LARGEST, 1..200_000_usize, any::<u8>()).prop_map(|(at, len, seed)| Bytes { at, len, seed });
    let step = prop_oneof![
        6 => (name(), bytes()).prop_map(|(n, b)| Step::Write(n, b)),
        3 => (name(), bytes()).prop_map(|(n, b)| Step::Append(n, b)),
        3 => (name(), 0..LARGEST).prop_map(|(n, len)| Step::Truncate(n, len)),
        3 => (name(), name()).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => (name(), name()).prop_map(|(a, b)| Step::Link(a, b)),
        2 => name().prop_map(Step::Unlink),
        4 => (slot(), name()).prop_map(|(s, n)| Step::Open(s, n)),
        5 => (slot(), bytes()).prop_map(|(s, b)| Step::WriteOpen(s, b)),
        2 => (slot(), 0..LARGEST).prop_map(|(s, len)| Step::TruncateOpen(s, len)),
        4 => slot().prop_map(Step::ReadOpen),
        2 => slot().prop_map(Step::Sync),
        2 => slot().prop_map(Step::Close),
        3 => (name(), bytes()).prop_map(|(n, b)| Step::Elsewhere(n, b)),
        6 => name().prop_map(Step::Read),
        1 => name().prop_map(Step::Warm),
        2 => (0..POLICIES.len()).prop_map(Step::Policy),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 20..80)
}

#[derive(Default)]
struct Model {
    names: BTreeMap<u8, usize>,
    inodes: Vec<Vec<u8>>,
}

impl Model {
    fn inode(&mut self, name: u8) -> usize {
        if !self.names.contains_key(&name) {
            self.inodes.push(Vec::new());
            self.names.insert(name, self.inodes.len() - 1);
        }
        self.names[&name]
    }

    fn write(&mut self, inode: usize, at: usize, bytes: &[u8]) {
        let file = &mut self.inodes[inode];
        file.resize(file.len().max(at + bytes.len()), 0);
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// The sidecar beside the model.
struct Run {
    rig: Rig,
    model: Model,
    open: [Option<(File, usize)>; SLOTS],
}

impl Run {
    fn new(arguments: &[&str]) -> Self {
        Self { rig: Rig::new(arguments), model: Model::default(), open: [const { None }; SLOTS] }
    }

    fn path(&self, name: u8) -> PathBuf {
        self.rig.mount().join(format!("f{name}"))
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(name, bytes) => {
                let (data, inode) = (content(bytes.len, bytes.seed), self.model.inode(*name));
                open(&self.path(*name)).write_all_at(&data, bytes.at as u64).unwrap();
                self.model.write(inode, bytes.at, &data);
            }
            Step::Append(name, bytes) => {
                use std::io::Write;
                let (data, inode) = (content(bytes.len, bytes.seed), self.model.inode(*name));
                let mut file = OpenOptions::new().create(true).append(true).open(self.path(*name)).unwrap();
                file.write_all(&data).unwrap();
                let end = self.model.inodes[inode].len();
                self.model.write(inode, end, &data);
            }
            Step::Truncate(name, len) => {
                let inode = self.model.inode(*name);
                open(&self.path(*name)).set_len(*len as u64).unwrap();
                self.model.inodes[inode].resize(*len, 0);
            }
            Step::Elsewhere(name, bytes) => self.elsewhere(*name, bytes),
            Step::Read(name) => self.check(*name),
            Step::Warm(name) => {
                if self.model.names.get(name).is_some_and(|inode| !self.model.inodes[*inode].is_empty()) {
                    self.settle(*name);
                    self.rig.warm(&self.path(*name));
                }
            }
            Step::Policy(policy) => self.rig.set_policy(POLICIES[*policy]),
            Step::Restart => {
                self.open = [const { None }; SLOTS];
                self.rig.stop();
                self.rig.start();
            }
            Step::Crash => {
                self.rig.crash();
                self.open = [const { None }; SLOTS];
                self.rig.start();
            }
            Step::Rename(..) | Step::Link(..) | Step::Unlink(_) => self.name(step),
            _ => self.through_open(step),
        }
    }

    fn name(&mut self, step: &Step) {
        let names = &mut self.model.names;
        match *step {
            Step::Rename(from, to) if names.contains_key(&from) => {
                fs::rename(
                    self.rig.mount().join(format!("f{from}")),
                    self.rig.mount().join(format!("f{to}")),
                )
                .unwrap();
                // Two names of one file: nothing happens (rename(2)).
                if names.get(&to) != names.get(&from) {
                    let inode = names.remove(&from).unwrap();
                    names.insert(to, inode);
                }
            }
            Step::Link(from, to) if names.contains_key(&from) => {
                let linked = fs::hard_link(
                    self.rig.mount().join(format!("f{from}")),
                    self.rig.mount().join(format!("f{to}")),
                );
                assert_eq!(linked.is_err(), names.contains_key(&to));
                let inode = names[&from];
                names.entry(to).or_insert(inode);
            }
            Step::Unlink(name) => {
                let removed = fs::remove_file(self.rig.mount().join(format!("f{name}")));
                assert_eq!(removed.is_ok(), names.remove(&name).is_some());
            }
            _ => {}
        }
    }

    fn through_open(&mut self, step: &Step) {
        if let Step::Open(slot, name) = step {
            let inode = self.model.inode(*name);
            self.open[*slot] = Some((open(&self.path(*name)), inode));
            return;
        }
        let (Step::WriteOpen(slot, _)
        | Step::TruncateOpen(slot, _)
        | Step::ReadOpen(slot)
        | Step::Sync(slot)
        | Step::Close(slot)) = step
        else {
            return;
        };
        let Some((file, inode)) = &self.open[*slot] else { return };
        match step {
            Step::WriteOpen(_, bytes) => {
                let data = content(bytes.len, bytes.seed);
                file.write_all_at(&data, bytes.at as u64).unwrap();
                self.model.write(*inode, bytes.at, &data);
            }
            Step::TruncateOpen(_, len) => {
                file.set_len(*len as u64).unwrap();
                self.model.inodes[*inode].resize(*len, 0);
            }
            Step::ReadOpen(_) => {
                let want = &self.model.inodes[*inode];
                assert_eq!(file.metadata().unwrap().len(), want.len() as u64);
                let mut found = vec![0; want.len() + 1];
                let mut len = 0;
                while let n @ 1.. = file.read_at(&mut found[len..], len as u64).unwrap() {
                    len += n;
                }
                assert!(found[..len] == want[..], "an open file differs");
            }
            Step::Sync(_) => file.sync_all().unwrap(),
            _ => self.open[*slot] = None,
        }
    }

    /// Brings a file to the backend, where another node would see all of it: fsync need not, a new name does.
    fn settle(&self, name: u8) {
        let aside = self.rig.mount().join("aside");
        fs::rename(self.path(name), &aside).unwrap();
        fs::rename(aside, self.path(name)).unwrap();
    }

    /// What is open here may go on showing what it has in the page cache.
    fn elsewhere(&mut self, name: u8, bytes: &Bytes) {
        let existed = self.model.names.contains_key(&name);
        let (data, inode) = (content(bytes.len, bytes.seed), self.model.inode(name));
        self.open.iter_mut().for_each(|slot| {
            slot.take_if(|(_, of)| *of == inode);
        });
        if existed {
            self.settle(name);
        }
        open(&self.rig.backend().join(format!("f{name}"))).write_all_at(&data, bytes.at as u64).unwrap();
        self.model.write(inode, bytes.at, &data);
    }

    fn check(&self, name: u8) {
        let path = self.path(name);
        match self.model.names.get(&name).map(|inode| &self.model.inodes[*inode]) {
            Some(want) => {
                assert!(fs::read(&path).unwrap() == *want, "f{name} differs through the page cache");
                assert!(read(&path) == *want, "f{name} differs past the page cache");
            }
            None => assert!(fs::read(&path).is_err(), "f{name} should not exist"),
        }
    }

    /// On the mount, and after an orderly end at the backend.
    fn end(mut self) {
        (0..NAMES).for_each(|name| self.check(name));
        self.open = [const { None }; SLOTS];
        self.rig.stop();
        let mut names: Vec<_> = fs::read_dir(self.rig.backend())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let wanted: Vec<_> = self.model.names.keys().map(|name| format!("f{name}")).collect();
        assert_eq!(names, wanted);
        for (name, inode) in &self.model.names {
            let found = fs::read(self.rig.backend().join(format!("f{name}"))).unwrap();
            assert!(found == self.model.inodes[*inode], "f{name} differs at the backend");
        }
    }
}

fn open(path: &std::path::Path) -> File {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

fn agrees_with_the_model(arguments: &[&str]) {
    if !can_mount() {
        return;
    }
    let config = Config { cases: 5, max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let mut run = Run::new(arguments);
        steps.iter().for_each(|step| run.step(step));
        run.end();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{arguments:?}: {error}");
    }
}

#[test]
fn any_sequence_agrees_with_the_model_writing_through() {
    agrees_with_the_model(&["--writes", "through"]);
}

#[test]
fn any_sequence_agrees_with_the_model_writing_around() {
    agrees_with_the_model(&["--writes", "around"]);
}

#[test]
fn any_sequence_agrees_with_the_model_writing_back() {
    agrees_with_the_model(&["--writes", "back", "--dirty", "16M"]);
}

#[test]
fn any_sequence_agrees_with_the_model_writing_back_with_local_fsync() {
    agrees_with_the_model(&["--writes", "back", "--dirty", "16M", "--fsync", "local"]);
}
