//! The last decisions about jobs, with their reasons, for `migshare explain`. They are kept in the journal beside the records but
//! bear no state: losing one loses an explanation.

use crate::journal::Told;
use std::collections::VecDeque;

/// Most decisions that are remembered, over all jobs.
const KEPT: usize = 512;

/// The last decisions, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Told>);

impl History {
    /// What a journal held.
    pub(super) fn new(told: Vec<Told>) -> History {
        let mut history = History::default();
        told.into_iter().for_each(|t| history.add(t));
        history
    }

    /// Remembers a decision.
    pub(super) fn add(&mut self, told: Told) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(told);
    }

    /// All of them, for a compacted journal.
    pub(super) fn all(&self) -> Vec<Told> {
        self.0.iter().cloned().collect()
    }

    /// Those about one job.
    pub(super) fn of(&self, job: u32) -> Vec<Told> {
        self.0.iter().filter(|t| t.job == job).cloned().collect()
    }
}
