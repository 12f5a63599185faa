//! Over real remote file systems, behind a cable that is pulled: nbdkit with ext4, and GlusterFS, in network namespaces.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::rig::{Rig, can_mount, content, direct, read, wait_for};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rigs/remote.sh");
const BOUND: Duration = Duration::from_secs(60);

/// A remote file system; taken down when dropped.
struct Remote(PathBuf);

impl Remote {
    /// A device for a cache, whose rate can be set; its file system is in `local`.
    fn cache_device(dir: &Path) -> Option<Self> {
        Self::begin("cache", dir, &["cache"])
    }

    /// `None`, with the reason, where this machine lacks something.
    fn up(kind: &str, dir: &Path) -> Option<Self> {
        Self::begin(kind, dir, &["up", kind])
    }

    fn begin(kind: &str, dir: &Path, words: &[&str]) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let check = Command::new(SCRIPT).args(["check", kind]).output().unwrap();
        if !check.status.success() {
            let why = String::from_utf8_lossy(&check.stderr);
            assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "{why}");
            println!("SKIP: {why}");
            return None;
        }
        let remote = Self(dir.to_owned());
        let up = script().args(words).arg(dir).arg("64").status().unwrap();
        assert!(up.success(), "remote.sh {words:?} failed");
        Some(remote)
    }

    fn tell(&self, command: &str, argument: &str) {
        let told = script().arg(command).arg(&self.0).arg(argument).status().unwrap();
        assert!(told.success(), "remote.sh {command} {argument} failed");
    }

    fn files(&self) -> PathBuf {
        self.0.join("remote")
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = script().arg("down").arg(&self.0).status();
    }
}

fn script() -> Command {
    let mut command = Command::new(SCRIPT);
    command.stdin(Stdio::null());
    command
}

/// Hits go on when the cable is pulled, a miss is answered at the latest when it is back, and then both sides serve again.
fn survives_a_pulled_cable(kind: &str) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(remote) = Remote::up(kind, dir.path()) else { return };
    let (hot, cold) = (content(4 << 20, 1), content(1 << 20, 2));
    std::fs::write(remote.files().join("hot"), &hot).unwrap();
    std::fs::write(remote.files().join("cold"), &cold).unwrap();
    let rig = Rig::at(&remote.files(), &["--policy", "fixed-50"]);
    let (hot_path, cold_path) = (rig.mount().join("hot"), rig.mount().join("cold"));
    rig.warm(&hot_path);
    wait_for("reads at both sides", || {
        let before = rig.stats("split_bytes_total");
        assert!(read(&hot_path) == hot, "wrong bytes");
        rig.stats("split_bytes_total") > before
    });
    let (hot_file, cold_file) = (direct(&hot_path), direct(&cold_path));

    remote.tell("link", "down");
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 4 << 20];
        tx.send(hot_file.read_exact_at(&mut bytes, 0).map(|()| bytes))
    });
    let bytes = rx.recv_timeout(BOUND).expect("hits stopped with the network").unwrap();
    assert!(bytes == hot, "wrong bytes while the cable was out");
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 4096];
        tx.send(cold_file.read_exact_at(&mut bytes, 0).map(|()| bytes))
    });

    remote.tell("link", "up");
    assert!(rx.recv_timeout(BOUND).expect("a miss never went on").unwrap() == cold[..4096]);
    wait_for("reads at both sides again", || {
        let before = rig.stats("split_bytes_total");
        assert!(read(&hot_path) == hot, "wrong bytes");
        rig.stats("split_bytes_total") > before
    });
    assert!(read(&cold_path) == cold);
}

#[test]
fn a_pulled_cable_before_nbd_and_ext4_leaves_hits_and_loses_nothing() {
    survives_a_pulled_cable("nbd");
}

#[test]
fn a_pulled_cable_before_glusterfs_leaves_hits_and_loses_nothing() {
    survives_a_pulled_cable("gluster");
}

/// 48 reads of 256 KiB at a device of 24 MB/s take half a second each, longer than a silent side is given.
#[test]
fn reads_that_queue_at_a_slow_cache_are_not_read_at_the_backend_too() {
    const READ: usize = 256 << 10;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(device) = Remote::cache_device(dir.path()) else { return };
    let rig = Rig::caching_at(device.0.join("local/cache"), &["--policy", "cache-only"]);
    let whole = content(24 << 20, 1);
    let path = rig.put("f", &whole);
    rig.warm(&path);
    device.tell("cache-rate", "24");
    let before = rig.stats("backend_reads_total");
    std::thread::scope(|scope| {
        for reader in 0..48 {
            let (file, whole) = (direct(&path), &whole);
            scope.spawn(move || {
                let mut bytes = vec![0; READ];
                for turn in 0..8 {
                    let at = (reader * 2 + turn * 13) % 96 * READ;
                    file.read_exact_at(&mut bytes, at as u64).unwrap();
                    assert!(bytes == whole[at..at + READ], "wrong bytes");
                }
            });
        }
    });
    let mean_ms = rig.stats("cache_read_nanoseconds_total") / rig.stats("cache_reads_total") / 1_000_000;
    assert!(mean_ms > 300, "they did not queue: {mean_ms} ms");
    assert_eq!((rig.stats("rescues_total"), rig.stats("backend_reads_total")), (0, before));
}
