//! Write-back under fire: kill -9 at random points, full and failing devices, a full backend, rights, and journals of
//! earlier mounts.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use super::rig::{Rig, can_mount, content, wait_for};

const BACK: &[&str] = &["--writes", "back", "--dirty", "16M"];

/// A tmpfs of its own, so that it can be full or read-only.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&at).unwrap();
        let option = format!("size={bytes},mode=755");
        assert!(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
                .arg(&at)
                .status()
                .unwrap()
                .success()
        );
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Writes blocks of 8 KiB at random places of a file until it fails, and keeps in `acknowledged` what each place must hold:
/// the last number whose write returned, or the one that was being written.
fn write_until_killed(path: &Path, acknowledged: &Mutex<Vec<(u64, u64)>>, stop: &AtomicBool, seed: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let mut random = seed;
    for number in 1.. {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (random >> 33) % 64;
        acknowledged.lock().unwrap()[place as usize].1 = number;
        let written = file.write_all_at(&number.to_le_bytes().repeat(1024), place * 8192);
        if written.is_err() || stop.load(Ordering::Acquire) {
            return;
        }
        acknowledged.lock().unwrap()[place as usize].0 = number;
    }
}

fn kill_and_check(arguments: &[&str], seed: u64) {
    let mut rig = Rig::new(arguments);
    for round in 0..3u64 {
        let name = format!("f{round}");
        fs::write(rig.backend().join(&name), vec![0; 64 * 8192]).unwrap();
        let oracle = Arc::new(Mutex::new(vec![(0u64, 0u64); 64]));
        let stop = Arc::new(AtomicBool::new(false));
        let (path, ours, stopping) = (rig.mount().join(&name), Arc::clone(&oracle), Arc::clone(&stop));
        let writer = std::thread::spawn(move || write_until_killed(&path, &ours, &stopping, seed + round));
        // Any moment is as good as another: before, during and after the first flush.
        std::thread::sleep(Duration::from_millis(100 + (seed * 7919 + round * 613) % 1500));
        rig.crash();
        stop.store(true, Ordering::Release);
        writer.join().unwrap();
        rig.start();
        let seen = fs::read(rig.mount().join(&name)).unwrap();
        for (place, (done, tried)) in oracle.lock().unwrap().iter().enumerate() {
            let block = &seen[place * 8192..(place + 1) * 8192];
            let words: Vec<u64> =
                block.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().unwrap())).collect();
            let fine = words.iter().all(|w| w == done || w == tried);
            assert!(fine, "place {place}: {} was acknowledged, {tried} tried, {:?} found", done, &words[..4]);
        }
    }
    rig.stop();
}

#[test]
fn kill_9_at_random_points_loses_nothing_that_was_acknowledged() {
    if !can_mount() {
        return;
    }
    std::thread::scope(|threads| {
        let through: &[&str] = &["--writes", "through"];
        let around: &[&str] = &["--writes", "around"];
        let local: &[&str] = &["--writes", "back", "--dirty", "16M", "--fsync", "local"];
        for (seed, arguments) in (1..).zip([through, around, BACK, local]) {
            threads.spawn(move || kill_and_check(arguments, seed));
        }
    });
}

#[test]
fn a_full_cache_device_lets_writes_go_to_the_backend_and_one_that_loses_bytes_is_not_believed() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    rig.stop();
    fs::remove_dir_all(rig.cache()).unwrap();
    // Room for the cache and two segments.
    let device = Small::mount(rig.cache(), (32 << 20) + (6 << 20));
    rig.start();
    let at = |name: &str| rig.mount().join(name);
    fs::write(at("full"), content(12 << 20, 1)).unwrap();
    assert!(rig.stats("throttled_writes_total") > 0, "a full device took more than it has");
    assert!(fs::read(at("full")).unwrap() == content(12 << 20, 1));
    wait_for("the file at the backend", || {
        fs::read(rig.backend().join("full")).unwrap() == content(12 << 20, 1)
    });

    let file = fs::File::create(at("lost")).unwrap();
    file.write_all_at(&content(1 << 20, 2), 0).unwrap();
    let segments = fs::read_dir(rig.journal()).unwrap().map(|e| e.unwrap().path());
    for segment in segments {
        OpenOptions::new().write(true).open(segment).unwrap().set_len(0).unwrap();
    }
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(fs::read(at("lost")).is_err(), "bytes that are lost were made up");
    rig.crash();
    drop(device);
}

#[test]
fn a_full_backend_keeps_the_bytes_dirty_and_says_so() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let backend = Small::mount(rig.path().join("small"), 4 << 20);
    let upper = Rig::above(backend.0.clone(), BACK);
    fs::write(backend.0.join("ballast"), vec![1; 3 << 20]).unwrap();
    let path = upper.mount().join("f");
    fs::write(&path, content(3 << 20, 1)).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert!(fs::read(&path).unwrap() == content(3 << 20, 1), "what cannot be flushed can be read");
    assert!(upper.stats("flush_errors_total") > 0 && upper.stats("dirty_bytes") == 3 << 20);
    fs::remove_file(backend.0.join("ballast")).unwrap();
    file.sync_all().unwrap();
    assert!(fs::read(backend.0.join("f")).unwrap() == content(3 << 20, 1));
}

