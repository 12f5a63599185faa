//! A file that only looks like one that was cached before.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rig::{Rig, can_mount, content, read};

/// ext4 on a loop device, with inodes of 128 bytes: they have no time of birth, and their times are whole seconds.
struct Disk {
    device: PathBuf,
    at: PathBuf,
}

/// Runs a shell line with words as $0 and so on; `None` where it fails.
fn sh(line: &str, words: &[&Path]) -> Option<String> {
    let mut command = Command::new("sh");
    let output = command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["-c", line]).args(words);
    let output = output.stderr(std::process::Stdio::inherit()).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

impl Disk {
    /// `None`, with the reason, where this machine lacks something.
    fn new(dir: &Path) -> Option<Self> {
        let (image, at) = (dir.join("image"), dir.join("disk"));
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        let made = sh(
            "mkfs.ext4 -q -I 128 -O ^has_journal \"$0\" >/dev/null 2>&1 && losetup -f --show \"$0\"",
            &[&image],
        );
        let Some(device) = made.filter(|_| sh("command -v debugfs", &[]).is_some()) else {
            assert_ne!(
                std::env::var("MIGSHARE_REQUIRE").as_deref(),
                Ok("all"),
                "needs loop devices and e2fsprogs"
            );
            println!("SKIP: needs loop devices and e2fsprogs");
            return None;
        };
        let disk = Self { device: device.trim().into(), at };
        disk.mount();
        Some(disk)
    }

    fn mount(&self) {
        sh("mount \"$0\" \"$1\"", &[&self.device, &self.at]).expect("mount");
    }

    /// Gives a file the times of another, the time of its change among them, behind the back of its file system.
    fn give_times(&self, name: &str, of: &fs::Metadata) {
        sh("umount \"$0\"", &[&self.at]).expect("umount");
        for (field, time) in [("mtime", of.mtime()), ("ctime", of.ctime())] {
            let set = format!("debugfs -w -R 'set_inode_field {name} {field} @{time}' \"$0\"");
            sh(&set, &[&self.device]).expect("debugfs");
        }
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = sh("umount -l \"$0\"", &[&self.at]);
        let _ = sh("losetup -d \"$0\"", &[&self.device]);
    }
}

#[test]
fn a_new_file_with_number_size_and_times_of_a_cached_one_is_another() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(dir.path()) else { return };
    let mut rig = Rig::at(&disk.at, &["--policy", "cache-only"]);
    let path = rig.put("f", &content(1 << 20, 1));
    let old = disk.at.join("f").metadata().unwrap();
    rig.warm(&path);
    rig.stop();
    fs::remove_file(disk.at.join("f")).unwrap();
    fs::write(disk.at.join("f"), content(1 << 20, 2)).unwrap();
    disk.give_times("f", &old);
    let new = disk.at.join("f").metadata().unwrap();
    let looks = |m: &fs::Metadata| (m.ino(), m.len(), m.mtime(), m.ctime(), m.ctime_nsec(), m.created().ok());
    assert_eq!(looks(&old), looks(&new), "the new file can be told from the old one anyway");
    rig.start();
    assert!(read(&path) == content(1 << 20, 2), "bytes of a file that is gone");
    rig.stop();
}
