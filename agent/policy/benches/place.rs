//! How long an exact placement takes on a node of 16 GPUs with 7 leaves each, at all states of filling.
//!
//! `cargo bench -p migshare-policy` prints one line `RESULT {json}`: microseconds at the median and at the 99th
//! percentile for the search alone (`place_us_*`) and for the whole answer to an open request (`answer_us_*`),
//! and for finding that nothing is left to do (`work_us_*`).

use migshare_policy::Books;
use migshare_policy::geometry::Geometry;
use migshare_policy::layout::{Layout, leaves};
use migshare_policy::node::{Ask, Effect, Node, Proposal, Reshaping, Rules, Seen};
use migshare_policy::placement::{Candidate, Direction, Free, choose};
use migshare_policy::topology::{Compute, Gpu, GpuReport, Health, Instance, Profile};
use migshare_proto::{GpuUuid, JobKey, Placement};
use std::hint::black_box;
use std::time::Instant;

const GPUS: u32 = 16;
/// NVML id, slices, placement units, starts: the plain profiles of a seven-slice part.
const PROFILES: [(u32, u8, u8, &[u8]); 6] = [
    (19, 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
    (15, 1, 2, &[0, 2, 4, 6]),
    (14, 2, 2, &[0, 2, 4]),
    (9, 3, 4, &[0, 4]),
    (5, 4, 4, &[0]),
    (0, 7, 8, &[0]),
];

fn gpu(index: u32) -> Gpu {
    let profile = |&(id, slices, size, starts): &(u32, u8, u8, &[u8])| Profile {
        id,
        name: format!("{slices}g"),
        slices,
        memory_mib: 10_000 * u64::from(size),
        multiprocessors: 16 * u32::from(slices),
        max: starts.len() as u8,
        plain: true,
        placements: starts.iter().map(|&start| Placement { start, size }).collect(),
    };
    Gpu {
        uuid: GpuUuid::new(&format!("GPU-{index:08x}-0000-0000-0000-000000000000")),
        index,
        minor: index,
        model: "bench".to_owned(),
        pci_bus_id: format!("00000000:{index:02X}:00.0"),
        pci_device: 0x2330_10DE,
        numa: Some(index / 8),
        units: 8,
        slices: 7,
        profiles: PROFILES.iter().map(profile).collect(),
    }
}

/// A repeatable source of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn micros(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

fn direction(numbers: &mut Numbers) -> Direction {
    if numbers.below(2) == 0 { Direction::Pack } else { Direction::Spread }
}

/// The search alone, on random free leaves.
fn search(rounds: usize) -> (f64, f64) {
    let gpu = gpu(0);
    let geometry = Geometry::of(&gpu);
    let mut numbers = Numbers(1);
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let fill = numbers.below(8);
        let candidate = |index: u32, numbers: &mut Numbers| {
            let free = leaves(&gpu).into_iter().filter(|_| numbers.below(8) >= fill);
            let free: Vec<Free> = free.map(|cut| Free { placement: cut.placement, stands: true }).collect();
            let used = 0x7f & !free.iter().fold(0, |units, f| units | f.placement.mask());
            Candidate { geometry: &geometry, numa: Some(index / 8), used, free }
        };
        let gpus: Vec<Candidate<'_>> = (0..GPUS).map(|index| candidate(index, &mut numbers)).collect();
        let free: u64 = gpus.iter().map(|gpu| gpu.free.len() as u64).sum();
        let count = 1 + numbers.below(free.max(1)) as u32;
        let direction = direction(&mut numbers);
        let begin = Instant::now();
        black_box(choose(black_box(&gpus), count, direction));
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    micros(times)
}

fn instance(placement: Placement) -> Instance {
    let compute =
        Compute { ci: 0, uuid: format!("MIG-{placement}"), full: true, cap: None, processes: Vec::new() };
    Instance { gi: u32::from(placement.start) + 7, profile: 19, placement, compute: vec![compute], cap: None }
}

fn commit(node: &mut Node, proposal: &Proposal) {
    node.commit(proposal);
    for effect in &proposal.effects {
        if matches!(effect, Effect::Scan) {
            let report = |index| {
                let gpu = gpu(index);
                let instances = leaves(&gpu).into_iter().map(|cut| instance(cut.placement)).collect();
                GpuReport { gpu, health: Health::Mig, instances }
            };
            node.observe(0, Seen::Scan((0..GPUS).map(report).collect()));
        }
    }
}

/// The whole answer to an open request, while jobs of up to nine leaves come and go.
fn answer(rounds: usize) -> ((f64, f64), (f64, f64)) {
    let rules =
        Rules { layout: Layout::Uniform, direction: Direction::Pack, reshaping: Reshaping::default() };
    let mut node = Node::new(rules, Books::default(), "bench".to_owned());
    while let Some(proposal) = node.work(0) {
        commit(&mut node, &proposal);
    }
    let mut numbers = Numbers(2);
    let (mut times, mut work) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds as u32 {
        let job = JobKey { job: round, start: 0, uid: 1 };
        let leaves = 1 + numbers.below(9) as u32;
        let ask = Ask::Open { job, leaves, direction: Some(direction(&mut numbers)), need: None };
        let begin = Instant::now();
        let proposal = black_box(node.answer(0, &ask));
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        commit(&mut node, &proposal);
        let begin = Instant::now();
        black_box(node.work(0));
        work.push(begin.elapsed().as_secs_f64() * 1e6);
        let held = node.books().leases.len() as u64;
        if numbers.below(20) < held {
            let victim = node.books().leases.keys().nth(numbers.below(held) as usize).copied();
            let close = |job: JobKey| Ask::Close {
                job: job.job,
                uid: 1,
                start: None,
                how: migshare_policy::record::Ending::Epilog,
            };
            let proposal = victim.map(|job| node.answer(0, &close(job)));
            proposal.iter().for_each(|proposal| commit(&mut node, proposal));
        }
    }
    (micros(times), micros(work))
}

fn main() {
    let (place_p50, place_p99) = search(4000);
    let ((answer_p50, answer_p99), (work_p50, work_p99)) = answer(4000);
    println!(
        "RESULT {{\"place_us_p50\": {place_p50:.1}, \"place_us_p99\": {place_p99:.1}, \"answer_us_p50\": {answer_p50:.1}, \
         \"answer_us_p99\": {answer_p99:.1}, \"work_us_p50\": {work_p50:.1}, \"work_us_p99\": {work_p99:.1}}}"
    );
}
