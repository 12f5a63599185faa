//! Many processes on one node, some of them killed at any moment: the state stays whole and usable.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use nvidia_ml::machine::Machine;

use crate::library::*;
use crate::node::{Node, inside};

const WORKERS: usize = 6;
const ROUNDS: usize = 60;

fn node() -> Node {
    let node = Node::new(
        "[[gpu]]\nmodel = \"h100-sxm-80\"\nmig = true\n[[gpu]]\nmodel = \"a30\"\nmig = true\ngi_order = \"half-swapped\"",
    );
    node.sim(&["init"]);
    node
}

/// A small generator of its own seed; which numbers come does not matter, only that workers differ.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// Creates and destroys at random until `rounds` are over; every refusal is one that others can cause.
fn churn(nvml: &Nvml, seed: u64, rounds: usize) {
    let mut dice = Dice(seed);
    for _ in 0..rounds {
        let gpu = nvml.gpu(dice.roll(2) as u32).unwrap();
        if dice.roll(2) == 0 {
            let profiles = nvml.profiles(gpu);
            let profile = profiles[dice.roll(profiles.len())].id;
            let places = nvml.placements(gpu, profile).unwrap();
            match nvml.create_at(gpu, profile, places[dice.roll(places.len())]) {
                // Another worker may have destroyed it, or have made a compute instance of its own.
                Ok(gi) => expect(nvml.create_full_ci(gi), &[INVALID_ARGUMENT, INSUFFICIENT_RESOURCES]),
                Err(code) => assert_eq!(code, INSUFFICIENT_RESOURCES),
            }
        } else if let Some(gi) = pick(&nvml.instances(gpu).unwrap(), &mut dice) {
            if let Ok(ci) = nvml.ci_by_id(gi, 0) {
                expect(nvml.destroy_ci(ci), &[INVALID_ARGUMENT]);
            }
            expect(nvml.destroy(gi), &[INVALID_ARGUMENT, IN_USE]);
        }
        nvml.mig_uuids_racing(gpu);
    }
}

fn pick<T: Copy>(list: &[T], dice: &mut Dice) -> Option<T> {
    if list.is_empty() { None } else { Some(list[dice.roll(list.len())]) }
}

fn expect<T>(result: Result<T>, allowed: &[u32]) {
    if let Err(code) = result {
        assert!(allowed.contains(&code), "{code}");
    }
}

impl Nvml {
    /// Reads all MIG devices while others change them.
    fn mig_uuids_racing(&self, gpu: Device) {
        for device in (0..8).filter_map(|n| self.mig_device(gpu, n).ok()) {
            expect(self.uuid(device), &[INVALID_ARGUMENT]);
        }
    }
}

/// What must hold whatever happened: no overlap, unique ids and serials, true placements, files that agree.
fn whole(node: &Node) {
    node.sim(&["status"]);
    let machine: Machine =
        serde_json::from_slice(&std::fs::read(node.path("state/state.json")).unwrap()).unwrap();
    let mut serials = BTreeSet::new();
    for gpu in &machine.gpus {
        let spec = gpu.spec().unwrap();
        let mut taken = BTreeSet::new();
        let mut files = BTreeSet::new();
        assert!(serials.insert(gpu.serial));
        for gi in &gpu.instances {
            let profile = spec.profile(gi.profile).unwrap();
            assert!(profile.starts.contains(&gi.start) && gi.size == profile.units, "{gi:?}");
            assert!(
                (gi.start..gi.start + gi.size).all(|unit| taken.insert(unit)),
                "overlap: {:?}",
                gpu.instances
            );
            assert!(serials.insert(gi.serial) && gi.compute.len() <= 1);
            assert!(gi.compute.iter().all(|ci| serials.insert(ci.serial)));
            files.insert(format!("gi{}", gi.id));
        }
        let mig = node.path(&format!("root/proc/driver/nvidia/capabilities/gpu{}/mig", gpu.minor));
        let shown: BTreeSet<String> =
            std::fs::read_dir(mig).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(shown, files);
    }
    assert!(serials.iter().all(|serial| *serial <= machine.next_serial));
}

/// A worker, killed when it is dropped.
struct Worker(Child);

impl Worker {
    fn succeeds(mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn worker(node: &Node, test: &str, seed: usize) -> Worker {
    let mut body = node.body(test);
    body.env("NVML_SIM_TEST_SEED", seed.to_string());
    Worker(body.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap())
}

fn seed() -> u64 {
    std::env::var("NVML_SIM_TEST_SEED").unwrap().parse().unwrap()
}

#[test]
fn many_processes_never_overlap() {
    const TEST: &str = "concurrency::many_processes_never_overlap";
    if let Some(nvml) = inside(TEST) {
        return churn(&nvml, seed(), ROUNDS);
    }
    let node = node();
    let workers: Vec<Worker> = (0..WORKERS).map(|n| worker(&node, TEST, n)).collect();
    assert!(workers.into_iter().all(Worker::succeeds));
    whole(&node);
}

#[test]
fn killed_processes_leave_the_node_whole_and_unlocked() {
    const TEST: &str = "concurrency::killed_processes_leave_the_node_whole_and_unlocked";
    if let Some(nvml) = inside(TEST) {
        return churn(&nvml, seed(), usize::MAX);
    }
    let node = node();
    let mut dice = Dice(7);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|n| worker(&node, TEST, n)).collect();
    let generation = || node.machine().generation;
    for round in 0..20 {
        // Progress of the others is the clock: each kill strikes a node in full work.
        let (seen, wanted) = (generation(), 3 + dice.roll(20) as u64);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while generation() < seen + wanted {
            assert!(std::time::Instant::now() < deadline, "the node stands still");
        }
        let victim = dice.roll(WORKERS);
        let fresh = worker(&node, TEST, 100 + round);
        drop(std::mem::replace(&mut workers[victim], fresh));
        whole_state(&node);
    }
    drop(workers);
    whole(&node);
}

/// The state can be read while others work on it.
fn whole_state(node: &Node) {
    let text = std::fs::read(node.path("state/state.json")).unwrap();
    let machine: Machine = serde_json::from_slice(&text).unwrap();
    assert_eq!(machine.gpus.len(), 2);
}

#[test]
fn threads_of_one_process_share_a_session() {
    const TEST: &str = "concurrency::threads_of_one_process_share_a_session";
    crate::node::on(TEST, node, |nvml| {
        std::thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || churn(nvml, n, 20));
            }
        });
    });
}

#[test]
fn the_first_boot_is_raced_by_many_and_all_find_a_whole_node() {
    const TEST: &str = "concurrency::the_first_boot_is_raced_by_many_and_all_find_a_whole_node";
    if let Some(nvml) = inside(TEST) {
        assert_eq!(nvml.count(), Ok(3));
        return;
    }
    let node = Node::new("[[gpu]]\nmodel = \"h200\"\ncount = 3");
    let workers: Vec<Worker> = (0..WORKERS).map(|n| worker(&node, TEST, n)).collect();
    assert!(workers.into_iter().all(Worker::succeeds));
    assert_eq!((node.machine().generation, node.machine().gpus.len()), (1, 3));
}
