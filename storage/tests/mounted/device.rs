//! The cache device hangs, fails, or becomes read-only: readers go on, and the end comes.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::faults::bounded;
use super::rig::{Rig, can_mount, content, direct, read, wait_for};

#[test]
fn a_cache_device_that_hangs_costs_one_wait_and_keeps_nobody_from_changing_files() {
    if !can_mount() {
        return;
    }
    for policy in ["window", "cache-only"] {
        let device = Rig::new(&[]);
        let rig = Rig::caching_over(&device, &["--policy", policy, "--rescue-ms", "2000"]);
        let path = rig.put("f", &content(2 << 20, 1));
        rig.warm(&path);
        let file = direct(&path);
        device.signal(Signal::SIGSTOP);
        // One by one: were each of them to wait for the rescue, it would take minutes.
        let whole = content(2 << 20, 1);
        bounded(move || {
            for expected in whole.chunks(8192).zip(0..) {
                let mut bytes = vec![0; 8192];
                file.read_exact_at(&mut bytes, expected.1 * 8192).unwrap();
                assert!(bytes == expected.0);
            }
        });
        assert_eq!(rig.attribute(&path, "explain")["split"]["cache_live"], false);
        let (changed, appended) = (rig.put("f", &content(1 << 20, 2)), path.clone());
        bounded(move || {
            assert!(fs::read(&changed).unwrap() == content(1 << 20, 2));
            OpenOptions::new().append(true).open(&appended).unwrap().write_all_at(b"more", 1 << 20).unwrap();
        });
        let forgotten = path.clone();
        bounded(move || {
            use rustix::fs::{XattrFlags, setxattr};
            setxattr(&forgotten, "user.migshare.forget", b"1", XattrFlags::empty()).unwrap();
        });
        device.signal(Signal::SIGCONT);
        wait_for("the cache is used again", || {
            read(&path);
            let known = rig.attribute(&path, "explain");
            known["split"]["cache_live"] == true && known["cached_bytes"] == known["size_bytes"]
        });
    }
}

#[test]
fn a_sidecar_whose_cache_device_hangs_ends_when_it_is_told_to() {
    if !can_mount() {
        return;
    }
    let device = Rig::new(&[]);
    let mut rig = Rig::caching_over(&device, &[]);
    let path = rig.put("f", &content(2 << 20, 1));
    rig.warm(&path);
    device.signal(Signal::SIGSTOP);
    fs::write(rig.mount().join("new"), b"bytes").unwrap();
    rig.signal(Signal::SIGTERM);
    let at = rig.mount().display().to_string();
    wait_for("the mount is gone", || !fs::read_to_string("/proc/self/mounts").unwrap().contains(&at));
    // The kernel itself keeps a process until a FUSE file system has heard that its files are closed.
    wait_for("the end", || rig.main_has_ended());
    assert_eq!(fs::read(rig.backend().join("new")).unwrap(), b"bytes");
    device.signal(Signal::SIGCONT);
    assert!(rig.end().success());
}

/// An ext4 of its own.
struct Disk(PathBuf);

impl Disk {
    /// `None` where there are no loop devices.
    fn make(dir: &Path) -> Option<Self> {
        fs::File::create(dir.join("image")).unwrap().set_len(96 << 20).unwrap();
        fs::create_dir(dir.join("disk")).unwrap();
        let line = "PATH=$PATH:/sbin mkfs.ext4 -q image && mount -o loop,errors=remount-ro image disk";
        let made = Command::new("sh").args(["-c", line]).current_dir(dir).status().unwrap().success();
        if !made {
            assert_ne!(
                std::env::var("MIGSHARE_REQUIRE").as_deref(),
                Ok("all"),
                "needs loop devices and ext4"
            );
            println!("SKIP: needs loop devices and ext4");
        }
        made.then(|| Self(dir.join("disk")))
    }

    /// An error that ext4 finds: it becomes read-only at once, also for files that are open.
    fn become_read_only(&self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|l| l.split(' ').nth(1) == self.0.to_str()).unwrap();
        let device = line.split(' ').next().unwrap().trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    }

    /// Every request fails from now on, as of a device that was pulled (EXT4_IOC_SHUTDOWN, without flushing the log).
    fn pull(&self) {
        let script = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        assert!(Command::new("python3").args(["-c", script]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Reads what was cached and what was not, changes files, and ends, with a device that `breaks`.
fn goes_on(arguments: &[&str], breaks: fn(&Disk)) {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::make(dir.path()) else { return };
    let mut rig = Rig::caching_at(disk.0.clone(), arguments);
    let (old, new) = (rig.put("old", &content(4 << 20, 1)), rig.put("new", &content(4 << 20, 2)));
    rig.warm(&old);
    breaks(&disk);
    for _ in 0..3 {
        for (path, seed) in [(&old, 1), (&new, 2)] {
            let path = path.clone();
            assert!(bounded(move || read(&path)) == content(4 << 20, seed), "wrong bytes");
        }
    }
    fs::write(&old, b"changed").unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"changed");
    fs::File::open(&old).unwrap().sync_all().unwrap();
    assert_eq!(fs::read(rig.backend().join("old")).unwrap(), b"changed");
    assert!(rig.end().success());
}

#[test]
fn a_cache_device_that_becomes_read_only_serves_what_it_has() {
    goes_on(&["--policy", "cache-only"], Disk::become_read_only);
    goes_on(&["--writes", "back", "--dirty", "16M"], Disk::become_read_only);
}

#[test]
fn a_cache_device_that_is_pulled_is_replaced_by_the_backend() {
    goes_on(&["--policy", "cache-only"], Disk::pull);
    goes_on(&["--writes", "back", "--dirty", "16M"], Disk::pull);
}

/// Twice as many operations as there are threads for.
#[test]
fn hung_operations_however_many_keep_no_reader_from_closing_its_file() {
    if !can_mount() {
        return;
    }
    let lower = Rig::new(&[]);
    lower.put("hot", &content(1 << 20, 1));
    let rig = Rig::over(&lower, &[]);
    let hot = rig.mount().join("hot");
    rig.warm(&hot);
    let file = direct(&hot);
    lower.signal(Signal::SIGSTOP);
    let script = "i=0; while [ $i -lt 256 ]; do cat $0/none$i 2>/dev/null & i=$((i+1)); done; wait";
    let mut waiting = Command::new("sh").args(["-c", script]).arg(rig.mount()).spawn().unwrap();
    wait_for("all threads are taken", || rig.threads_named("operation") >= 128);
    bounded(move || {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        drop(file);
        assert!(bytes == content(1 << 20, 1)[..4096]);
    });
    lower.signal(Signal::SIGCONT);
    wait_for("all of them end", || waiting.try_wait().unwrap().is_some());
}
