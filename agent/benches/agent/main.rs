//! The node agent measured: `make bench-agent`, or `QUICK=1 make bench-agent` for an answer within five minutes.
//!
//! A release build of the real `migshared` runs as a process of its own on the simulated NVML: 16 GPUs of 7 leaves. Its
//! journal is on a real disk, in a directory under `BENCH_DIR` (default /var/tmp); a tmpfs is refused. All figures
//! that depend on the machine are ratios, the two sides taken in turns in one run. Tables for people go to stdout as they come;
//! the last line is `RESULT {json}`. `FIGURE=place`, `lease`, `crowd` or `idle` measures that part alone. Nothing here measures hardware: simulated instances cost nothing to make.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends, with its place")]

mod crowd;
mod idle;
mod lease;
mod own;
mod place;
mod quantile;
mod scrape;

/// The node that the process tests use too; they need more of it.
#[allow(dead_code, unreachable_pub, reason = "this benchmark needs a part of it")]
#[path = "../../tests/process/rig.rs"]
mod rig;

use rig::Rig;
use serde_json::{Map, Value};
use std::net::TcpListener;
use std::path::PathBuf;

/// GPUs of the simulated node: as many as the placement target names.
const GPUS: u32 = 16;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Blocks of paired leases and appends.
    blocks: usize,
    /// Rounds of a thousand clients.
    rounds: usize,
    /// Seconds of looking at an idle agent.
    idle: u64,
}

impl Effort {
    fn chosen() -> Effort {
        let quick = std::env::var_os("QUICK").is_some_and(|v| !v.is_empty());
        if quick {
            Effort { blocks: 40, rounds: 2, idle: 20 }
        } else {
            Effort { blocks: 250, rounds: 5, idle: 120 }
        }
    }
}

fn main() {
    let effort = Effort::chosen();
    let disk = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let kind = nix::sys::statfs::statfs(&disk).unwrap().filesystem_type();
    assert!(kind != nix::sys::statfs::TMPFS_MAGIC, "{} is in memory: set BENCH_DIR", disk.display());
    tempfile::env::override_temp_dir(&disk).unwrap();

    let figure = std::env::var("FIGURE").ok().filter(|v| !v.is_empty());
    let wanted = |name: &str| figure.as_deref().is_none_or(|figure| figure == name);
    let mut result = Map::new();
    if wanted("place") {
        println!("== placement: 16 gpus of 7 leaves, all states of filling");
        result.extend(place::measure());
    }

    println!("== starting migshared on {GPUS} simulated gpus, state_dir on {}", disk.display());
    let address = free_address();
    let mut rig = Rig::new(GPUS).with(&format!(
        "[slurm]\ndrain = false\nsqueue = \"/bin/true\"\ninterval = 86400\n[metrics]\nlisten = \"{address}\"\n"
    ));
    let mut command = rig.command();
    own::told_by(&mut command);
    rig.launch(command);
    rig.settled();
    let fresh = idle::resident(&rig);
    if wanted("lease") {
        println!("== leases and grants against bare appends: {} blocks", effort.blocks);
        result.extend(lease::measure(&rig, &address, effort.blocks));
    }
    if wanted("crowd") {
        println!("== {} clients at once: {} rounds", crowd::CLIENTS, effort.rounds);
        result.extend(crowd::measure(&rig, effort.rounds));
    }
    if wanted("idle") {
        println!("== idle: {} s", effort.idle);
        result.extend(idle::measure(&rig, fresh, effort.idle));
    }
    println!("RESULT {}", Value::Object(result));
}

/// An address that was free just now; an agent that cannot bind it ends and says so.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
