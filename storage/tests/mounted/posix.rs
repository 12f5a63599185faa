//! The POSIX view: what a program sees on the mount is what it sees on the backend.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, StatxFlags, XattrFlags,
    copy_file_range, fallocate, getxattr, ioctl_getflags, listxattr, removexattr, renameat_with, seek,
    setxattr, statvfs, statx, syncfs,
};
use rustix::io::Errno;

use super::rig::{Rig, can_mount, content, wait_for};

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).unwrap()
}

/// Starts of data and holes.
fn extents(file: &File) -> Vec<u64> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(data) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(data)).unwrap();
        found.extend([data, at]);
    }
    found
}

#[test]
fn holes_and_fallocate_are_those_of_the_backend() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let (mount, twin) = (open(&rig.mount().join("f")), open(&rig.backend().join("twin")));
    let steps: [(FallocateFlags, u64, u64); 6] = [
        (FallocateFlags::empty(), 0, 300_000),
        (FallocateFlags::KEEP_SIZE, 1 << 20, 1 << 20),
        (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8192, 40_000),
        (FallocateFlags::ZERO_RANGE, 100_000, 5000),
        (FallocateFlags::COLLAPSE_RANGE, 4096, 4096),
        (FallocateFlags::INSERT_RANGE, 65536, 8192),
    ];
    for file in [&mount, &twin] {
        file.write_all_at(&content(200_000, 3), 0).unwrap();
        file.write_all_at(b"far", 5 << 20).unwrap();
        file.sync_all().unwrap();
    }
    for (mode, offset, len) in steps {
        let results = [&mount, &twin].map(|f| fallocate(f, mode, offset, len));
        // FUSE has no collapsing and inserting (fuse_file_fallocate()): refused, never done halfway.
        if results[0] != results[1] {
            assert_eq!(results[0], Err(rustix::io::Errno::OPNOTSUPP), "{mode:?}");
            fallocate(open(&rig.backend().join("f")), mode, offset, len).unwrap();
        }
    }
    let (f, t) = (rig.mount().join("f"), rig.backend().join("twin"));
    assert!(fs::read(&f).unwrap() == fs::read(&t).unwrap());
    assert_eq!(extents(&open(&f)), extents(&open(&t)));
    assert_eq!(f.metadata().unwrap().blocks(), t.metadata().unwrap().blocks());
}

#[test]
fn names_links_and_rename_flags() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let at = |name: &str| rig.mount().join(name);
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "b").unwrap();
    fs::hard_link(at("a"), at("link")).unwrap();
    fs::write(at("link"), "changed").unwrap();
    assert_eq!(fs::read(at("a")).unwrap(), b"changed");
    let (a, link) = (at("a").metadata().unwrap(), at("link").metadata().unwrap());
    assert_eq!((a.ino(), a.nlink()), (link.ino(), 2));
    let rename = |flags| renameat_with(CWD, at("a"), CWD, at("b"), flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()),
        (b"b".to_vec(), b"changed".to_vec())
    );

    let mut orphan = open(&at("b"));
    fs::remove_file(at("b")).unwrap();
    fs::remove_file(at("link")).unwrap();
    orphan.write_all(b"still ").unwrap();
    let mut bytes = [0; 7];
    orphan.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, orphan.metadata().unwrap().nlink()), (b"still d", 0));
}

#[test]
fn appends_of_two_processes_and_two_nodes_lose_nothing() {
    if !can_mount() {
        return;
    }
    let one = Rig::new(&[]);
    let two = Rig::beside(&one, &[]);
    let script = "i=0; while [ $i -lt 300 ]; do echo \"$1 $i\"; i=$((i+1)); done >> \"$0\"";
    let writers: Vec<_> = [(&one, "a"), (&one, "b"), (&two, "c")]
        .map(|(rig, who)| {
            Command::new("sh").args(["-c", script]).arg(rig.mount().join("log")).arg(who).spawn().unwrap()
        })
        .into();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = fs::read_to_string(one.backend().join("log")).unwrap();
    let lines: BTreeSet<&str> = text.lines().collect();
    assert_eq!((lines.len(), text.lines().count()), (900, 900));
}

