//! Wire messages into the policy's questions, and its verdicts into wire messages: the only place where both are known.

pub mod admin;

use crate::journal::Told;
use crate::process;
use migshare_policy::charge::Need;
use migshare_policy::node::{Ask, Verdict};
use migshare_policy::placement::Direction;
use migshare_policy::record::Ending;
use migshare_proto::admin::{StoryEvent, StoryReply};
use migshare_proto::message::{
    self, Done, ErrorCode, ErrorReply, GrantReply, LeaseReply, Reply, Request, Shape, Spread,
};

/// The question in a request; none for a request that asks the policy nothing.
pub fn ask(request: Request) -> Option<Ask> {
    Some(match request {
        Request::OpenLease(r) => {
            Ask::Open { job: r.job, leaves: r.leaves, direction: direction(r.shape), need: need(r.shape) }
        }
        Request::Grant(r) => Ask::Grant {
            job: r.job,
            step: r.step,
            leaves: r.leaves,
            tasks: r.tasks,
            direction: direction(r.shape),
            holder: process::holder(r.holder),
        },
        Request::JobLeaves(r) => Ask::JobLeaves { job: r.job },
        Request::Release(r) => Ask::Release { job: r.job, step: r.step },
        Request::CloseLease(r) => Ask::Close { job: r.job, uid: r.uid, start: r.start, how: Ending::Epilog },
        Request::Hello(_)
        | Request::Status(_)
        | Request::OpenSegment(_)
        | Request::Plan(_)
        | Request::Order(_)
        | Request::Explain(_) => {
            return None;
        }
    })
}

/// The reply for a verdict; none while the client has to wait.
pub fn reply(verdict: Verdict, caps_major: Option<u32>) -> Option<Reply> {
    Some(match verdict {
        Verdict::Lease(leaves) => Reply::Lease(LeaseReply { leaves, caps_major }),
        Verdict::Granted { leaves, tasks, shared } => {
            Reply::Granted(GrantReply { leaves, tasks, caps_major, shared })
        }
        Verdict::Done { found } => Reply::Done(Done { found }),
        Verdict::Refused(refused) => Reply::Refused(refused),
        Verdict::Wait => return None,
    })
}

/// The message for what was told of a job.
pub fn story(told: Vec<Told>) -> StoryReply {
    let event = |t: Told| StoryEvent { at: t.at, text: t.text, reason: t.reason };
    StoryReply { events: told.into_iter().map(event).collect() }
}

/// An error reply.
pub fn error(code: ErrorCode, text: impl Into<String>) -> Reply {
    Reply::Error(ErrorReply { code, text: text.into() })
}

fn need(shape: Shape) -> Option<Need> {
    shape.need.map(|need| match need {
        message::Need::Slices(n) => Need::Slices(n),
        message::Need::MemoryMib(n) => Need::MemoryMib(n),
    })
}

fn direction(shape: Shape) -> Option<Direction> {
    match shape.spread {
        Spread::Default => None,
        Spread::Pack => Some(Direction::Pack),
        Spread::Spread => Some(Direction::Spread),
    }
}
