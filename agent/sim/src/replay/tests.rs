use super::*;
use crate::dynamic::Dynamic;
use crate::fixed::Fixed;
use crate::fleet::Started;
use crate::leaves::Leaves;
use crate::speed::Overhead;
use crate::trace::{Mix, generate};
use migshare_policy::placement::Direction;
use proptest::prelude::*;
use std::collections::BTreeMap;

const FREE: Overhead = Overhead { several: 0.0, across: 0.0 };

fn job(arrival: f64, seconds: f64, slices: u32) -> Job {
    Job { arrival, seconds, slices }
}

fn leaves(nodes: u32, gpus: u32) -> Leaves {
    Leaves::new(nodes, gpus, Direction::Pack, FREE)
}

#[test]
fn jobs_that_fit_together_run_together_and_others_wait() {
    let jobs = [job(0.0, 100.0, 4), job(0.0, 100.0, 3), job(0.0, 100.0, 7)];
    let outcome = replay(&jobs, &mut leaves(1, 1));
    assert_eq!((outcome.ran, outcome.makespan), (3, 200.0));
    assert!((outcome.mean_wait - 100.0 / 3.0).abs() < 1e-9);
}

#[test]
fn one_job_on_leaves_of_two_gpus_runs_where_no_single_instance_is_free() {
    // Each GPU has two slices left beside a job of five: four leaves in all, but no 4g.
    let jobs = [job(0.0, 100.0, 5), job(0.0, 100.0, 5), job(0.0, 50.0, 4)];
    assert_eq!(replay(&jobs, &mut leaves(1, 2)).makespan, 100.0);
    let dynamic = replay(&jobs, &mut Dynamic::new(1, 2, 10.0));
    assert!(dynamic.makespan > 100.0, "{dynamic:?}");
}

#[test]
fn cutting_an_empty_gpu_takes_its_time() {
    let jobs = [job(0.0, 100.0, 4)];
    assert_eq!(replay(&jobs, &mut Dynamic::new(1, 1, 30.0)).makespan, 130.0);
}

#[test]
fn a_static_layout_gives_the_smallest_instance_that_is_large_enough() {
    let jobs = [job(0.0, 100.0, 2), job(0.0, 100.0, 2)];
    let outcome = replay(&jobs, &mut Fixed::new(1, &[&[4, 2, 1]]));
    // The second runs on the 4g, which is faster.
    assert_eq!((outcome.ran, outcome.makespan, outcome.mean_wait), (2, 100.0, 0.0));
}

#[test]
fn jobs_larger_than_anything_are_counted_apart() {
    let jobs = [job(0.0, 1.0, 7), job(0.0, 1.0, 15)];
    assert_eq!(replay(&jobs, &mut Fixed::new(1, &[&[4, 2, 1]])).impossible, 2);
    assert_eq!(replay(&jobs, &mut leaves(1, 2)).impossible, 1);
}

/// A fleet that notes what is in use, to check that no slice is used twice.
struct Watched<F> {
    fleet: F,
    capacity: u32,
    held: BTreeMap<u32, u32>,
}

impl<F: Fleet> Fleet for Watched<F> {
    fn start(&mut self, now: f64, number: u32, job: &Job) -> Option<Started> {
        let started = self.fleet.start(now, number, job)?;
        assert!(started.slices >= job.slices && started.seconds > 0.0);
        assert!(self.held.insert(number, started.slices).is_none(), "started twice");
        assert!(self.held.values().sum::<u32>() <= self.capacity);
        Some(started)
    }

    fn end(&mut self, now: f64, number: u32) {
        assert!(self.held.remove(&number).is_some());
        self.fleet.end(now, number);
    }

    fn can_ever(&self, job: &Job) -> bool {
        self.fleet.can_ever(job)
    }

    fn ready_at(&self, now: f64) -> Option<f64> {
        self.fleet.ready_at(now)
    }
}

fn watched(jobs: &[Job], fleet: impl Fleet) -> Outcome {
    let mut watched = Watched { fleet, capacity: 2 * 2 * 7, held: BTreeMap::new() };
    let outcome = replay(jobs, &mut watched);
    assert!(watched.held.is_empty(), "all jobs end");
    assert_eq!(outcome.ran + outcome.impossible, jobs.len());
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_job_runs_once_and_no_slice_is_used_twice(seed in any::<u64>(), gap in 1.0f64..600.0) {
        let mut jobs = generate(Mix::EVEN, 120, gap, seed);
        jobs[7].slices = 14;
        let many = watched(&jobs, leaves(2, 2));
        prop_assert_eq!(many.impossible, 0);
        let fixed = watched(&jobs, Fixed::new(2, &[&[7], &[4, 2, 1]]));
        let dynamic = watched(&jobs, Dynamic::new(2, 2, 60.0));
        // Work cannot be done faster than all GPUs together can.
        let work: f64 = jobs.iter().map(|job| job.seconds * f64::from(job.slices)).sum();
        prop_assert!(many.makespan >= work / 28.0 - 1e-6);
        prop_assert!(fixed.ran > 0 && dynamic.ran > 0);
    }
}
