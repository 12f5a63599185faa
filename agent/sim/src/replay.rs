//! The queue and the clock.
//!
//! First come first served with overtaking: whenever something changes, waiting jobs are tried in order of arrival, at
//! most 64 of them. The head of the queue is tried first each time, so what it can use goes to it.

use crate::fleet::Fleet;
use crate::trace::Job;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Waiting jobs that are tried at each change.
const LOOK: usize = 64;

/// What a replay came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Jobs that ran.
    pub ran: usize,
    /// Jobs that could never run: larger than anything there is.
    pub impossible: usize,
    /// From the first arrival to the last end, seconds.
    pub makespan: f64,
    /// Mean time in the queue, seconds.
    pub mean_wait: f64,
    /// Mean time from arrival to end, seconds.
    pub mean_turnaround: f64,
}

/// Replays the jobs, which must be sorted by arrival.
pub fn replay(jobs: &[Job], fleet: &mut impl Fleet) -> Outcome {
    let mut replay =
        Replay { jobs, fleet, waiting: VecDeque::new(), ends: BinaryHeap::new(), totals: Totals::default() };
    let mut next = 0;
    let mut now = jobs.first().map_or(0.0, |job| job.arrival);
    let begin = now;
    loop {
        while next < jobs.len() && jobs[next].arrival <= now {
            replay.arrive(next);
            next += 1;
        }
        replay.end_until(now);
        replay.start_waiting(now);
        let arrival = jobs.get(next).map(|job| job.arrival);
        let end = replay.ends.peek().map(|Reverse(end)| end.at);
        let ready = replay.fleet.ready_at(now).filter(|_| !replay.waiting.is_empty());
        match [arrival, end, ready].into_iter().flatten().min_by(f64::total_cmp) {
            Some(then) => now = then,
            None => return replay.outcome(begin),
        }
    }
}

#[derive(Default)]
struct Totals {
    ran: usize,
    impossible: usize,
    last_end: f64,
    wait: f64,
    turnaround: f64,
}

struct Replay<'a, F> {
    jobs: &'a [Job],
    fleet: &'a mut F,
    waiting: VecDeque<usize>,
    ends: BinaryHeap<Reverse<End>>,
    totals: Totals,
}

impl<F: Fleet> Replay<'_, F> {
    fn arrive(&mut self, number: usize) {
        if self.fleet.can_ever(&self.jobs[number]) {
            self.waiting.push_back(number);
        } else {
            self.totals.impossible += 1;
        }
    }

    fn end_until(&mut self, now: f64) {
        while let Some(Reverse(end)) = self.ends.peek().filter(|Reverse(end)| end.at <= now) {
            self.fleet.end(now, end.number as u32);
            self.ends.pop();
        }
    }

    fn start_waiting(&mut self, now: f64) {
        let mut at = 0;
        while at < self.waiting.len().min(LOOK) {
            let number = self.waiting[at];
            match self.fleet.start(now, number as u32, &self.jobs[number]) {
                Some(started) => {
                    self.waiting.remove(at);
                    self.count(now, number, now + started.seconds);
                }
                None => at += 1,
            }
        }
    }

    fn count(&mut self, now: f64, number: usize, end: f64) {
        let arrival = self.jobs[number].arrival;
        self.ends.push(Reverse(End { at: end, number }));
        self.totals.ran += 1;
        self.totals.last_end = end.max(self.totals.last_end);
        self.totals.wait += now - arrival;
        self.totals.turnaround += end - arrival;
    }

    fn outcome(&self, begin: f64) -> Outcome {
        let Totals { ran, impossible, last_end, wait, turnaround } = self.totals;
        let mean = |sum: f64| if ran == 0 { 0.0 } else { sum / ran as f64 };
        let makespan = (last_end - begin).max(0.0);
        Outcome { ran, impossible, makespan, mean_wait: mean(wait), mean_turnaround: mean(turnaround) }
    }
}

/// The end of a running job; ordered by time, then by number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct End {
    at: f64,
    number: usize,
}

impl Eq for End {}

impl Ord for End {
    fn cmp(&self, other: &End) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &End) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
