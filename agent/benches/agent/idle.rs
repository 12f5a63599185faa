//! An agent with nothing to do: its memory, and what wakes its threads.
//!
//! Two agents are looked at. One has neither watchdog nor a reaper that is due within the window: whatever wakes it is what
//! the target forbids. The other runs as the shipped unit does (watchdog of 30 s, a look at Slurm and the hardware every
//! 60 s) and shows what these two cost. A wake-up is a voluntary context switch of any thread (proc(5)).

use crate::quantile::rounded;
use crate::rig::{LONG, Rig};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// What `WatchdogSec=30` of the shipped unit puts into the environment.
const WATCHDOG_MICROS: &str = "30000000";
/// An agent that slept for so long has settled.
const QUIET: Duration = Duration::from_secs(2);

/// The process that listens at a node's socket.
fn pid(rig: &Rig) -> i32 {
    let stream = UnixStream::connect(rig.path("agent.sock")).unwrap();
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
    peer.unwrap().pid()
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t']).trim_end_matches(" kB").parse().unwrap()
}

/// Resident memory of a node's agent, in MiB.
pub(crate) fn resident(rig: &Rig) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(rig))).unwrap();
    field(&status, "VmRSS") as f64 / 1024.0
}

/// Voluntary context switches so far, by the thread's id and name.
fn switches(pid: i32) -> BTreeMap<(i32, String), u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: &Path| {
        let name = std::fs::read_to_string(task.join("comm")).unwrap().trim().to_owned();
        let status = std::fs::read_to_string(task.join("status")).unwrap();
        let tid = field(&status, "Pid");
        ((tid as i32, name), field(&status, "voluntary_ctxt_switches"))
    };
    tasks.map(|task| of(&task.unwrap().path())).collect()
}

/// Wake-ups since `before`, by thread; those that slept are left out.
fn woken(before: &BTreeMap<(i32, String), u64>, pid: i32) -> BTreeMap<String, u64> {
    let mut woken: BTreeMap<String, u64> = BTreeMap::new();
    for (thread, now) in switches(pid) {
        let count = now - before.get(&thread).copied().unwrap_or(0);
        if count > 0 {
            *woken.entry(thread.1).or_default() += count;
        }
    }
    woken
}

/// Waits until no thread woke up for a while; gives up silently, as the figures then show what goes on.
fn settle(pid: i32) {
    let deadline = Instant::now() + LONG;
    while Instant::now() < deadline {
        let before = switches(pid);
        std::thread::sleep(QUIET);
        if woken(&before, pid).is_empty() {
            return;
        }
    }
}

/// A node whose agent runs as the shipped unit runs it, and the socket that hears its watchdog.
fn shipped() -> (Rig, UnixDatagram) {
    let rig = Rig::new(crate::GPUS);
    let scontrol = rig.path("scontrol");
    std::fs::write(&scontrol, "#!/bin/sh\necho 'NodeName=n1 State=IDLE'\n").unwrap();
    std::fs::set_permissions(&scontrol, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut rig = rig.with(&format!(
        "[slurm]\nscontrol = \"{}\"\nsqueue = \"/bin/true\"\n[metrics]\nlisten = \"{}\"\n",
        scontrol.display(),
        crate::free_address()
    ));
    let notify = UnixDatagram::bind(rig.path("notify")).unwrap();
    notify.set_nonblocking(true).unwrap();
    let mut command = rig.command();
    command.env("NOTIFY_SOCKET", rig.path("notify")).env("WATCHDOG_USEC", WATCHDOG_MICROS);
    rig.launch(command);
    rig.settled();
    (rig, notify)
}

/// How often the agent said that it lives since the last call.
fn signs_of_life(notify: &UnixDatagram) -> u64 {
    let mut message = [0; 256];
    let heard = std::iter::from_fn(|| notify.recv(&mut message).ok().map(|n| message[..n] == *b"WATCHDOG=1"));
    heard.filter(|alive| *alive).count() as u64
}

/// Looks for `seconds`. `used` has served the phases before, and had `fresh` MiB when it began.
pub(crate) fn measure(used: &Rig, fresh: f64, seconds: u64) -> Map<String, Value> {
    let (shipped, notify) = shipped();
    let (quiet_pid, shipped_pid) = (pid(used), pid(&shipped));
    settle(quiet_pid);
    let (quiet_before, shipped_before) = (switches(quiet_pid), switches(shipped_pid));
    signs_of_life(&notify);
    let begin = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    let (quiet, all) = (woken(&quiet_before, quiet_pid), woken(&shipped_before, shipped_pid));
    let minutes = begin.elapsed().as_secs_f64() / 60.0;
    let beats = signs_of_life(&notify);
    let per_minute = |woken: &BTreeMap<String, u64>| woken.values().sum::<u64>() as f64 / minutes;
    let (served, as_shipped) = (resident(used), resident(&shipped));
    println!(
        "  resident: {fresh:.1} MiB at the start, {served:.1} after all leases and clients, {as_shipped:.1} as shipped"
    );
    println!(
        "  wake-ups without watchdog and reaper: {quiet:?} in {seconds} s, {:.1} a minute",
        per_minute(&quiet)
    );
    println!(
        "  wake-ups as shipped: {all:?} in {seconds} s with {beats} signs of life, {:.1} a minute",
        per_minute(&all)
    );
    if seconds < 60 {
        println!("  scaled to a minute from {seconds} s: QUICK");
    }
    let figures = json!({
        "idle_rss_mib": rounded(fresh.max(served).max(as_shipped)),
        "idle_rss_fresh_mib": rounded(fresh),
        "idle_wakeups_per_min": rounded(per_minute(&quiet)),
        "idle_wakeups_per_min_as_shipped": rounded(per_minute(&all)),
    });
    figures.as_object().unwrap().clone()
}