/// The epilog of the README, with another place for the mounts and the caches.
fn epilog(dir: &Path) -> String {
    let readme = include_str!("../../README.md");
    let block = readme.split("```\n").find(|b| b.starts_with("# Epilog:")).unwrap();
    let block = block.replace("/run/migshare-storage", "run").replace("/local/cache", "cache");
    let log = "systemctl() { :; }; logger() { echo \"$@\" >> log; }; SLURM_JOB_ID=7";
    let status = Command::new("sh").args(["-c", &format!("{log}\n{block}")]).current_dir(dir).status();
    assert!(status.unwrap().success(), "a node is drained for a cache");
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

#[test]
fn an_end_that_leaves_dirty_data_is_told_by_the_exit_code_and_the_epilog_keeps_the_journal() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let backend = Small::mount(rig.path().join("small"), 4 << 20);
    let mut upper = Rig::above(backend.0.clone(), BACK);
    fs::write(backend.0.join("ballast"), vec![1; 3 << 20]).unwrap();
    fs::write(upper.mount().join("f"), content(3 << 20, 1)).unwrap();
    assert_eq!(upper.end().code(), Some(3));
    let job = upper.path().join("epilog");
    fs::create_dir_all(job.join("run/7/project")).unwrap();
    fs::create_dir(job.join("cache")).unwrap();
    fs::rename(upper.cache(), job.join("cache/7")).unwrap();
    assert!(epilog(&job).contains("cache/7"), "nobody is told of the dirty data");
    fs::rename(job.join("cache/7"), upper.cache()).unwrap();

    fs::remove_file(backend.0.join("ballast")).unwrap();
    upper.start();
    upper.stop();
    assert!(fs::read(backend.0.join("f")).unwrap() == content(3 << 20, 1));
    fs::create_dir_all(job.join("run/7/project")).unwrap();
    fs::rename(upper.cache(), job.join("cache/7")).unwrap();
    epilog(&job);
    assert!(!job.join("cache/7").exists() && !job.join("run/7").exists());
}

#[test]
fn after_a_crash_a_users_file_is_flushed_as_theirs_also_when_it_is_read_only_by_then() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    fs::set_permissions(rig.backend(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = "umask 022; echo mine > f; chmod 444 f";
    let mut user = Command::new("setpriv");
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .current_dir(rig.mount());
    assert!(user.status().unwrap().success());
    rig.crash();
    rig.set_arguments(&["--writes", "through"]);
    rig.start();
    let found = rig.backend().join("f").metadata().unwrap();
    assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"mine\n");
    assert_eq!((found.uid(), found.mode() & 0o777), (65534, 0o444));
}

#[test]
fn another_users_write_to_a_dirty_file_keeps_to_what_each_may() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(BACK);
    let path = rig.put("f", b"0000000000");
    fs::set_permissions(rig.backend().join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    let root = OpenOptions::new().write(true).open(&path).unwrap();
    root.write_all_at(b"root", 0).unwrap();
    let mut user = Command::new("setpriv");
    user.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "printf user 1<>f"]);
    assert!(user.current_dir(rig.mount()).status().unwrap().success());
    assert_eq!(fs::read(&path).unwrap(), b"user000000");
    root.sync_all().unwrap();
    assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"user000000");
}

/// A sidecar that was killed in the middle of a flush of `f`.
fn killed_while_flushing(ours: &[u8]) -> Rig {
    // Which moment the kill comes at is the machine's to choose: the journal tells, and another try is made.
    for _ in 0..50 {
        let mut rig = Rig::new(BACK);
        rig.put("f", &vec![0; ours.len()]);
        let behind = fs::File::open(rig.backend().join("f")).unwrap();
        fs::write(rig.mount().join("f"), ours).unwrap();
        let start = Instant::now();
        while first(&behind) != ours[0] {
            assert!(start.elapsed() < Duration::from_secs(60), "no flush is begun");
        }
        rig.signal(Signal::SIGKILL);
        rig.crash();
        let says = |what: &[u8]| {
            let segments = fs::read_dir(rig.journal()).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap());
            segments.into_iter().any(|bytes| bytes.windows(what.len()).any(|found| found == what))
        };
        if says(b"\"flushing\"\0") && !says(b"{\"flushed\"") {
            return rig;
        }
    }
    panic!("no kill came in the middle of a flush");
}

fn first(file: &fs::File) -> u8 {
    let mut byte = [0];
    file.read_at(&mut byte, 0).unwrap();
    byte[0]
}

