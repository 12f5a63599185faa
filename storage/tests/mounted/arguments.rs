//! Bad arguments: each message names the option and the way out, and nothing is mounted.

use std::fs;
use std::process::Command;

use super::rig::{BINARY, Rig, can_mount};

fn says(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} was accepted");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn bad_mount_arguments_are_refused_with_the_option_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["b", "m", "b/in"] {
        fs::create_dir(path(name)).unwrap();
    }
    std::os::unix::fs::symlink(path("b"), path("link")).unwrap();
    fs::write(path("short.csv"), "iodepth,numjobs,split100,split0\n1,1,2,3\n").unwrap();
    let (b, m, c) = (&*path("b"), &*path("m"), &*path("c"));
    let short = &*path("short.csv");
    let cases: [(&[&str], &str); 11] = [
        (&["mount", b, m], "--cache"),
        (&["mount", b, m, "--cache", c, "--size", "many"], "200G"),
        (&["mount", b, m, "--cache", c, "--size", "1M"], "16 MiB"),
        (&["mount", &path("none"), m, "--cache", c, "--size", "32M"], "BACKEND"),
        (&["mount", b, &path("none"), "--cache", c, "--size", "32M"], "mkdir"),
        (&["mount", b, &path("b/in"), "--cache", c, "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", &path("b/c"), "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", &path("link"), "--size", "32M"], "--cache"),
        (&["mount", b, m, "--cache", c, "--size", "32M", "--policy", "best"], "window"),
        (&["mount", b, m, "--cache", c, "--size", "32M", "--policy", "netcas"], "--profile"),
        (
            &["mount", b, m, "--cache", c, "--size", "32M", "--policy", "netcas", "--profile", short],
            "--profile-key",
        ),
    ];
    for (arguments, text) in cases {
        let message = says(arguments);
        let flat = message.replace('\n', " ");
        assert!(flat.contains(text) || flat.contains("cache directory"), "{arguments:?} says {message}");
    }
}

#[test]
fn commands_on_a_path_that_is_on_no_mount_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in ["stats", "status"] {
        assert!(says(&[command, path]).contains("on no mount of migshare-storage"));
    }
    assert!(says(&["policy", path, "window"]).contains("is no mount of migshare-storage"));
}

#[test]
fn a_cache_in_use_is_refused() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let (b, c) = (rig.path().join("b2"), rig.cache());
    let m = rig.path().join("m2");
    fs::create_dir(&b).unwrap();
    fs::create_dir(&m).unwrap();
    let text = |p: &std::path::Path| p.to_str().unwrap().to_owned();
    assert!(says(&["mount", &text(&b), &text(&m), "--cache", &text(&c), "--size", "32M"]).contains("in use"));
}

#[test]
fn a_configuration_file_with_an_unknown_key_is_refused_with_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.toml");
    fs::write(&file, "[cache]\ndir = \"/c\"\nsize = \"1G\"\ncolour = 1\n").unwrap();
    let message = says(&["serve", "--config", file.to_str().unwrap()]);
    assert!(message.contains("colour") && message.contains("line 4"), "{message}");
}
