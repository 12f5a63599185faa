//! What `warm` says is what the cache holds, and what it cannot read does not stop it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use serde_json::Value;

use super::rig::{Rig, can_mount, content, wait_for};

const NOBODY: u32 = 65534;

/// Runs `warm` over the whole mount.
fn warm(rig: &Rig, uid: u32) -> (Value, Output) {
    let mut command = Command::new(rig.program());
    command.arg("warm").arg(rig.mount()).arg("--json").uid(uid).gid(uid);
    let output = command.output().unwrap();
    let told = serde_json::from_slice(&output.stdout);
    (told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))), output)
}

#[test]
fn more_small_files_than_slots_are_counted_as_they_are_in_the_end() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    // The cache has 128 slots.
    let files: Vec<_> = (0..200).map(|n| rig.put(&format!("f{n}"), b"abc")).collect();
    let cached = |path| rig.attribute(path, "explain")["cached_bytes"].as_u64().unwrap();
    // Files must be two seconds old.
    wait_for("a full cache", || {
        let (told, output) = warm(&rig, 0);
        assert!(!output.status.success(), "{told}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("not all is cached") && errors.contains("200 of 200 files"), "{errors}");
        let there: u64 = files.iter().map(|f| cached(f)).sum();
        assert_eq!((told["cached_bytes"].as_u64(), told["bytes"].as_u64()), (Some(there), Some(600)));
        there > 300
    });
}

#[test]
fn what_cannot_be_read_is_skipped_and_counted() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    for name in ["a", "b", "c"] {
        rig.put(name, &content(1 << 20, 1));
    }
    fs::create_dir(rig.backend().join("d")).unwrap();
    for (name, mode) in [("b", 0o600), ("d", 0o700)] {
        fs::set_permissions(rig.backend().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    wait_for("the others in the cache", || {
        let (told, output) = warm(&rig, NOBODY);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && errors.contains("could not be read"), "{errors}");
        assert_eq!((told["files"].as_u64(), told["skipped"].as_u64()), (Some(3), Some(2)), "{errors}");
        told["cached_bytes"] == 2 << 20
    });
}
