//! Service mode acts with the caller's rights.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::rig::{Rig, can_mount};

const USER: u32 = 65534;
const GROUP: u32 = 4242;

/// Runs a shell line as an ordinary user with one supplementary group.
fn as_user(line: &str, dir: &Path) -> bool {
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}"), format!("--groups={GROUP}")];
    let mut command = Command::new("setpriv");
    command.args(ids).args(["sh", "-c", line]).current_dir(dir);
    command.stderr(std::process::Stdio::null()).status().unwrap().success()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_a_user_makes_belong_to_them_and_protected_ones_stay_protected() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    let (mount, backend) = (rig.mount(), rig.backend());
    assert!(as_user("umask 027; echo a > made; mkdir dir; ln -s x link", &mount));
    let made = backend.join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (USER, USER, 0o640));
    assert_eq!(backend.join("dir").metadata().unwrap().mode() & 0o777, 0o750);
    fs::write(backend.join("secret"), "s").unwrap();
    mode(&backend.join("secret"), 0o600);
    assert!(!as_user("cat secret", &mount) && !as_user("echo x > secret", &mount));
    assert!(!as_user("chmod 777 secret", &mount) && !as_user("chown 65534 secret", &mount));
}

#[test]
fn supplementary_groups_count() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o755);
    let shared = rig.backend().join("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(0), Some(GROUP)).unwrap();
    mode(&shared, 0o770);
    assert!(as_user("echo x > shared/file && cat shared/file", &rig.mount()));
    assert_eq!(shared.join("file").metadata().unwrap().uid(), USER);
}

#[test]
fn a_setuid_bit_is_cleared_by_a_write() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    assert!(as_user("cp /bin/true f && chmod 4777 f && echo x >> f", &rig.mount()));
    assert_eq!(rig.backend().join("f").metadata().unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn a_closed_directory_protects_what_is_cached_below_it() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o755);
    let dir = rig.backend().join("private");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "s").unwrap();
    assert!(as_user("cat private/file", &rig.mount()));
    mode(&dir, 0o700);
    assert!(!as_user("cat private/file", &rig.mount()));
}

#[test]
fn the_cache_directory_is_closed_to_others_and_is_not_reached_through_links() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    assert_eq!(rig.cache().metadata().unwrap().mode() & 0o777, 0o700);
    assert!(!as_user("ls ../cache", &rig.mount()));
}

#[test]
fn only_the_owner_of_the_mount_changes_its_policy() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    let set = format!("{} policy . cache-only", super::rig::BINARY);
    assert!(!as_user(&set, &rig.mount()));
    rig.set_policy("orthus");
    assert!(as_user(&format!("{} stats .", super::rig::BINARY), &rig.mount()));
}
