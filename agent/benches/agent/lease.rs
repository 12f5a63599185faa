//! What a lease costs beyond its fsync: the agent's own time for `open_lease` and for `grant`, and the time that a client waits for them, each
//! over the time of one append of the same number of bytes and one fdatasync by this process, in the directory of the journal.
//!
//! ```text
//!   block := { open_lease  bare  grant  bare  bare  over }*  release* close*      in every second pair the bare append comes first
//! ```
//!
//! The client is connected and has said hello, and all leaves stand, so that one record and one fsync is all that there is to
//! do. A grant is held by a process of its own, as by a slurmstepd. The bare appends against one another are the noise floor. `over`
//! writes the same over blocks that are there already, as the journal does: what its fsync costs without the file system's part.

use crate::own::Own;
use crate::quantile::{Times, head, rounded};
use crate::rig::{Holder, LONG, Rig, key};
use crate::scrape::Scrape;
use migshare_proto::message::{
    CloseLease, GrantStep, LeaseReply, OpenLease, ReleaseGrant, Reply, Request, Shape,
};
use migshare_proto::{Client, StepId};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Jobs of one block. With their leaves they fill a part of the node.
const JOBS: u32 = 12;
/// Leaves and tasks of each job.
const LEAVES: u32 = 4;

/// One kind of request against bare appends; request n and append n were taken together.
#[derive(Default)]
struct Pairs {
    /// What the client waited.
    client: Times,
    /// The agent's own part of that.
    own: Times,
    bare: Times,
}

impl Pairs {
    /// Of all blocks together: for the tail, of which one block has too little.
    fn ratio(&self, of: &Times, share: f64) -> f64 {
        of.at(share) / self.bare.at(share)
    }

