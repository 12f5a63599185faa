//! Real NVMe/TCP: a guest under Debian's kernel mounts a disk over the fabric on its own loopback, keeps the cache on an
//! emulated NVMe, loses the path and gets it back. Every write to the cache device is logged by dm-log-writes; from the log
//! come the disks that a power cut may leave, and each of them is opened as a restart would. Ending the emulator would prove
//! nothing: it keeps what the guest wrote. Functional, not for speed. Needs root, QEMU, and what
//! `contrib/scripts/install-needs.sh guest` unpacks.
#![allow(clippy::unwrap_used)]

#[path = "guest/boot.rs"]
mod boot;
#[path = "guest/log_writes.rs"]
mod log_writes;
#[path = "guest/recovered.rs"]
mod recovered;
#[path = "guest/write_back.rs"]
mod write_back;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use boot::Parts;
use log_writes::{ANYWHERE, Log};
use migshare_storage::cache::{Cache, FileStore};
use migshare_storage::mounts::Mount;
use migshare_storage::random::Random;
use recovered::{Found, Mounted, find};

const LOST_PATH: &str = concat!(include_str!("guest/init"), include_str!("guest/lost-path"));
const MIB: u64 = 1 << 20;
/// As in `lost-path`.
const CACHE_SIZE: u64 = 24 * MIB;
const FILES: [&str; 9] = ["f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9"];
/// Disks to look at.
const POWER_CUTS: u64 = 40;

fn parts() -> Option<Parts> {
    let found = match Parts::find() {
        Ok(_) if !rustix::process::geteuid().is_root() => Err("needs root".to_owned()),
        found => found,
    };
    if let Err(missing) = &found {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "{missing}");
        println!("SKIP: {missing}");
    }
    found.ok()
}

fn disk(dir: &Path, name: &str, size: u64) -> std::path::PathBuf {
    let path = dir.join(name);
    File::create(&path).unwrap().set_len(size).unwrap();
    path
}

/// What the guest said, by key.
struct Said(BTreeMap<String, String>);

