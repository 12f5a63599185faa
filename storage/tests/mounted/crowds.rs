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

/// Also directories hold descriptors, and what is a working directory must stay one.
#[test]
fn more_directories_than_descriptors_can_be_walked() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&[]);
    rig.run_through(&["prlimit", "--nofile=512:512"]);
    for i in 0..1500 {
        let dir = rig.backend().join(format!("{}/{i:04}", i % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("file"), format!("{i}")).unwrap();
    }
    let script = "cd 3/0013 && for n in 1 2; do [ $(find ../.. -type f -exec cat {} + | wc -c) = 4890 ] || exit 1; done
        [ $(basename $(pwd -P)) = 0013 ] && ls ../0023/file";
    let walked = Command::new("sh").args(["-c", script]).current_dir(rig.mount()).output().unwrap();
    assert!(walked.status.success(), "{}", String::from_utf8_lossy(&walked.stderr));
}

#[test]
fn a_listing_with_attributes_is_the_one_of_the_backend() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    // Names of many lengths: answers of the kernel's size end at other places than those that are collected.
    for i in 0..1500 {
        let name = format!("{i:04}{}", "x".repeat(i * 7 % 240));
        fs::write(rig.backend().join(&name), vec![1; i]).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", rig.backend().join("link")).unwrap();
    fs::create_dir(rig.backend().join("dir")).unwrap();
    let listed = |dir: &std::path::Path| {
        let output = Command::new("ls").args(["-lan", "--time-style=full-iso"]).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The first line is the sum of blocks, the third one is the directory above, which is another.
        String::from_utf8(output.stdout).unwrap().lines().skip(3).map(str::to_owned).collect::<Vec<_>>()
    };
    let want = listed(&rig.backend());
    assert_eq!(want.len(), 1502);
    // Twice: with and without the kernel knowing the names.
    assert_eq!(listed(&rig.mount()), want);
    assert_eq!(listed(&rig.mount()), want);
}

#[test]
fn a_directory_that_may_be_read_and_not_searched_shows_its_names_and_no_more() {
    if !can_mount() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new(&[]);
    let dir = rig.backend().join("dir");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("name"), "secret").unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o744)).unwrap();
    let script = "[ \"$(ls -f dir | grep name)\" = name ] && ! cat dir/name && ! stat dir/name";
    for base in [rig.backend(), rig.mount()] {
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        let mut user = Command::new("setpriv");
        user.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]).current_dir(base);
        assert!(user.stderr(std::process::Stdio::null()).status().unwrap().success());
    }
}
