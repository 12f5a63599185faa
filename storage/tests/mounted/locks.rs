//! Locks between two nodes: two sidecars over one backend.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, flock};

use super::rig::{Rig, can_mount, wait_for};

const BOUND: Duration = Duration::from_secs(60);

fn nodes(mode: &str) -> (Rig, Rig) {
    let one = Rig::new(&["--locks", mode]);
    let two = Rig::beside(&one, &["--locks", mode]);
    one.put("f", &[0; 100]);
    (one, two)
}

fn open(rig: &Rig) -> File {
    OpenOptions::new().read(true).write(true).open(rig.mount().join("f")).unwrap()
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

fn fcntl_lock(file: &File, kind: i32, start: i64, len: i64) -> bool {
    fcntl(file, FcntlArg::F_SETLK(&range(kind, start, len))).is_ok()
}

fn flock_now(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[test]
fn both_kinds_hold_between_nodes_and_do_not_see_each_other() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("backend");
    let (here, there) = (open(&one), open(&two));
    assert!(flock_now(&here) && !flock_now(&there), "flock does not reach the backend");
    assert!(fcntl_lock(&there, libc::F_WRLCK, 0, 0), "flock and fcntl locks are mixed up");
    assert!(!fcntl_lock(&here, libc::F_RDLCK, 50, 10), "fcntl does not reach the backend");
    flock(&here, FlockOperation::Unlock).unwrap();
    assert!(flock_now(&there));
    assert!(!fcntl_lock(&here, libc::F_RDLCK, 50, 10), "a flock call gave an fcntl lock up");
}

#[test]
fn ranges_conflict_only_where_they_overlap_and_are_reported() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("fcntl");
    let (here, there) = (open(&one), open(&two));
    assert!(fcntl_lock(&here, libc::F_WRLCK, 10, 10) && fcntl_lock(&there, libc::F_WRLCK, 20, 5));
    assert!(!fcntl_lock(&there, libc::F_RDLCK, 19, 1));
    let mut found = range(libc::F_RDLCK, 0, 0);
    fcntl(&there, FcntlArg::F_GETLK(&mut found)).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_start, found.l_len), (libc::F_WRLCK, 10, 10));
    assert!(fcntl_lock(&here, libc::F_UNLCK, 15, 5) && fcntl_lock(&there, libc::F_RDLCK, 15, 5));
    // POSIX: closing any descriptor of the file gives up all locks of the process.
    drop(open(&one));
    assert!(fcntl_lock(&there, libc::F_WRLCK, 0, 0));
}

#[test]
fn ofd_locks_belong_to_a_description_and_go_with_it() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("backend");
    let (here, other, there) = (open(&one), open(&one), open(&two));
    let lock = range(libc::F_WRLCK, 0, 10);
    fcntl(&here, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&lock)).is_err());
    drop(other);
    assert!(fcntl(&there, FcntlArg::F_OFD_SETLK(&lock)).is_err());
    drop(here);
    wait_for("the lock of the closed description", || fcntl(&there, FcntlArg::F_OFD_SETLK(&lock)).is_ok());
}

#[test]
fn who_waits_gets_the_lock_when_the_other_node_gives_it_up() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("backend");
    let (here, there) = (open(&one), open(&two));
    assert!(flock_now(&here) && fcntl_lock(&here, libc::F_WRLCK, 0, 10));
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        flock(&there, FlockOperation::LockExclusive).unwrap();
        tx.send("flock").unwrap();
        fcntl(&there, FcntlArg::F_SETLKW(&range(libc::F_RDLCK, 5, 1))).unwrap();
        tx.send("fcntl").unwrap();
    });
    assert!(rx.recv_timeout(Duration::from_millis(300)).is_err(), "a lock that is taken was given");
    flock(&here, FlockOperation::Unlock).unwrap();
    assert_eq!(rx.recv_timeout(BOUND), Ok("flock"));
    assert!(fcntl_lock(&here, libc::F_UNLCK, 0, 10));
    assert_eq!(rx.recv_timeout(BOUND), Ok("fcntl"));
}

fn flock_command(path: &Path, arguments: &[&str]) -> Child {
    Command::new("flock")
        .args(arguments)
        .arg(path)
        .args(["sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn ended(child: &mut Child) -> Option<i32> {
    let mut code = None;
    wait_for("the process ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    code.unwrap().code()
}

#[test]
fn waits_end_by_signals_and_locks_go_with_a_killed_holder() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("backend");
    let path = two.mount().join("f");
    let mut holder = flock_command(&one.mount().join("f"), &["--no-fork"]);
    let there = open(&two);
    wait_for("the lock is held", || {
        let free = flock_now(&there);
        let _ = flock(&there, FlockOperation::Unlock);
        !free
    });
    // flock(1) ends its own wait with SIGALRM.
    assert_eq!(ended(&mut flock_command(&path, &["-w", "1", "-E", "9"])), Some(9));
    let mut waiter = flock_command(&path, &["--no-fork"]);
    let system_call = format!("/proc/{}/syscall", waiter.id());
    let waits =
        || std::fs::read_to_string(&system_call).is_ok_and(|s| s.starts_with(&libc::SYS_flock.to_string()));
    wait_for("the waiter waits", waits);
    waiter.kill().unwrap();
    assert_eq!(ended(&mut waiter), None);
    holder.kill().unwrap();
    ended(&mut holder);
    wait_for("the lock of the killed holder", || flock_now(&there));
}

#[test]
fn fcntl_locks_of_a_killed_process_are_given_up() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("backend");
    let script = "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); time.sleep(1000)";
    let mut holder = Command::new("python3")
        .args(["-c", script])
        .arg(one.mount().join("f"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
    let there = open(&two);
    assert!(!fcntl_lock(&there, libc::F_WRLCK, 0, 0));
    holder.kill().unwrap();
    ended(&mut holder);
    wait_for("the lock of the killed holder", || fcntl_lock(&there, libc::F_WRLCK, 0, 0));
}

#[test]
fn a_kind_that_is_not_forwarded_stays_on_its_node() {
    if !can_mount() {
        return;
    }
    let (one, two) = nodes("flock");
    let (here, there) = (open(&one), open(&two));
    assert!(flock_now(&here) && !flock_now(&there));
    assert!(fcntl_lock(&here, libc::F_WRLCK, 0, 0) && fcntl_lock(&there, libc::F_WRLCK, 0, 0));
    let (one, two) = nodes("local");
    let (here, again, there) = (open(&one), open(&one), open(&two));
    assert!(flock_now(&here) && flock_now(&there) && !flock_now(&again));
}
