//! What the queue needs to know of a way to share GPUs.

use crate::trace::Job;

/// A job that was started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Started {
    /// How long it will run, seconds.
    pub seconds: f64,
    /// Sevenths of GPUs that it keeps from others.
    pub slices: u32,
}

/// GPUs of several nodes under one way of sharing. Jobs are known by their number.
pub trait Fleet {
    /// Starts a job, if it can start now.
    fn start(&mut self, now: f64, number: u32, job: &Job) -> Option<Started>;

    /// A job ended.
    fn end(&mut self, now: f64, number: u32);

    /// Whether the job could ever run here.
    fn can_ever(&self, job: &Job) -> bool;

    /// When something will be possible that is not possible now although no job ends, seconds.
    fn ready_at(&self, now: f64) -> Option<f64>;
}
