//! Bad arguments: each message names the option and the way out, and nothing is mounted.

use std::fs;
use std::process::Command;

use super::rig::{BINARY, Rig, can_mount, content, read};

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
    let cases: [(&[&str], &str); 16] = [
        (&["mount", b, m], "--cache"),
        (&["mount", b, m, "--cache", c, "--size", "many"], "200G"),
        (&["mount", b, m, "--cache", c, "--size", "1M"], "16 MiB"),
        (&["mount", &path("none"), m, "--cache", c, "--size", "32M"], "BACKEND"),
        (&["mount", b, &path("none"), "--cache", c, "--size", "32M"], "mkdir"),
        (&["mount", b, &path("b/in"), "--cache", c, "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", &path("b/c"), "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", &path("b/in"), "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", b, "--size", "32M"], "lies inside BACKEND"),
        (&["mount", b, m, "--cache", &path("m/c"), "--size", "32M"], "lies inside MOUNT"),
        (&["mount", &path("b/in"), m, "--cache", b, "--size", "32M"], "lies inside --cache"),
        (&["mount", b, m, "--cache", &path("none/c"), "--size", "32M"], "lies in first"),
        (&["mount", b, m, "--cache", &path("link"), "--size", "32M"], "links are not followed"),
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
        assert!(flat.contains(text), "{arguments:?} says {message}");
    }
}

#[test]
fn commands_on_a_path_that_is_on_no_mount_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in ["stats", "status", "explain", "warm", "forget"] {
        let message = says(&[command, path]);
        assert!(message.contains("on no mount of migshare-storage"), "{command}: {message}");
    }
    assert!(says(&["policy", path, "window"]).contains("on no mount of migshare-storage"));
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

#[test]
fn a_relative_cache_is_where_the_working_directory_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["b", "m"] {
        fs::create_dir(path(name)).unwrap();
    }
    let mut command = Command::new(BINARY);
    command.arg("mount").args([path("b"), path("m")]).args(["--cache", "c", "--size", "32M"]);
    let output = command.current_dir(path("b")).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("lies inside BACKEND"), "{message}");
    assert!(!path("b/c").exists());
}

#[test]
fn a_directory_with_something_else_in_it_is_no_cache_and_stays_as_it_is() {
    if !can_mount() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["b", "m", "c"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::set_permissions(path("c"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path("c/data"), vec![1; 33 << 20]).unwrap();
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let message = says(&["mount", &text("b"), &text("m"), "--cache", &text("c"), "--size", "32M"]);
    assert!(message.contains("holds \"data\"") && message.contains("empty directory"), "{message}");
    assert_eq!(path("c/data").metadata().unwrap().len(), 33 << 20);
    assert_eq!(path("c").metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(path("c")).unwrap().count(), 1);
}

#[test]
fn a_cache_without_a_mark_is_used_again_once_somebody_says_that_it_is_one() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&["--policy", "cache-only"]);
    let path = rig.put("f", &content(1 << 20, 1));
    rig.warm(&path);
    rig.stop();
    let mark = rig.cache().join("migshare-storage-cache");
    fs::remove_file(&mark).unwrap();
    let message = rig.refusal();
    assert!(message.contains(&format!("touch {}", mark.display())), "{message}");
    assert!(!mark.exists());
    fs::write(&mark, "").unwrap();
    rig.start();
    assert!(read(&path) == content(1 << 20, 1));
    assert!(rig.stats("hit_bytes_total") > 0, "what was cached before was not used");
}

#[test]
fn a_cache_that_does_not_fit_says_how_much_would_and_takes_nothing() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["b", "m", "disk"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::File::create(path("image")).unwrap().set_len(64 << 20).unwrap();
    let run = |line: &str| {
        Command::new("sh").args(["-c", line]).current_dir(dir.path()).status().unwrap().success()
    };
    if !run("PATH=$PATH:/sbin mkfs.ext4 -q -O ^has_journal image && mount -o loop image disk") {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs loop devices and ext4");
        return println!("SKIP: needs loop devices and ext4");
    }
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    let free = || rustix::fs::statvfs(path("disk")).unwrap().f_bavail * 4096;
    let before = free();
    let message = says(&["mount", &text("b"), &text("m"), "--cache", &text("disk"), "--size", "200M"]);
    let after = free();
    assert!(run("umount disk"));
    assert!(message.contains("--size 209715200") && message.contains("bytes are free"), "{message}");
    assert!(before - after < 1 << 20, "{before} bytes were free, {after} are now");
}

#[test]
fn netcas_without_a_profile_is_refused_also_later() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let mount = rig.mount().to_str().unwrap().to_owned();
    let message = says(&["policy", &mount, "netcas"]);
    assert!(message.contains("--profile"), "{message}");
    assert_eq!(rig.attribute(&rig.put("f", b"x"), "explain")["split"]["policy"], "window");
    fs::create_dir(rig.mount().join("d")).unwrap();
    let message = says(&["policy", &format!("{mount}/d"), "orthus"]);
    assert!(message.contains("name the mount"), "{message}");
}

#[test]
fn every_command_that_people_use_has_an_example() {
    let help = |words: &[&str]| {
        String::from_utf8(Command::new(BINARY).args(words).output().unwrap().stdout).unwrap()
    };
    let all = help(&["--help"]);
    let commands = all.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    // What is indented more continues a line.
    let first = |line: &'_ str| line.strip_prefix("  ").filter(|l| !l.starts_with(' ')).map(str::to_owned);
    let names = commands.filter_map(first).filter_map(|l| l.split(' ').next().map(str::to_owned));
    let names = names.filter(|name| name != "help");
    let mut count = 0;
    for name in names {
        let text = help(&[&name, "--help"]);
        assert!(text.contains(&format!("Example: migshare-storage {name} ")), "{text}");
        count += 1;
    }
    assert!(count >= 10, "{all}");
}