impl Said {
    fn new(lines: &[String]) -> Self {
        let facts = lines.iter().filter_map(|l| l.split_once("guest: ")?.1.split_once(' '));
        Self(facts.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn bytes(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or_else(|_| panic!("{key} is {:?}", self.get(key)))
    }
}

#[test]
#[ignore = "minutes under emulation, with a kernel of its own: make guest"]
fn over_real_nvme_tcp_a_lost_path_is_left_and_a_power_cut_loses_nothing_that_was_kept() {
    let Some(parts) = parts() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [local, log, remote] =
        [("local", 64), ("log", 512), ("remote", 64)].map(|(name, mib)| disk(dir.path(), name, mib * MIB));
    let disks = [(&*local, "local"), (&*log, "log"), (&*remote, "remote")];
    let said = Said::new(&parts.run(dir.path(), LOST_PATH, &disks));
    assert_ne!(said.get("done"), "", "the guest did not come to its end");
    the_lost_path_was_left_and_taken_again(&said);
    power_cuts(dir.path(), &local, &log, &remote, said.get("backend"));
}

fn the_lost_path_was_left_and_taken_again(said: &Said) {
    assert!(said.get("watched").contains("tcp 127.0.0.1 port 4420"), "{}", said.get("watched"));
    assert!(said.get("watched").contains("TCP connections to 127.0.0.1 port 4420"));
    assert!(said.bytes("split-while-live") >= MIB);
    assert_eq!(said.bytes("split-while-lost"), 0);
    assert!(said.get("lost").starts_with("nvme nvme"), "{}", said.get("lost"));
    assert!(said.bytes("hits-while-lost") >= MIB, "the cache was not asked while the path was lost");
    assert!(said.get("back").contains("live"), "{}", said.get("back"));
    assert!(said.bytes("split-when-back") > 0, "no hit was read at the backend again");
}

fn power_cuts(dir: &Path, local: &Path, log: &Path, remote: &Path, device: &str) {
    let log = Log::read(File::open(log).unwrap()).unwrap();
    let backend = Mounted::new(remote, dir.join("backend"), "loop,ro");
    let identity = identity_of(device);
    let (flushes, marks) = (log.flushes(), log.marks());
    println!("{} entries, {} flushes, marks {marks:?}", log.entries.len(), flushes.len());
    let first = marks.iter().find(|(_, m)| m.starts_with("kept")).expect("nothing was kept").0;
    let end = log.entries.len();
    let start = File::options().read(true).write(true).open(local).unwrap();
    clear(&start).unwrap();
    let mut done = 0;
    let mut sum = Found::default();
    for cut in 0..POWER_CUTS {
        let at = first + ((end - first) as u64 * (cut + 1) / POWER_CUTS) as usize;
        // All before the last flush is durable; of what comes up to the next one, anything may be.
        let durable = flushes.iter().copied().rfind(|f| *f < at).map_or(0, |f| f + 1);
        let next = flushes.iter().copied().find(|f| *f >= at).unwrap_or(end);
        log.apply(done..durable.max(done), &start).unwrap();
        done = durable.max(done);
        let image = dir.join("cut");
        io::copy(&mut File::open(local).unwrap(), &mut File::create(&image).unwrap()).unwrap();
        let disk = File::options().write(true).open(&image).unwrap();
        log.apply_some(done..next.max(done), ANYWHERE, &disk, &mut Random(cut)).unwrap();
        let kept = kept(&marks, done, next);
        let found = after_restart(&image, dir, identity, backend.path());
        for (file, found) in &found {
            assert_eq!(found.wrong, 0, "cut {cut} after entry {done}: wrong bytes of {file}: {found:?}");
            let all = found.right == found.blocks;
            assert!(all || !kept.contains(file), "cut {cut} after entry {done}: {file} was kept: {found:?}");
            sum.right += found.right;
            sum.refused += found.refused;
        }
        if cut + 1 == POWER_CUTS {
            assert!(sum.right > 0, "nothing was ever found");
        }
    }
    println!(
        "{POWER_CUTS} power cuts: {} blocks right, {} refused by checksum, 0 wrong",
        sum.right, sum.refused
    );
}

/// Of the backend as the guest's sidecar knew it.
fn identity_of(device: &str) -> u64 {
    format!("1 1 0:1 / /backend rw - ext4 {device} rw").parse::<Mount>().unwrap().identity()
}

/// Files of which nothing may be missing when all up to `durable` is, and something up to `reached` may be.
fn kept(marks: &[(usize, String)], durable: usize, reached: usize) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    for (at, mark) in marks {
        let mut words = mark.split(',');
        match words.next() {
            // What a mark says of was durable before the mark.
            Some("kept") if *at <= durable => kept = words.collect(),
            Some("changed") if *at < reached => {
                let changed: Vec<&str> = words.collect();
                kept.retain(|k| !changed.contains(k));
            }
            _ => {}
        }
    }
    kept
}

fn after_restart(image: &Path, dir: &Path, identity: u64, backend: &Path) -> Vec<(&'static str, Found)> {
    let disk = Mounted::new(image, dir.join("recovered"), "loop");
    let cache: Cache<FileStore> = Cache::open(&disk.path().join("cache"), CACHE_SIZE).unwrap();
    FILES.iter().map(|file| (*file, find(&cache, identity, &backend.join(file)))).collect()
}

#[test]
#[ignore = "minutes under emulation, with a kernel of its own: make guest"]
fn what_fsync_local_acknowledged_is_there_after_any_power_cut() {
    let Some(parts) = parts() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [both, log] =
        [("local", 2 * write_back::HALF), ("log", 512 * MIB)].map(|(n, s)| disk(dir.path(), n, s));
    let said = Said::new(&parts.run(dir.path(), write_back::INIT, &[(&*both, "local"), (&*log, "log")]));
    assert_ne!(said.get("done"), "", "the guest did not come to its end");
    clear(&File::options().write(true).open(&both).unwrap()).unwrap();
    write_back::power_cuts(dir.path(), &both, &log, identity_of(said.get("backend")));
}

/// An empty disk, as the guest was given.
fn clear(disk: &File) -> io::Result<()> {
    let size = disk.metadata()?.len();
    disk.set_len(0)?;
    disk.set_len(size)
}
