//! The collectives as straight-line async functions over schedules.
//!
//! | bytes per rank          | all-reduce                         | the others, *rooted*  |
//! |-------------------------|------------------------------------|-----------------------|
//! | up to 48                | payload in the control line        | staging, *line*       |
//! | up to [`flat_max`]      | everyone reduces everything        | staging, *board*      |
//! | more                    | reduce-scatter + all-gather, chunks; two ranks: everyone everything, chunks | staging in chunks; *or one copy, whichever the source finds faster* |
//! | all buffers in segment  | straight from and to user buffers  | as other buffers; *one copy* |
//! | two ranks, all-gather and all-to-all | –                     | one copy from [`PULL_PAIR_MIN`] on; all-gather from 8 MiB on by staging |
//! | more ranks than cores   | as with a core for each            | one copy from [`PULL_MIN`] on |
//!
//! One copy is read from the segment, or by process_vm_readv where all ranks may.
//!
//! The choice follows from arguments that all ranks share, or from what all ranks published in the
//! same step, so all take the same path. Sources are combined in rank order everywhere.

pub(crate) mod all_reduce;
pub(crate) mod combine;
pub(crate) mod direct;
pub(crate) mod lend;
pub(crate) mod move_data;
pub(crate) mod own;
pub(crate) mod reduce;
pub(crate) mod short;
pub(crate) mod slots;
pub(crate) mod trials;

use crate::core::{Core, Op};
use crate::datatype::{DataType, ReduceOp};
use crate::error::Result;
use crate::schedule::meet;

/// All-reduce of `ranks`: up to this many bytes every rank reduces everything in one step. Two do so in chunks beyond it: that is
/// the same copying as in two phases, and one wait less.
pub const fn flat_max(ranks: usize) -> usize {
    if ranks == 2 { 64 << 10 } else { 8 << 10 }
}
/// From this many bytes on, messages are read by one copy, and with more ranks than cores all-gather and all-to-all.
pub const PULL_MIN: usize = 64 << 10;
/// The same for all-gather and all-to-all of two ranks that have a core each: below, staging is as fast.
const PULL_PAIR_MIN: usize = 16 << 10;

/// Whether the ranks of an all-gather or all-to-all read each other's memory by process_vm_readv instead of staging `bytes`.
///
/// Between two ranks that saves each of them a pass, and both cores copy all the time; only where all-gather reads a block once for
/// its own target and for staging, past the caches, that is faster. More ranks with a core each pin the
/// same pages at the same time. With more ranks than cores nothing happens at the same time, and each chunk would cost a
/// turn of all ranks.
pub(crate) fn pulls(core: &Core, kind: Kind, bytes: usize) -> bool {
    let least = match (core.charter.oversubscribed, core.size()) {
        (true, _) => PULL_MIN,
        (false, 2) if kind == Kind::AllGather && bytes >= own::BYPASS_MIN => return false,
        (false, 2) => PULL_PAIR_MIN,
        (false, _) => return false,
    };
    bytes >= least && core.charter.single_copy.get()
}

/// A source in user memory. The caller of the operation keeps it valid until the operation ends.
#[derive(Clone, Copy)]
pub(crate) struct In(pub(crate) *const u8);

/// A target in user memory, likewise.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub(crate) *mut u8);

impl In {
    pub(crate) fn at(self, offset: usize) -> *const u8 {
        self.0.wrapping_add(offset)
    }
}

impl Out {
    pub(crate) fn at(self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

/// Which collective; part of the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Barrier,
    Broadcast,
    AllReduce,
    Reduce,
    ReduceScatter,
    AllGather,
    Gather,
    Scatter,
    AllToAll,
}

/// Everything that the ranks of one call must agree on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) data: DataType,
    pub(crate) op: ReduceOp,
    pub(crate) root: usize,
    /// Elements per rank.
    pub(crate) count: usize,
}

impl Call {
    pub(crate) fn new(kind: Kind, data: DataType, count: usize) -> Self {
        Self { kind, data, op: ReduceOp::Sum, root: 0, count }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.count * self.data.bytes()
    }

    /// A number that differs when ranks call different things.
    fn mark(&self) -> u64 {
        let small =
            u64::from(self.kind as u8) | u64::from(self.data as u8) << 8 | u64::from(self.op as u8) << 16;
        let mixed =
            (small | (self.root as u64) << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.count as u64;
        mixed.wrapping_mul(0xff51_afd7_ed55_8ccd)
    }

    pub(crate) fn begin<'a>(&self, core: &'a Core, posts: u64) -> Result<Op<'a>> {
        core.begin(self.mark(), posts)
    }
}

/// Runs one collective to its end.
pub(crate) async fn run(core: &Core, call: Call, send: In, recv: Out) -> Result<u64> {
    match call.kind {
        Kind::Barrier => meet(&call.begin(core, 1)?).await,
        Kind::AllReduce => all_reduce::all_reduce(core, call, send, recv).await,
        _ if core.size() == 1 => {
            core.check_fault()?;
            // SAFETY: with one rank every collective is a copy of one block; the caller vouches for both.
            unsafe { own::Own::new(recv.0, send.0, call.bytes()).copy() };
            Ok(())
        }
        _ if short::serves(core, &call) => short::run(core, call, send, recv).await,
        Kind::Broadcast => move_data::broadcast(core, call, recv).await,
        Kind::Reduce => reduce::reduce(core, call, send, recv).await,
        Kind::ReduceScatter => reduce::reduce_scatter(core, call, send, recv).await,
        Kind::AllGather => move_data::all_gather(core, call, send, recv).await,
        Kind::Gather => move_data::gather(core, call, send, recv).await,
        Kind::Scatter => move_data::scatter(core, call, send, recv).await,
        Kind::AllToAll => move_data::all_to_all(core, call, send, recv).await,
    }
    .map(|()| 0)
}
