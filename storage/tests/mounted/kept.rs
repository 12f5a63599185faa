//! The cache in the hands of an administrator: warmed, explained, pinned, forgotten, shared by mounts, on a device that is
//! slower than what is to be kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::fs::getxattr;
use serde_json::Value;

use super::rig::{BINARY, Rig, can_mount, content, read, wait_for};

/// Runs a command of the sidecar; what it said as JSON.
fn ask(words: &[&str], path: &Path) -> Value {
    let (told, status, errors) = try_to(words, path);
    assert!(status.success(), "{words:?}: {errors}");
    told
}

/// The same where it may fail: what it said as JSON and otherwise.
fn try_to(words: &[&str], path: &Path) -> (Value, ExitStatus, String) {
    let output = Command::new(BINARY).args(words).arg(path).arg("--json").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words:?}: {errors}"));
    (told, output.status, errors)
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Lets files be old enough to be cached.
fn warm_all(words: &[&str], path: &Path, bytes: u64) {
    wait_for("everything in the cache", || number(&try_to(words, path).0, "cached_bytes") == bytes);
}

#[test]
fn a_directory_is_warmed_explained_and_forgotten() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    fs::create_dir_all(rig.backend().join("data/deep")).unwrap();
    for (name, len) in [("data/a", 3 << 20), ("data/deep/b", 1000), ("data/deep/empty", 0)] {
        rig.put(name, &content(len, 1));
    }
    let (data, a) = (rig.mount().join("data"), rig.mount().join("data/a"));
    warm_all(&["warm"], &data, (3 << 20) + 1000);
    let told = ask(&["warm"], &data);
    assert_eq!((number(&told, "files"), number(&told, "bytes")), (3, (3 << 20) + 1000));
    let known = ask(&["explain"], &a);
    assert_eq!((number(&known, "cached_bytes"), &known["split"]["policy"]), (3 << 20, &"cache-only".into()));
    let before = number(&ask(&["stats"], &rig.mount()), "hit_bytes_total");
    assert!(read(&a) == content(3 << 20, 1));
    assert_eq!(number(&ask(&["stats"], &rig.mount()), "hit_bytes_total"), before + (3 << 20));
    assert_eq!(number(&ask(&["forget"], &a), "files"), 1);
    assert_eq!(number(&ask(&["explain"], &a), "cached_bytes"), 0);
    assert!(read(&a) == content(3 << 20, 1));
}

#[test]
fn a_pinned_file_stays_whatever_is_read() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    // Twice what the cache holds.
    for (name, len) in [("pinned", 4), ("plain", 4), ("scan", 64)] {
        rig.put(name, &content(len << 20, 1));
    }
    let [pinned, plain, scan] = ["pinned", "plain", "scan"].map(|name| rig.mount().join(name));
    warm_all(&["warm", "--pin"], &pinned, 4 << 20);
    warm_all(&["warm"], &plain, 4 << 20);
    wait_for("the plain file gives way", || {
        // Read twice, so that it is no scan to be resisted.
        for _ in 0..2 {
            read(&scan);
        }
        number(&ask(&["explain"], &plain), "cached_bytes") < 4 << 20
    });
    assert_eq!(number(&ask(&["explain"], &pinned), "cached_bytes"), 4 << 20);
}

#[test]
fn a_pin_ends_with_its_file_and_takes_no_more_than_half_of_the_cache() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    let files: Vec<_> = ["a", "b", "c", "d"].map(|name| rig.put(name, &content(4 << 20, 1))).into();
    files[..3].iter().for_each(|file| warm_all(&["warm", "--pin"], file, 4 << 20));
    // Of 32 MiB 12 are pinned; 6 more are too many.
    let large = rig.put("large", &content(6 << 20, 1));
    let (_, status, errors) = try_to(&["warm", "--pin"], &large);
    assert!(!status.success() && errors.contains("half of the cache is pinned"), "{errors}");
    let pinned = || rig.stats("cache_slots_pinned");
    assert_eq!((pinned(), rig.stats("cache_slots")), (48, 128));
    fs::hard_link(&files[0], rig.mount().join("other")).unwrap();
    fs::remove_file(&files[0]).unwrap();
    assert_eq!(pinned(), 48, "a file that has another name");
    fs::remove_file(rig.mount().join("other")).unwrap();
    assert_eq!(pinned(), 32);
    fs::rename(&files[3], &files[1]).unwrap();
    assert_eq!(pinned(), 16);
    assert!(Command::new(BINARY).arg("forget").arg(&files[2]).status().unwrap().success());
    assert_eq!(pinned(), 0);
}

