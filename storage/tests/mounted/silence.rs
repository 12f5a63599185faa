//! A backend that says nothing more, and every kind of operation that waits for it: who waits can be ended at once, `soft`
//! ends it by itself, and unmounting works.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use migshare_storage::io::{Buffer, Engine, Job};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rig::{Rig, can_mount, content, direct, wait_for};

/// Shell lines, each run in a directory of its own with a file `f` of 1 MiB, because who waits for the backend may hold the
/// kernel's lock of a directory or file. They say "open" when they have opened what they need, and wait for a line then.
const OPERATIONS: [(&str, &str); 14] = [
    ("read through the page cache", "exec 3<f; echo open; read go; exec cat <&3 >/dev/null"),
    ("read past the page cache", "exec 3<f; echo open; read go; exec dd bs=4k iflag=direct <&3 >/dev/null"),
    (
        "page of a mapping",
        "exec python3 -c 'import mmap
f = open(\"f\", \"r+b\"); m = mmap.mmap(f.fileno(), 0)
print(\"open\", flush=True); input(); m[5000]'",
    ),
    ("write", "exec 3>>f; echo open; read go; echo x >&3"),
    ("open", "echo open; read go; exec cat f >/dev/null"),
    ("lookup", "echo open; read go; exec cat nothing"),
    ("create", "echo open; read go; echo x >made"),
    ("mkdir", "echo open; read go; exec mkdir made"),
    ("rename", "echo open; read go; exec mv -T f g"),
    ("unlink", "echo open; read go; exec rm -f f"),
    ("list", "echo open; read go; exec ls >/dev/null"),
    ("truncate", "exec 3<>f; echo open; read go; exec truncate -s 1 f"),
    (
        "fsync",
        "exec python3 -c 'import os
f = os.open(\"f\", os.O_RDWR); os.write(f, b\"x\")
print(\"open\", flush=True); input(); os.fsync(f)'",
    ),
    ("statfs", "echo open; read go; exec stat -f ."),
];

/// A sidecar over another one, which can be silenced.
struct Silence {
    lower: Rig,
    upper: Rig,
}

impl Silence {
    fn new(arguments: &[&str]) -> Self {
        let lower = Rig::new(&[]);
        for (what, _) in OPERATIONS {
            fs::create_dir(lower.backend().join(what)).unwrap();
            lower.put(&format!("{what}/f"), &content(1 << 20, 1));
        }
        let upper = Rig::over(&lower, arguments);
        Self { lower, upper }
    }

    /// Processes, one per operation, that have all opened what they need.
    fn ready(&self) -> Vec<(&'static str, Child)> {
        let start = |(what, line)| {
            let mut command = Command::new("sh");
            command.args(["-c", line]).current_dir(self.upper.mount().join(what));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            (what, command.spawn().unwrap())
        };
        let mut children: Vec<_> = OPERATIONS.into_iter().map(start).collect();
        for (what, child) in &mut children {
            let heard = child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]);
            assert!(heard.is_ok(), "{what} did not get to its open file");
        }
        children
    }
}

/// Lets one go on, and waits until it waits for the backend: for an answer, or for a page.
fn go(what: &str, child: &mut Child) {
    writeln!(child.stdin.as_mut().unwrap()).unwrap();
    let stack = format!("/proc/{}/stack", child.id());
    wait_for(&format!("{what} waits"), || {
        let calls = fs::read_to_string(&stack).unwrap();
        ["request_wait_answer", "folio_wait", "wait_on_page"].iter().any(|call| calls.contains(call))
    });
}

fn die_at_a_signal(arguments: &[&str]) {
    let mut silence = Silence::new(arguments);
    let mut children = silence.ready();
    silence.lower.signal(Signal::SIGSTOP);
    let signals = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGHUP];
    for ((what, child), signal) in children.iter_mut().zip(signals.into_iter().cycle()) {
        go(what, child);
        assert!(child.try_wait().unwrap().is_none(), "{what} did not wait");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        wait_for(what, || child.try_wait().unwrap().is_some());
        assert_eq!(child.wait().unwrap().signal(), Some(signal as i32), "{what}");
    }
    silence.lower.signal(Signal::SIGCONT);
    let file = silence.upper.mount().join("open/f");
    assert!(fs::read(file).unwrap() == content(1 << 20, 1), "nothing goes on after the silence");
    silence.upper.stop();
}

#[test]
fn whatever_waits_for_a_silent_backend_dies_at_a_signal_in_hard_mode() {
    if can_mount() {
        die_at_a_signal(&[]);
    }
}

#[test]
fn whatever_waits_for_a_silent_backend_dies_at_a_signal_in_soft_mode() {
    if can_mount() {
        die_at_a_signal(&["--soft", "3600"]);
    }
}

#[test]
fn soft_ends_every_kind_of_operation_by_itself() {
    if !can_mount() {
        return;
    }
    let silence = Silence::new(&["--soft", "1"]);
    let mut children = silence.ready();
    silence.lower.signal(Signal::SIGSTOP);
    children.iter_mut().for_each(|(_, child)| writeln!(child.stdin.as_mut().unwrap()).unwrap());
    for (what, child) in &mut children {
        wait_for(what, || child.try_wait().unwrap().is_some());
        assert!(!child.wait().unwrap().success(), "{what} had an answer from nobody");
    }
    silence.lower.signal(Signal::SIGCONT);
}

fn end_with_all_of_them_waiting(arguments: &[&str]) {
    let mut silence = Silence::new(arguments);
    let mut children = silence.ready();
    silence.lower.signal(Signal::SIGSTOP);
    for (what, child) in &mut children {
        go(what, child);
    }
    silence.upper.signal(Signal::SIGTERM);
    let at = silence.upper.mount().display().to_string();
    wait_for("the mount is gone", || !fs::read_to_string("/proc/self/mounts").unwrap().contains(&at));
    for (what, child) in &mut children {
        wait_for(what, || child.try_wait().unwrap().is_some());
        assert!(!child.wait().unwrap().success(), "{what} had an answer from nobody");
    }
    silence.upper.crash();
    silence.lower.signal(Signal::SIGCONT);
}

#[test]
fn unmounting_works_while_everything_waits() {
    if can_mount() {
        end_with_all_of_them_waiting(&[]);
        end_with_all_of_them_waiting(&["--soft", "3600"]);
    }
}

/// The kernel bounds the asynchronous reads that it has under way, and lets the others wait in front of the mount.
#[test]
fn hits_go_on_beside_a_thousand_asynchronous_misses_that_wait() {
    const MISSES: u64 = 1000;
    if !can_mount() {
        return;
    }
    let lower = Rig::new(&[]);
    lower.put("hot", &content(1 << 20, 1));
    lower.put("cold", &vec![7; MISSES as usize * 4096]);
    let upper = Rig::over(&lower, &[]);
    upper.warm(&upper.mount().join("hot"));
    let (hot, cold) = (direct(&upper.mount().join("hot")), Arc::new(direct(&upper.mount().join("cold"))));

    lower.signal(Signal::SIGSTOP);
    let engine = Engine::start(4).unwrap();
    let read = |file: &Arc<fs::File>, offset: u64| {
        let (tx, rx) = mpsc::channel();
        let done = move |result: std::io::Result<usize>, buffer: Buffer| {
            let _ = tx.send(result.map(|n| buffer[..n].to_vec()));
        };
        engine.submit(Job::one(Arc::clone(file), offset, Buffer::new(4096), Box::new(done)));
        rx
    };
    let answer = |rx: mpsc::Receiver<std::io::Result<Vec<u8>>>| {
        rx.recv_timeout(Duration::from_secs(60)).expect("a read never ended").unwrap()
    };
    // In this order: the engine has one thread.
    let misses: Vec<_> = (0..MISSES).map(|i| read(&cold, i * 4096)).collect();
    assert!(answer(read(&Arc::new(hot), 8192)) == content(1 << 20, 1)[8192..12288], "wrong bytes");
    lower.signal(Signal::SIGCONT);
    assert!(misses.into_iter().all(|miss| answer(miss) == [7; 4096]), "wrong bytes");
}
