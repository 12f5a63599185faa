//! Executes the table of SEMANTICS.md: every line names a check, and every check is named.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::rig::{Rig, can_mount, content, read, wait_for};

type Check = fn(&mut Rig);

/// The modes, in the order of the table's columns, with their arguments.
const MODES: [&[&str]; 4] = [
    &["--writes", "through"],
    &["--writes", "around"],
    &["--writes", "back", "--dirty", "16M"],
    &["--writes", "back", "--dirty", "16M", "--fsync", "local"],
];

/// Waits until another node would see these bytes.
fn arrives(rig: &Rig, name: &str, bytes: &[u8]) {
    let path = rig.backend().join(name);
    wait_for("the bytes at the backend", || fs::read(&path).is_ok_and(|found| found == bytes));
}

fn conflict_file(rig: &Rig) -> Option<std::path::PathBuf> {
    let names = fs::read_dir(rig.backend()).unwrap().map(|e| e.unwrap().path());
    names.into_iter().find(|p| p.display().to_string().contains("/f.migshare-conflict-"))
}

const CHECKS: [(&str, Check); 17] = [
    ("write-returned", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"bytes");
    }),
    ("write-flushed", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        arrives(rig, "f", b"bytes");
        wait_for("everything clean", || rig.stats("dirty_files") == 0);
        assert_eq!(rig.backend().join("f").metadata().unwrap().modified().unwrap(), time);
    }),
    ("write-kill", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        rig.crash();
        rig.set_arguments(&["--writes", "around"]);
        rig.start();
        assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"bytes");
    }),
    ("fsync", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"bytes");
        file.sync_data().unwrap();
    }),
    ("fsync-local", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        file.sync_all().unwrap();
        rig.crash();
        rig.start();
        assert_eq!(fs::read(rig.mount().join("f")).unwrap(), b"bytes");
        arrives(rig, "f", b"bytes");
    }),
    ("read-own-write", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"new", 5000).unwrap();
        assert_eq!(&read(&path)[5000..5003], b"new");
        file.write_all_at(b"end", 2 << 20).unwrap();
        file.set_len(1 << 21 | 2).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 1 << 21 | 2);
        let all = read(&path);
        assert_eq!(
            (&all[5000..5003], &all[1 << 20..2 << 20], &all[2 << 20..]),
            (&b"new"[..], &[0; 1 << 20][..], &b"en"[..])
        );
    }),
    ("named-when-whole", |rig| {
        let at = |name: &str| rig.mount().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/f"), content(100_000, 1)).unwrap();
        fs::rename(at("dir"), at("done")).unwrap();
        assert!(fs::read(rig.backend().join("done/f")).unwrap() == content(100_000, 1));
        fs::write(at("done/f"), content(100_000, 2)).unwrap();
        fs::rename(at("done/f"), at("g")).unwrap();
        assert!(fs::read(rig.backend().join("g")).unwrap() == content(100_000, 2));
        fs::write(at("g"), content(100_000, 3)).unwrap();
        fs::hard_link(at("g"), at("h")).unwrap();
        assert!(fs::read(rig.backend().join("h")).unwrap() == content(100_000, 3));
    }),
    ("end-flushes", |rig| {
        fs::write(rig.mount().join("f"), content(3 << 20, 1)).unwrap();
        rig.stop();
        assert!(fs::read(rig.backend().join("f")).unwrap() == content(3 << 20, 1));
        rig.start();
    }),
    ("bounded", |rig| {
        let bytes = content(48 << 20, 1);
        fs::write(rig.mount().join("f"), &bytes).unwrap();
        assert!(rig.stats("dirty_bytes") <= 16 << 20);
        // By the writer itself, or by flushers that are as fast as it is.
        assert!(
            rig.stats("throttled_writes_total") > 0 || rig.stats("flushed_bytes_total") >= 32 << 20,
            "three times the bound was taken without going to the backend"
        );
        assert!(read(&rig.mount().join("f")) == bytes);
        arrives(rig, "f", &bytes);
    }),
    ("conflict-keeps-both", |rig| {
        let path = rig.put("f", b"old bytes");
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"our", 0).unwrap();
        rig.put("f", b"their bytes");
        wait_for("the conflict file", || conflict_file(rig).is_some());
        wait_for("everything clean", || rig.stats("dirty_files") == 0);
        let ours = conflict_file(rig).unwrap();
        assert_eq!(
            fs::read(&ours).unwrap(),
            b"our bytes"[..3].iter().chain(b"ir byt").copied().collect::<Vec<u8>>()
        );
        assert_eq!(fs::read(&path).unwrap(), b"their bytes");
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
        file.sync_all().unwrap();
        assert_eq!(rig.stats("write_conflicts_total"), 1);
    }),
    ("cached-again", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"new", 5000).unwrap();
        assert_eq!(rig.attribute(&path, "explain")["cached_bytes"], 0);
        wait_for("the file in the cache, without a read", || {
            rig.attribute(&path, "explain")["cached_bytes"] == 1 << 20
        });
        assert_eq!(&read(&path)[5000..5003], b"new");
    }),
    ("open-sees-closed", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        fs::read(&path).unwrap();
        rig.put("f", &content(1 << 20, 2));
        assert!(fs::read(&path).unwrap() == content(1 << 20, 2));
        assert!(read(&path) == content(1 << 20, 2));
    }),
    ("open-file-follows", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        let mut file = super::rig::direct(&path);
        rig.put("f", &content(1 << 20, 2));
        wait_for("the new bytes in an open file", || {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut bytes).unwrap();
            bytes == content(1 << 20, 2)
        });
    }),
    ("never-back", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        rig.put("f", &content(1 << 20, 2));
        assert!(read(&path) == content(1 << 20, 2));
        for policy in ["cache-only", "backend-only", "window"] {
            rig.set_policy(policy);
            assert!(read(&path) == content(1 << 20, 2), "older bytes came back with {policy}");
        }
        rig.crash();
        rig.start();
        assert!(read(&path) == content(1 << 20, 2), "older bytes came back after a restart");
    }),
    ("young-not-cached", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        read(&path);
        assert_eq!(rig.attribute(&path, "explain")["cached_bytes"], 0);
    }),
    ("unlinked-open", |rig| {
        let path = rig.put("f", b"bytes");
        let mut file = fs::File::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
    }),
    ("locks-apart", |rig| {
        use rustix::fs::{FlockOperation, fcntl_lock, flock};
        let path = rig.put("f", b"bytes");
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (one, two) = (open(), open());
        flock(&one, FlockOperation::LockExclusive).unwrap();
        assert!(flock(&two, FlockOperation::NonBlockingLockExclusive).is_err(), "flock does not exclude");
        fcntl_lock(&two, FlockOperation::NonBlockingLockExclusive)
            .expect("flock and fcntl locks are mixed up");
    }),
];

/// Runs what the table promises for a mode.
fn check_mode(mode: usize) {
    if !can_mount() {
        return;
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SEMANTICS.md")).unwrap();
    let lines: Vec<Vec<&str>> = document
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| l.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let named: Vec<&str> = lines.iter().map(|l| l[0].trim_matches('`')).collect();
    assert_eq!(named, CHECKS.map(|c| c.0), "the table and the checks differ");
    for (line, (name, check)) in lines.iter().zip(CHECKS) {
        match line[2 + mode] {
            "yes" => {
                println!("{name}");
                check(&mut Rig::new(MODES[mode]));
            }
            other => assert_eq!(other, "–", "{name} says neither yes nor –"),
        }
    }
}

#[test]
fn every_promise_of_write_through_holds() {
    check_mode(0);
}

#[test]
fn every_promise_of_write_around_holds() {
    check_mode(1);
}

#[test]
fn every_promise_of_write_back_holds() {
    check_mode(2);
}

#[test]
fn every_promise_of_write_back_with_local_fsync_holds() {
    check_mode(3);
}
