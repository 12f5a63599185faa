//! Many files, few descriptors.

use std::fs;
use std::io::Read;
use std::process::Command;

use super::rig::{Rig, can_mount};

#[test]
fn more_files_than_descriptors_can_be_listed_opened_and_kept_open() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&[]);
    rig.run_through(&["prlimit", "--nofile=512:512"]);
    for i in 0..4000 {
        fs::write(rig.backend().join(format!("file-{i:04}")), format!("{i}")).unwrap();
    }
    let mut kept = fs::File::open(rig.mount().join("file-0007")).unwrap();
    let listed = Command::new("ls").arg("-l").arg(rig.mount()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(listed.stdout.iter().filter(|b| **b == b'\n').count(), 4001);
    for i in (0..4000).rev() {
        let text = fs::read_to_string(rig.mount().join(format!("file-{i:04}"))).unwrap();
        assert_eq!(text, i.to_string());
    }
    let mut text = String::new();
    kept.read_to_string(&mut text).unwrap();
    assert_eq!(text, "7");
}