/// What is there after another node's change, this long after the kill, and a restart.
fn changed_after(rig: &mut Rig, seconds: u64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let theirs = OpenOptions::new().write(true).open(rig.backend().join("f")).unwrap();
    theirs.write_all_at(b"new", 0).unwrap();
    let time = SystemTime::now() + Duration::from_secs(seconds);
    theirs.set_times(fs::FileTimes::new().set_modified(time)).unwrap();
    rig.start();
    wait_for("everything clean", || rig.stats("dirty_files") == 0);
    let others = fs::read_dir(rig.backend()).unwrap().map(|e| e.unwrap().path());
    let others = others.filter(|p| !p.ends_with("f")).map(|p| fs::read(p).unwrap()).collect();
    (fs::read(rig.backend().join("f")).unwrap(), others)
}

#[test]
fn a_change_long_after_a_crash_in_the_middle_of_a_flush_is_kept_beside_ours() {
    if !can_mount() {
        return;
    }
    let ours = content(8 << 20, 9);
    let (found, others) = changed_after(&mut killed_while_flushing(&ours), 3600);
    assert!(found.starts_with(b"new") && others == [&ours[..]], "{} conflict files", others.len());
    // A change at once may as well be a part of that flush.
    let (found, others) = changed_after(&mut killed_while_flushing(&ours), 0);
    assert!(found == ours && others.is_empty(), "{} conflict files", others.len());
}

#[test]
fn a_dirty_file_with_two_names_is_whole_under_the_other_one() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    let at = |name: &str| rig.mount().join(name);
    fs::write(at("one"), b"old").unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    fs::write(at("one"), b"renamed").unwrap();
    fs::rename(at("two"), at("three")).unwrap();
    assert_eq!(fs::read(rig.backend().join("three")).unwrap(), b"renamed");
    fs::write(at("one"), b"unlinked").unwrap();
    fs::remove_file(at("one")).unwrap();
    rig.crash();
    rig.start();
    assert_eq!(fs::read(rig.mount().join("three")).unwrap(), b"unlinked");
    assert_eq!(fs::read_dir(rig.backend()).unwrap().count(), 1, "a conflict file of nobody's conflict");
}

/// The journal finds files by name after a crash, and before a rename; the name that the sidecar met this one by is gone.
#[test]
fn a_file_that_lost_the_name_it_was_found_by_is_whole_under_the_other_one() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    let at = |name: &str| rig.mount().join(name);
    let file = OpenOptions::new().write(true).create_new(true).open(at("one")).unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    fs::remove_file(at("one")).unwrap();
    file.write_all_at(b"renamed", 0).unwrap();
    fs::rename(at("two"), at("three")).unwrap();
    assert_eq!(fs::read(rig.backend().join("three")).unwrap(), b"renamed");
    file.write_all_at(b"crashed", 0).unwrap();
    rig.crash();
    rig.start();
    assert_eq!(fs::read(rig.mount().join("three")).unwrap(), b"crashed");
    assert_eq!(fs::read_dir(rig.backend()).unwrap().count(), 1, "a conflict file of nobody's conflict");
}

#[test]
fn a_file_that_is_written_after_it_was_unlinked_is_nobodys_conflict() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    let path = rig.mount().join("f");
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let data = content(100_000, 7);
    file.write_all_at(&data, 5000).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&data, 200_000).unwrap();
    file.sync_all().unwrap();
    let mut found = vec![0; data.len()];
    file.read_exact_at(&mut found, 5000).unwrap();
    assert!(found == data);
    drop(file);
    rig.stop();
    assert_eq!(fs::read_dir(rig.backend()).unwrap().count(), 0, "no conflict file");
}

#[test]
fn a_journal_of_a_later_format_is_refused_and_one_whose_file_is_gone_becomes_a_conflict_file() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(BACK);
    fs::write(rig.mount().join("f"), b"bytes").unwrap();
    rig.crash();
    let journal = rig.journal();
    let segment = fs::read_dir(&journal).unwrap().next().unwrap().unwrap().path();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[2], 7).unwrap();
    let text = rig.refusal();
    assert!(text.contains("has format 2") && text.contains("dirty"), "{text}");
    file.write_all_at(&[1], 7).unwrap();

    // Another node removed the file.
    fs::remove_file(rig.backend().join("f")).unwrap();
    rig.set_arguments(&["--writes", "around"]);
    rig.start();
    let names: Vec<_> = fs::read_dir(rig.backend()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names.len(), 1);
    assert!(names[0].display().to_string().contains("f.migshare-conflict-"));
    assert_eq!(fs::read(&names[0]).unwrap(), b"bytes");
    assert!(!journal.exists(), "an empty journal is left");
}

impl Rig {
    /// Where the journal of its only mount is.
    fn journal(&self) -> PathBuf {
        let names = fs::read_dir(self.cache()).unwrap().map(|e| e.unwrap().path());
        names.into_iter().find(|p| p.is_dir()).unwrap()
    }
}
