//! A thousand clients at once. All connect at the same moment, then all ask for a lease of one leaf at the same moment:
//! as many as there are leaves get one, the others are told `no_leaves`. Each of those asks again when a lease has ended, as
//! Slurm starts a job when its count allows it. In the end every client has opened and closed a lease.
//!
//! A client fails when anything else happens: no connection, an error, a wrong answer, no answer in time.

use crate::quantile::{Times, head, rounded};
use crate::rig::{LONG, Rig, key};
use migshare_proto::message::{CloseLease, OpenLease, Reason, Reply, Request, Shape};
use migshare_proto::{Client, ClientError, JobKey};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::{Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How many.
pub(crate) const CLIENTS: u32 = 1000;
/// Stack of a client's thread, in bytes: there are many.
const STACK: usize = 256 * 1024;

/// Leaves that Slurm counts as free.
#[derive(Default)]
struct Count {
    free: Mutex<u32>,
    more: Condvar,
}

impl Count {
    fn give(&self) {
        *self.free.lock().unwrap() += 1;
        self.more.notify_one();
    }

    fn take(&self) -> Result<(), String> {
        let none = |free: &mut u32| *free == 0;
        let (mut free, late) = self.more.wait_timeout_while(self.free.lock().unwrap(), LONG, none).unwrap();
        if late.timed_out() {
            return Err("no leaf became free".to_owned());
        }
        *free -= 1;
        Ok(())
    }
}

/// How long one client waited for each of its answers, and whether the first one was a lease.
struct Waits {
    connected: Duration,
    first_answer: Duration,
    won: bool,
    opened: Duration,
    closed: Duration,
}

/// Times of `rounds` rounds.
pub(crate) fn measure(rig: &Rig, rounds: usize) -> Map<String, Value> {
    let socket = rig.path("agent.sock");
    let leaves = rig.try_status().unwrap().usable as usize;
    let [mut connected, mut first, mut opened, mut closed] = [(); 4].map(|()| Times::default());
    let mut failures: Vec<String> = Vec::new();
    for number in 0..rounds {
        let begin = Instant::now();
        let all = round(&socket, 1_000_000 + number as u32 * CLIENTS);
        let took = begin.elapsed();
        let winners = all.iter().flatten().filter(|w| w.won).count();
        if winners != leaves {
            failures.push(format!("{winners} clients got one of {leaves} leaves at the first try"));
        }
        for client in all {
            match client {
                Ok(waits) => {
                    connected.add(waits.connected);
                    first.add(waits.first_answer);
                    opened.add(waits.opened);
                    closed.add(waits.closed);
                }
                Err(e) => failures.push(e),
            }
        }
        println!(
            "  round {} of {rounds}: {:.2} s, {} failures so far",
            number + 1,
            took.as_secs_f64(),
            failures.len()
        );
    }
    failures.iter().take(5).for_each(|e| println!("  failed: {e}"));
    println!("{}", head());
    println!("{}", connected.row("connect and hello, all at once"));
    println!("{}", first.row("first answer, all ask at once"));
    println!("{}", opened.row("open_lease that succeeds"));
    println!("{}", closed.row("close_lease"));
    let ms = |share| rounded(first.at(share) / 1000.0);
    let figures = json!({
        "clients": CLIENTS,
        "clients_failed": failures.len(),
        "clients_wait_ms_p50": ms(0.5),
        "clients_wait_ms_p99": ms(0.99),
        "clients_wait_ms_max": ms(1.0),
    });
    figures.as_object().unwrap().clone()
}

/// All clients of one round, each with a job of its own.
fn round(socket: &Path, first_job: u32) -> Vec<Result<Waits, String>> {
    let (gate, count) = (Barrier::new(CLIENTS as usize), Count::default());
    std::thread::scope(|scope| {
        let start = |n: u32| {
            let (gate, count) = (&gate, &count);
            let client = move || client(socket, key(first_job + n), gate, count);
            std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, client).unwrap()
        };
        let clients: Vec<_> = (0..CLIENTS).map(start).collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    })
}

fn client(socket: &Path, job: JobKey, gate: &Barrier, count: &Count) -> Result<Waits, String> {
    gate.wait();
    let begin = Instant::now();
    let connection = Client::connect(socket, "bench", LONG);
    let connected = begin.elapsed();
    // A client that failed comes to the gate all the same, or the others would wait for ever.
    gate.wait();
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(e) => {
            gate.wait();
            return Err(e.to_string());
        }
    };
    let begin = Instant::now();
    let first = open(&mut connection, job);
    let first_answer = begin.elapsed();
    // No lease ends before everybody has an answer, so that leases and leaves can be counted against each other.
    gate.wait();
    let won = first?;
    let mut opened = first_answer;
    if !won {
        count.take()?;
        let begin = Instant::now();
        if !open(&mut connection, job)? {
            return Err(format!("job {}: refused although a leaf is free", job.job));
        }
        opened = begin.elapsed();
    }
    let begin = Instant::now();
    let close = CloseLease { job: job.job, uid: job.uid, start: Some(job.start) };
    let reply = connection.ask(&Request::CloseLease(close)).map_err(|e| e.to_string())?;
    let closed = begin.elapsed();
    count.give();
    match reply {
        Reply::Done(done) if done.found => Ok(Waits { connected, first_answer, won, opened, closed }),
        other => Err(format!("{other:?} to the end of a lease that was open")),
    }
}

/// Whether the job has its lease; false where there is no leaf.
fn open(client: &mut Client, job: JobKey) -> Result<bool, String> {
    match client.ask(&Request::OpenLease(OpenLease { job, leaves: 1, shape: Shape::default() })) {
        Ok(Reply::Lease(lease)) if lease.leaves.len() == 1 => Ok(true),
        Err(ClientError::Refused(refused)) if refused.reason == Reason::NoLeaves => Ok(false),
        other => Err(format!("{other:?} to open_lease")),
    }
}
