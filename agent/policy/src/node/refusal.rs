//! The words of every refusal: the reason with names and numbers, and the way out.

use super::Node;
use crate::books::Lease;
use migshare_proto::message::{Reason, Refused};
use migshare_proto::{JobKey, StepId};

/// Jobs named in one text; more are counted.
pub(super) const NAMED: usize = 4;

pub(super) fn refused(reason: Reason, text: String) -> Refused {
    Refused::new(reason, text)
}

/// `1 leaf`, `2 leaves`.
pub(super) fn leaves(n: u32) -> String {
    if n == 1 { "1 leaf".to_owned() } else { format!("{n} leaves") }
}

fn tasks(n: u32) -> String {
    if n == 1 { "1 task".to_owned() } else { format!("{n} tasks") }
}

impl Node {
    pub(super) fn zero_leaves(&self, job: JobKey) -> Refused {
        let text = format!("job {job} asks for 0 leaves: ask for at least one, for example --gres=mig:1");
        refused(Reason::BadRequest, text)
    }

    pub(super) fn not_serving(&self, why: &str) -> Refused {
        let text =
            format!("this node takes no new job: {why}; jobs that hold leaves go on, try another node");
        refused(Reason::NotServing, text)
    }

    pub(super) fn no_leaves(&self, asked: u32) -> Refused {
        let (free, counted) = (self.free(), self.counted());
        let way = match free {
            0 => "wait for one of them to end".to_owned(),
            n => format!("ask for {} or wait", leaves(n)),
        };
        let text =
            format!("{} asked for, {free} of {counted} free: {}; {way}", leaves(asked), self.held_by());
        // With all counted leaves in order it would have fitted: then it is not the jobs that are in the way.
        let held: u32 = self.books.leases.values().map(|lease| lease.charged).sum();
        let reason = if held + asked <= counted { Reason::Unavailable } else { Reason::NoLeaves };
        refused(reason, text)
    }

    /// Who or what holds the leaves that are not free.
    pub(super) fn held_by(&self) -> String {
        let mut parts: Vec<String> = self.books.leases.iter().take(NAMED).map(holds).collect();
        let more = self.books.leases.len().saturating_sub(NAMED);
        if more > 0 {
            parts.push(format!("{more} more jobs hold the rest"));
        }
        let unusable = self.counted() - self.usable();
        if unusable > 0 {
            parts.push(format!("{unusable} cannot be used ({})", self.problems().join("; ")));
        }
        if parts.is_empty() { "no job holds any".to_owned() } else { parts.join(", ") }
    }

    pub(super) fn lease_differs(&self, job: JobKey, lease: &Lease, asked: u32) -> Refused {
        let text = format!(
            "job {job} holds {} on this node already and cannot hold {asked} instead: a job's leaves are fixed when it \
             starts",
            leaves(lease.charged)
        );
        refused(Reason::LeaseDiffers, text)
    }

    pub(super) fn earlier_run(&self, job: JobKey, other: JobKey) -> Refused {
        let text = format!(
            "job {job} of user {} (start {}) asks, but user {} holds leaves for its run of start {}",
            job.uid, job.start, other.uid, other.start
        );
        refused(Reason::LeaseDiffers, text)
    }

    pub(super) fn no_lease(&self, job: JobKey) -> Refused {
        let text = format!(
            "job {job} holds no leaves on this node: ask for them when submitting, for example --gres=mig:1"
        );
        refused(Reason::NoLease, text)
    }

    pub(super) fn all_lost(&self, job: JobKey, lease: &Lease) -> Refused {
        let text = format!(
            "none of the {} of job {job} can be used any more: {}; cancel the job and submit it again",
            leaves(lease.charged),
            self.problems().join("; ")
        );
        refused(Reason::Unavailable, text)
    }

    pub(super) fn some_lost(&self, job: JobKey, asked: u32, left: u32) -> Refused {
        let text = format!(
            "step asks for {}, but only {left} of job {job} can still be used: {}; ask for {left} or submit the job again",
            leaves(asked),
            self.problems().join("; ")
        );
        refused(Reason::Unavailable, text)
    }

    pub(super) fn no_tasks(&self, job: JobKey, step: StepId) -> Refused {
        let text =
            format!("step {job}.{step} asks for leaves for 0 tasks or for 0 leaves: both must be at least 1");
        refused(Reason::BadRequest, text)
    }

    pub(super) fn special_step(&self, job: JobKey, step: StepId) -> Refused {
        let text = format!("the {step} step of job {job} sees all leaves of its job and takes no grant");
        refused(Reason::BadRequest, text)
    }

    pub(super) fn beyond_lease(&self, job: JobKey, step: StepId, asked: u32, held: u32) -> Refused {
        let text = format!(
            "step {job}.{step} asks for {}, but the job holds {held} on this node: submit the job with --gres=mig:{asked} \
             or --mig-share={asked}, or start the step with --gres=mig:{held}",
            leaves(asked)
        );
        refused(Reason::BeyondLease, text)
    }

    pub(super) fn fewer_than_tasks(&self, job: JobKey, step: StepId, has: u32, wants: u32) -> Refused {
        let text = format!(
            "step {job}.{step} has {} and {} on this node, and each task needs a leaf of its own: ask for \
             --gres=mig:{wants} or --mig-share={wants}, or start {has} here",
            tasks(wants),
            leaves(has)
        );
        refused(Reason::FewerLeavesThanTasks, text)
    }

    pub(super) fn grant_differs(&self, job: JobKey, step: StepId, held: u32, asked: u32) -> Refused {
        let text = format!("step {job}.{step} uses {} already and cannot use {asked} instead", leaves(held));
        refused(Reason::LeaseDiffers, text)
    }
}

impl Node {
    pub(super) fn leaf_lost(&self, grant: &crate::record::Grant) -> Refused {
        let lost = grant.leaves.iter().filter(|leaf| !self.books.stands(leaf)).map(ToString::to_string);
        let text = format!(
            "leaves of this step were lost: {}; start the step again",
            lost.collect::<Vec<_>>().join(", ")
        );
        refused(Reason::Unavailable, text)
    }
}

fn holds((job, lease): (&JobKey, &Lease)) -> String {
    format!("job {job} holds {}", lease.charged)
}