#[test]
fn copies_attributes_and_space_are_those_of_the_backend() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    let (from, to) = (rig.mount().join("from"), rig.mount().join("to"));
    fs::write(&from, content(300_000, 5)).unwrap();
    let copied = copy_file_range(open(&from), Some(&mut 1000), open(&to), Some(&mut 10), 200_000).unwrap();
    assert!(copied > 0 && fs::read(&to).unwrap()[10..] == content(300_000, 5)[1000..1000 + copied]);

    setxattr(&from, "user.colour", b"blue", XattrFlags::CREATE).unwrap();
    assert!(setxattr(&from, "user.colour", b"red", XattrFlags::CREATE).is_err());
    let mut value = [0; 64];
    let behind = rig.backend().join("from");
    assert_eq!(getxattr(&behind, "user.colour", &mut value), Ok(4));
    assert_eq!(getxattr(&from, "user.colour", &mut value[..2]), Err(rustix::io::Errno::RANGE));
    let len = listxattr(&from, &mut value).unwrap();
    assert!(value[..len].starts_with(b"user.colour\0"));
    removexattr(&from, "user.colour").unwrap();
    assert_eq!(getxattr(&behind, "user.colour", &mut value), Err(rustix::io::Errno::NODATA));

    let (mount, backend) = (statvfs(rig.mount()).unwrap(), statvfs(rig.backend()).unwrap());
    assert_eq!(
        (mount.f_blocks, mount.f_files, mount.f_namemax),
        (backend.f_blocks, backend.f_files, backend.f_namemax)
    );
}

/// A file whose mode forbids to open it again, one that appends from some time on, and one that no longer does.
#[test]
fn who_appends_is_known_at_each_write() {
    if !can_mount() {
        return;
    }
    let script = "import fcntl, os, sys
behind, mount = sys.argv[1:]
os.setgroups([])
os.setegid(65534)
os.seteuid(65534)
def append(text):
    with open(behind, 'a') as f:
        f.write(text)
fd = os.open(mount, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o444)
os.write(fd, b'one ')
os.chmod(behind, 0o644)
append('two ')
os.write(fd, b'three ')
fcntl.fcntl(fd, fcntl.F_SETFL, 0)
os.pwrite(fd, b'ONE', 0)
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
append('four ')
os.write(fd, b'five')";
    let rig = Rig::new(&[]);
    fs::set_permissions(rig.backend(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut user = Command::new("python3");
    let status = user.args(["-c", script]).arg(rig.backend().join("f")).arg(rig.mount().join("f")).status();
    assert!(status.unwrap().success());
    assert_eq!(fs::read_to_string(rig.backend().join("f")).unwrap(), "ONE two three four five");
}

#[test]
fn shared_mappings_work_in_every_mode() {
    if !can_mount() {
        return;
    }
    let script = "import mmap, os, sys
flags = {'plain': 0, 'direct': os.O_DIRECT, 'append': os.O_APPEND}
fd = os.open(sys.argv[1], os.O_RDWR | flags[sys.argv[2]])
with mmap.mmap(fd, 8192) as m:
    assert m[:4] == b'old '
    m[4096:4100] = b'new '
    m.flush()";
    for arguments in [&[][..], &["--direct"], &["--writes", "around"], &["--writes", "back"]] {
        let rig = Rig::new(arguments);
        for how in ["plain", "direct", "append"] {
            let path = rig.put("f", &b"old ".repeat(2048));
            let status = Command::new("python3").args(["-c", script]).arg(&path).arg(how).status();
            assert!(status.unwrap().success(), "{arguments:?}, file opened {how}");
            fs::File::open(&path).unwrap().sync_all().unwrap();
            let found = fs::read(rig.backend().join("f")).unwrap();
            assert_eq!((&found[4096..4104], found.len()), (&b"new old "[..], 8192), "{arguments:?}, {how}");
        }
    }
}

/// The lines of SEMANTICS.md: a change here is one there.
#[test]
fn what_is_not_passed_on_is_refused_or_left_out() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--writes", "back"]);
    let path = rig.put("f", b"old");
    let file = open(&path);
    let nameless = rustix::fs::open(rig.mount(), OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR);
    assert_eq!(nameless.map(drop), Err(Errno::OPNOTSUPP));
    let seen = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).unwrap();
    assert_eq!(seen.stx_mask & StatxFlags::BTIME.bits(), 0, "a birth time");
    assert_eq!(ioctl_getflags(&file), Err(Errno::NOTTY));
    // The flush that comes by itself may be quicker now and then.
    let mut byte = 0;
    wait_for("a syncfs that leaves something dirty", || {
        byte += 1;
        file.write_all_at(&[byte], 0).unwrap();
        syncfs(&file).unwrap();
        fs::read(rig.backend().join("f")).unwrap()[0] != byte
    });
    file.sync_all().unwrap();
    assert_eq!(fs::read(rig.backend().join("f")).unwrap()[0], byte);
}
