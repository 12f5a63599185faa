//! Executes the table of SEMANTICS.md: every line names a check, and every check is named.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::rig::{Rig, can_mount, content, read, wait_for};

type Check = fn(&mut Rig);

const CHECKS: [(&str, Check); 10] = [
    ("write-returned", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"bytes");
    }),
    ("write-kill", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        rig.crash();
        assert_eq!(fs::read(rig.backend().join("f")).unwrap(), b"bytes");
    }),
    ("read-own-write", |rig| {
        let path = rig.put("f", &content(1 << 20, 1));
        rig.warm(&path);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"new", 5000).unwrap();
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
    ("fsync", |rig| {
        let mut file = fs::File::create(rig.mount().join("f")).unwrap();
        file.write_all(b"bytes").unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
    }),
];

#[test]
fn every_line_of_the_semantics_table_holds() {
    if !can_mount() {
        return;
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SEMANTICS.md")).unwrap();
    let named: Vec<&str> =
        document.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let known: Vec<&str> = CHECKS.iter().map(|c| c.0).collect();
    assert_eq!(named, known, "the table and the checks differ");
    for (name, check) in CHECKS {
        println!("{name}");
        check(&mut Rig::new(&[]));
    }
}