/// A sidecar with two mounts.
struct Both(Child);

impl Drop for Both {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn two_mounts_share_one_cache_and_keep_their_files_apart() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mounts = [("one", 1), ("two", 2)];
    let mut config = format!("[cache]\ndir = \"{}\"\nsize = \"32M\"\n", path("cache").display());
    for (name, seed) in mounts {
        let [backend, at] = ["backend", "mount"].map(|kind| path(&format!("{kind}-{name}")));
        fs::create_dir(&backend).unwrap();
        fs::create_dir(&at).unwrap();
        fs::write(backend.join("f"), content(2 << 20, seed)).unwrap();
        let (backend, at) = (backend.display(), at.display());
        config += &format!("[[mount]]\nbackend = \"{backend}\"\nat = \"{at}\"\npolicy = \"cache-only\"\n");
    }
    fs::write(path("storage.toml"), config).unwrap();
    let start = || {
        let daemon = Command::new(BINARY).args(["serve", "--config"]).arg(path("storage.toml")).spawn();
        let daemon = Both(daemon.unwrap());
        wait_for("both mounts", || mounts.iter().all(|(name, _)| file(dir.path(), name).exists()));
        daemon
    };
    let daemon = start();
    mounts.iter().for_each(|(name, _)| warm_all(&["warm"], &file(dir.path(), name), 2 << 20));
    drop(daemon);
    // Either of them finds its own after a restart, and nothing is read at a backend.
    let _daemon = start();
    for (name, seed) in mounts {
        let file = file(dir.path(), name);
        assert!(read(&file) == content(2 << 20, seed), "bytes of another mount");
        let stats = ask(&["stats"], file.parent().unwrap());
        assert_eq!((number(&stats, "hit_bytes_total"), number(&stats, "miss_bytes_total")), (2 << 20, 0));
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("mount-{name}/f"))
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rigs/remote.sh");

/// A file system on a device with a rate, bound to where a sidecar has its cache.
struct SlowCache<'a>(&'a Path, PathBuf);

impl SlowCache<'_> {
    fn tell(&self, command: &str, argument: &str) {
        assert!(Command::new(SCRIPT).arg(command).arg(self.0).arg(argument).status().unwrap().success());
    }
}

impl Drop for SlowCache<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.1).status();
        let _ = Command::new(SCRIPT).arg("down").arg(self.0).status();
    }
}

#[test]
fn a_cache_device_that_cannot_keep_up_is_given_less_and_readers_go_on() {
    if !can_mount() {
        return;
    }
    if !Command::new(SCRIPT).args(["check", "cache"]).status().unwrap().success() {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs nbdkit and nbdfuse");
        return println!("SKIP: needs nbdkit and nbdfuse");
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut rig = Rig::new(&["--policy", "cache-only"]);
    rig.stop();
    fs::remove_dir_all(rig.cache()).unwrap();
    fs::create_dir(rig.cache()).unwrap();
    let slow = SlowCache(dir.path(), rig.cache());
    slow.tell("cache", "64");
    let bound = Command::new("mount").arg("--bind").arg(dir.path().join("local")).arg(rig.cache()).status();
    assert!(bound.unwrap().success());
    rig.start();
    // More than may wait to be written: what the device does not take is left out, and the reader does not wait for it.
    let files = ["a", "b", "c"];
    files.iter().for_each(|name| drop(rig.put(name, &content(48 << 20, 5))));
    slow.tell("cache-rate", "1");
    wait_for("fills that are left out", || {
        files.iter().for_each(|name| assert!(read(&rig.mount().join(name)) == content(48 << 20, 5)));
        rig.stats("skipped_fills_total") > 0
    });
    slow.tell("cache-rate", "1000");
    rig.crash();
}

#[test]
fn an_interrupted_profile_leaves_the_policy_as_it_was() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "fixed-70"]);
    let file = rig.put("f", &content(16 << 20, 3));
    rig.warm(&file);
    let policy = || {
        let mut name = [0; 64];
        let len = getxattr(rig.mount(), "user.migshare.policy", &mut name[..]).unwrap();
        String::from_utf8(name[..len].to_vec()).unwrap()
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut command = Command::new(BINARY);
        command.arg("profile").arg(&file).arg("--out").arg(rig.path().join("p.csv"));
        let mut profile = command.args(["--seconds", "60"]).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the profile's policy", || policy() == "cache-only");
        kill(Pid::from_raw(profile.id().cast_signed()), signal).unwrap();
        let status = profile.wait().unwrap();
        assert_eq!((policy().as_str(), status.success()), ("fixed-70", false), "{signal}: {status}");
    }
}