    /// The median over the blocks of the ratio of their medians. Disks and neighbours change from second to second; within a
    /// block of a few milliseconds both sides meet the same.
    fn median_ratio(&self, of: &Times) -> f64 {
        let block = JOBS as usize;
        let ratios = of.blocks(block).zip(self.bare.blocks(block));
        let mut ratios: Vec<f64> = ratios.map(|(of, bare)| of.at(0.5) / bare.at(0.5)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

#[derive(Default)]
struct Tally {
    open: Pairs,
    grant: Pairs,
    /// Bare appends in the client's place.
    floor: Pairs,
    over: Times,
    connect: Times,
    bytes: u64,
}

/// The bare side: a file beside the journal.
struct Disk {
    journal: PathBuf,
    bare: File,
    /// A file whose blocks are there already, and where its next bytes go.
    made: (File, u64),
    lines: u64,
    /// Bytes that the journal's lines grew by at the last request.
    grown: u64,
}

/// Bytes of the file that is written over.
const MADE: u64 = 1 << 20;

impl Disk {
    fn beside(rig: &Rig) -> Disk {
        let state = rig.path("state");
        let bare = File::options().append(true).create(true).open(state.join("bare")).unwrap();
        let made = File::options().write(true).create(true).truncate(true).open(state.join("made")).unwrap();
        made.write_all_at(&vec![0; MADE as usize], 0).and_then(|()| made.sync_all()).unwrap();
        let mut disk = Disk { journal: state.join("journal"), bare, made: (made, 0), lines: 0, grown: 512 };
        disk.lines = disk.lines();
        disk
    }

    /// Writes as many bytes over blocks that are there: the least that durability costs on this disk.
    fn over(&mut self) -> Duration {
        let bytes = vec![b'x'; self.grown as usize];
        let (file, at) = &mut self.made;
        *at = if *at + self.grown > MADE { 0 } else { *at };
        let begin = Instant::now();
        file.write_all_at(&bytes, *at).and_then(|()| file.sync_data()).unwrap();
        let took = begin.elapsed();
        *at += self.grown;
        took
    }

    fn append(&mut self) -> Duration {
        let bytes = vec![b'x'; self.grown as usize];
        let begin = Instant::now();
        self.bare.write_all(&bytes).and_then(|()| self.bare.sync_data()).unwrap();
        begin.elapsed()
    }

    /// Sends a request, and notes what it wrote; a journal that was compacted in between says nothing about that.
    fn ask(&mut self, client: &mut Client, request: &Request) -> (Duration, Reply) {
        let begin = Instant::now();
        let reply = client.ask(request).unwrap();
        let took = begin.elapsed();
        let lines = self.lines();
        self.grown = lines.checked_sub(self.lines).filter(|grown| *grown > 0).unwrap_or(self.grown);
        self.lines = lines;
        (took, reply)
    }

    /// Length of the journal's lines; zeros follow them.
    fn lines(&self) -> u64 {
        let bytes = std::fs::read(&self.journal).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    /// One pair; in every second one the bare append comes first.
    fn pair(&mut self, pairs: &mut Pairs, client: &mut Client, request: &Request, bare_first: bool) -> Reply {
        let early = bare_first.then(|| self.append());
        let (took, reply) = self.ask(client, request);
        pairs.client.add(took);
        let bare = early.unwrap_or_else(|| self.append());
        pairs.bare.add(bare);
        reply
    }
}

/// Times of `blocks` blocks.
pub(crate) fn measure(rig: &Rig, address: &str, blocks: usize) -> Map<String, Value> {
    let holders: Vec<Holder> = (0..JOBS).map(|_| Holder::new()).collect();
    let (mut disk, mut own) = (Disk::beside(rig), Own::of(rig));
    let mut tally = Tally::default();
    block(rig, 0, &holders, &mut disk, &mut Tally::default());
    own.take(&["open_lease", "grant"], JOBS as usize);
    let before = Scrape::of(address);
    for number in 1..=blocks {
        block(rig, number as u32, &holders, &mut disk, &mut tally);
        let [opens, grants] = own.take(&["open_lease", "grant"], JOBS as usize);
        opens.into_iter().for_each(|time| tally.open.own.add(time));
        grants.into_iter().for_each(|time| tally.grant.own.add(time));
        if number % blocks.div_ceil(5) == 0 {
            let open = &tally.open;
            let [own, client] = [&open.own, &open.client].map(|of| open.median_ratio(of));
            println!(
                "  block {number} of {blocks}: lease over fsync {own:.2} in the agent, {client:.2} for its client"
            );
        }
    }
    let after = Scrape::of(address);
    report(&tally, &before, &after)
}

fn block(rig: &Rig, number: u32, holders: &[Holder], disk: &mut Disk, tally: &mut Tally) {
    let begin = Instant::now();
    let mut client = Client::connect(&rig.path("agent.sock"), "bench", LONG).unwrap();
    tally.connect.add(begin.elapsed());
    let jobs = || (0..JOBS).map(|n| key(1000 + number * JOBS + n));
    for (turn, (job, holder)) in jobs().zip(holders).enumerate() {
        let bare_first = turn % 2 == 0;
        let open = Request::OpenLease(OpenLease { job, leaves: LEAVES, shape: Shape::default() });
        let reply = disk.pair(&mut tally.open, &mut client, &open, bare_first);
        assert!(
            matches!(reply, Reply::Lease(LeaseReply { ref leaves, .. }) if leaves.len() == LEAVES as usize)
        );
        tally.bytes += disk.grown;
        let grant = GrantStep {
            job,
            step: StepId(0),
            leaves: LEAVES,
            tasks: LEAVES,
            shape: Shape::default(),
            holder: holder.pid(),
        };
        let reply = disk.pair(&mut tally.grant, &mut client, &Request::Grant(grant), bare_first);
        assert!(matches!(reply, Reply::Granted(_)), "{reply:?}");
        tally.floor.client.add(disk.append());
        tally.floor.bare.add(disk.append());
        tally.over.add(disk.over());
    }
    for job in jobs() {
        client.ask(&Request::Release(ReleaseGrant { job, step: StepId(0) })).unwrap();
        let close = CloseLease { job: job.job, uid: job.uid, start: Some(job.start) };
        client.ask(&Request::CloseLease(close)).unwrap();
    }
}

fn report(tally: &Tally, before: &Scrape, after: &Scrape) -> Map<String, Value> {
    let grew = |metric: &str| after.sum(metric) - before.sum(metric);
    let Tally { open, grant, floor, .. } = tally;
    // Each job's four requests change the node: open, grant, release, close.
    let requests = 4.0 * open.client.len() as f64;
    let appends = grew("migshare_journal_append_duration_seconds_count");
    let append_us = grew("migshare_journal_append_duration_seconds_sum") / appends * 1e6;
    let nvml = grew("migshare_nvml_call_duration_seconds_count");
    println!("{}", head());
    for (name, pairs) in [("open_lease", open), ("grant", grant)] {
        println!("{}", pairs.bare.row(&format!("bare append + fdatasync beside {name}")));
        for (who, of) in [("the agent's own time", &pairs.own), ("its client's wait", &pairs.client)] {
            println!("{}", of.row(&format!("{name}: {who}")));
            let (p50, p99) = (pairs.median_ratio(of), pairs.ratio(of, 0.99));
            println!("    over bare: {p50:.2} at the median, {p99:.2} at p99");
        }
    }
    println!("{}", tally.over.row("write over blocks that are there + fdatasync"));
    println!("{}", tally.connect.row("connect and hello"));
    let bytes = tally.bytes as f64 / open.client.len() as f64;
    println!("  {bytes:.0} bytes per lease; fsyncs per request {:.3}; NVML calls {nvml}", appends / requests);
    println!("  the agent's own appends take {append_us:.0} us at the mean, by its metrics");
    let worse = |of: fn(&Pairs) -> f64| rounded(of(open).max(of(grant)));
    let figures = json!({
        "lease_over_fsync_p50": worse(|pairs| pairs.median_ratio(&pairs.own)),
        "lease_over_fsync_p99": worse(|pairs| pairs.ratio(&pairs.own, 0.99)),
        "lease_client_over_fsync_p50": worse(|pairs| pairs.median_ratio(&pairs.client)),
        "lease_client_over_fsync_p99": worse(|pairs| pairs.ratio(&pairs.client, 0.99)),
        "open_own_us_p50": rounded(open.own.at(0.5)),
        "open_client_us_p50": rounded(open.client.at(0.5)),
        "open_over_fsync_p50": rounded(open.median_ratio(&open.own)),
        "open_client_over_fsync_p50": rounded(open.median_ratio(&open.client)),
        "grant_own_us_p50": rounded(grant.own.at(0.5)),
        "grant_client_us_p50": rounded(grant.client.at(0.5)),
        "grant_over_fsync_p50": rounded(grant.median_ratio(&grant.own)),
        "grant_client_over_fsync_p50": rounded(grant.median_ratio(&grant.client)),
        "fsync_noise_floor_p50": rounded(floor.median_ratio(&floor.client)),
        "fsync_noise_floor_p99": rounded(floor.ratio(&floor.client, 0.99)),
        "fsync_us_p50": rounded(open.bare.at(0.5)),
        "fsync_over_made_blocks_us_p50": rounded(tally.over.at(0.5)),
        "journal_append_us_mean": rounded(append_us),
        "fsyncs_per_request": rounded(appends / requests),
        "nvml_calls_on_path": nvml,
    });
    figures.as_object().unwrap().clone()
}
