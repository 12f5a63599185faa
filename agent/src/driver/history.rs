//! The last decisions about jobs, with their reasons, for `migshare explain`. They are kept in the journal beside the records but
//! bear no state: losing one loses an explanation.
//!
//! What is kept is bounded twice. A job has a share of its own, so that one with many steps takes nobody else's story away; over all
//! jobs the oldest go first. Neither takes the line that says why a job holds the leaves that it holds now.

use crate::journal::Told;
use std::collections::{BTreeMap, VecDeque};

/// Most decisions that are remembered, over all jobs.
const KEPT: usize = 512;
/// Most that are remembered of one job.
const OF_JOB: usize = 32;
/// How the line about a lease that was opened begins.
pub(super) const OPENED: &str = "lease opened";

/// The last decisions, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    told: VecDeque<Told>,
    /// For each job of which something is kept, how much that is, and how much is not kept any more.
    jobs: BTreeMap<u32, Share>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    kept: usize,
    lost: usize,
}

impl History {
    /// What a journal held. `holds` says whether a job has an open lease.
    pub(super) fn new(told: Vec<Told>, holds: impl Fn(u32) -> bool) -> History {
        let mut history = History::default();
        told.into_iter().for_each(|t| history.add(t, &holds));
        history
    }

    /// Remembers a decision.
    pub(super) fn add(&mut self, told: Told, holds: impl Fn(u32) -> bool) {
        let job = told.job;
        let share = self.jobs.entry(job).or_default();
        share.kept += 1;
        let full = share.kept > OF_JOB;
        self.told.push_back(told);
        if full {
            let opened = self.told.iter().rposition(|t| t.job == job && is_opening(t));
            let mut of_job = self.told.iter().enumerate().filter(|(_, t)| t.job == job).map(|(at, _)| at);
            let oldest = of_job.find(|at| Some(*at) != opened);
            self.lose(oldest);
        } else if self.told.len() > KEPT {
            let oldest = self.told.iter().position(|t| !is_opening(t) || !holds(t.job));
            self.lose(oldest);
        }
    }

    /// All of them, for a compacted journal.
    pub(super) fn all(&self) -> Vec<Told> {
        self.told.iter().cloned().collect()
    }

    /// Those about one job; where some are lost, a line in their place says how many.
    pub(super) fn of(&self, job: u32) -> Vec<Told> {
        let mut story: Vec<Told> = self.told.iter().filter(|t| t.job == job).cloned().collect();
        let lost = self.jobs.get(&job).map_or(0, |share| share.lost);
        let before = usize::from(story.first().is_some_and(is_opening));
        if let Some(next) = story.get(before).filter(|_| lost > 0) {
            let text = format!("{lost} earlier decisions about this job are not kept any more");
            story.insert(before, Told { job, at: next.at, text, reason: None });
        }
        story
    }

    fn lose(&mut self, at: Option<usize>) {
        let Some(lost) = at.and_then(|at| self.told.remove(at)) else { return };
        if let Some(share) = self.jobs.get_mut(&lost.job) {
            share.kept -= 1;
            share.lost += 1;
            if share.kept == 0 {
                self.jobs.remove(&lost.job);
            }
        }
    }
}

/// Whether it tells why a job holds its leaves.
pub(super) fn is_opening(told: &Told) -> bool {
    told.text.starts_with(OPENED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(job: u32, text: &str) -> Told {
        Told { job, at: 5, text: text.to_owned(), reason: None }
    }

    fn texts(history: &History, job: u32) -> Vec<String> {
        history.of(job).into_iter().map(|t| t.text).collect()
    }

    #[test]
    fn a_job_with_many_steps_takes_no_other_job_s_story_away() {
        let mut history =
            History::new(vec![told(701, "lease opened: a"), told(900, "lease opened: b")], |_| true);
        for step in 0..KEPT {
            history.add(told(900, &format!("step {step}")), |_| false);
        }
        assert_eq!(texts(&history, 701), ["lease opened: a"]);
        let many = texts(&history, 900);
        assert_eq!(many.len(), OF_JOB + 1);
        let lost = format!("{} earlier decisions about this job are not kept any more", KEPT + 1 - OF_JOB);
        assert_eq!(many[..2], ["lease opened: b".to_owned(), lost]);
        assert_eq!(many[OF_JOB], format!("step {}", KEPT - 1));
    }

    #[test]
    fn the_opening_of_a_lease_is_kept_as_long_as_it_is_open_and_no_longer() {
        let mut history = History::default();
        let open = |job: u32| job == 1;
        history.add(told(1, "lease opened: a"), open);
        history.add(told(2, "lease opened: b"), open);
        (3..3 + KEPT as u32).for_each(|job| history.add(told(job, "lease refused"), open));
        assert_eq!((texts(&history, 1).len(), texts(&history, 2).len()), (1, 0));
        history.add(told(4000, "lease refused"), |_| false);
        assert_eq!((texts(&history, 1).len(), history.told.len(), history.jobs.len()), (0, KEPT, KEPT));
    }

    /// More leases than entries there cannot be; if there were, nothing is lost and nothing breaks.
    #[test]
    fn openings_alone_may_be_more() {
        let mut history = History::default();
        (0..2 * KEPT as u32).for_each(|job| history.add(told(job, OPENED), |_| true));
        assert_eq!(history.all().len(), 2 * KEPT);
    }
}
