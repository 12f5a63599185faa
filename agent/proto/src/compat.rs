//! What a peer of an older protocol version is told instead of words that it does not know.
//!
//! | version | what came with it |
//! |---|---|
//! | 1 | the first |
//! | 2 | reasons of their own for what version 1 calls `no_leaves` or `bad_request`; the GPU states `cordoned` and `missing` |
//!
//! Fields that were added need nothing: every peer reads past those that it does not know.

use crate::message::{Reason, Reply};
use crate::status::GpuState;

impl Reply {
    /// The reply in words of an agreed version.
    pub fn for_protocol(mut self, version: u32) -> Reply {
        if version < 2 {
            match &mut self {
                Reply::Refused(refused) => refused.reason = first(refused.reason),
                Reply::Status(status) => {
                    status.gpus.retain(|gpu| gpu.state != GpuState::Missing);
                    let cordoned = status.gpus.iter_mut().filter(|gpu| gpu.state == GpuState::Cordoned);
                    cordoned.for_each(|gpu| gpu.state = GpuState::Serving);
                }
                _ => {}
            }
        }
        self
    }
}

/// The nearest reason of version 1. A plugin of that version takes its node out of service for `not_serving`, and for
/// `no_leaves` unless larger instances were asked for.
fn first(reason: Reason) -> Reason {
    match reason {
        Reason::Unavailable | Reason::Fragmented => Reason::NoLeaves,
        Reason::RateLimited
        | Reason::NoSuchSize
        | Reason::WrongPrice
        | Reason::NeedsForce
        | Reason::WouldWait
        | Reason::NoSuchPlace
        | Reason::InUse
        | Reason::Unknown => Reason::BadRequest,
        known => known,
    }
}
