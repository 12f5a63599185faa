//! What happens when a side fails: never wrong bytes, and no longer wait than promised. What waits for a backend that says
//! nothing is in `silence`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::rig::{Rig, can_mount, content, direct, read};

const BOUND: Duration = Duration::from_secs(30);

/// Runs something that must not hang.
pub(crate) fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || tx.send(work()));
    rx.recv_timeout(BOUND).expect("a bounded operation hung")
}

#[test]
fn clean_hits_survive_a_backend_that_hangs_and_misses_go_on_when_it_returns() {
    if !can_mount() {
        return;
    }
    let lower = Rig::new(&[]);
    lower.put("hot", &content(3 << 20, 1));
    lower.put("cold", &content(1 << 20, 2));
    let rig = Rig::over(&lower, &["--policy", "backend-only"]);
    let (hot, cold) = (rig.mount().join("hot"), rig.mount().join("cold"));
    rig.warm(&hot);
    let (mut file, cold_file) = (direct(&hot), direct(&cold));

    lower.signal(Signal::SIGSTOP);
    let bytes = bounded(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes).unwrap()
    });
    assert!(bytes == content(3 << 20, 1), "wrong bytes from the cache");

    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 4096];
        tx.send(cold_file.read_exact_at(&mut bytes, 0).map(|()| bytes))
    });
    assert!(rx.recv_timeout(Duration::from_millis(500)).is_err(), "a miss has no other side");
    lower.signal(Signal::SIGCONT);
    assert_eq!(rx.recv_timeout(BOUND).unwrap().unwrap(), content(1 << 20, 2)[..4096]);
}

#[test]
fn a_late_hit_is_read_at_the_other_side_before_the_rescue_and_within_the_budget() {
    if !can_mount() {
        return;
    }
    let lower = Rig::new(&[]);
    lower.put("hot", &content(3 << 20, 1));
    // Nobody is rescued within the bound: what helps is the hedge.
    let arguments = ["--policy", "backend-only", "--hedge-percent", "5", "--rescue-ms", "600000"];
    let rig = Rig::over(&lower, &arguments);
    let hot = rig.mount().join("hot");
    rig.warm(&hot);
    let file = direct(&hot);
    let mut bytes = vec![0; 65536];
    // Enough of them to know what is late.
    for turn in 0..480 {
        file.read_exact_at(&mut bytes, turn % 48 * 65536).unwrap();
    }
    let before = rig.stats("hedges_total");
    assert!(before <= 24, "{before} of 480 hits hedged, with 5 % allowed");
    // Fewer than it takes to know what is late at the cache: they fill the budget and take nothing out of it.
    rig.set_policy("cache-only");
    for turn in 0..160 {
        file.read_exact_at(&mut bytes, turn % 48 * 65536).unwrap();
    }
    rig.set_policy("backend-only");

    lower.signal(Signal::SIGSTOP);
    let late = bounded(move || {
        let mut bytes = vec![0; 65536];
        file.read_exact_at(&mut bytes, 65536).map(|()| bytes).unwrap()
    });
    lower.signal(Signal::SIGCONT);
    assert!(late == content(3 << 20, 1)[65536..131_072], "wrong bytes from the other side");
    assert_eq!((rig.stats("hedges_total"), rig.stats("rescues_total")), (before + 1, 0));
}

#[test]
fn a_cache_with_garbage_in_it_never_serves_the_garbage() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    let path = rig.put("file", &content(2 << 20, 3));
    rig.warm(&path);
    let data = fs::OpenOptions::new().write(true).open(rig.cache().join("data")).unwrap();
    data.write_all_at(&vec![0xAA; 8 << 20], 0).unwrap();
    data.sync_all().unwrap();
    assert!(read(&path) == content(2 << 20, 3), "garbage was served");
    assert!(rig.stats("rescues_total") > 0);
}

#[test]
fn a_cache_that_lost_its_space_serves_from_the_backend() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&["--policy", "cache-only"]);
    let path = rig.put("file", &content(2 << 20, 4));
    rig.warm(&path);
    fs::OpenOptions::new().write(true).open(rig.cache().join("data")).unwrap().set_len(0).unwrap();
    assert!(read(&path) == content(2 << 20, 4));
}

#[test]
fn after_kill_9_the_cache_is_usable_at_once_and_right() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&["--policy", "cache-only"]);
    let path = rig.put("file", &content(3 << 20, 5));
    let changed = rig.put("changed", &content(3 << 20, 6));
    rig.warm(&path);
    rig.warm(&changed);
    rig.crash();
    rig.put("changed", &content(3 << 20, 7));
    rig.start();
    assert!(read(&path) == content(3 << 20, 5));
    assert!(rig.stats("hit_bytes_total") >= 3 << 20, "the first read after the restart was no hit");
    assert!(read(&changed) == content(3 << 20, 7), "a change made while the sidecar was dead was missed");
}
