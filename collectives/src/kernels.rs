//! Copying and combining elements, for the best instruction set of this machine.
//!
//! ```text
//!   reduce(dst, a, b)   dst[i] = a[i] op b[i]     dst may be a or b; what a target adds, see `Target`
//!   finish(dst)         dst[i] = dst[i] / ranks    for averages
//!   copy / copy_streaming                          the latter bypasses the caches
//!   stage / fetch                                  to and from memory that two cores use in turn
//!   stage_and_stream                               to two places, read once
//! ```
//! One generic body per element type is compiled for SSE2 (every x86-64 has it), AVX2 and AVX-512 and
//! vectorised by the compiler; `scalar` is the oracle of the tests. 16-bit floats are computed in f32
//! and rounded once per combination on every path, so that all paths agree bit for bit.

mod abreast;
mod body;
mod copy;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

pub use copy::{copy, copy_streaming, fetch, stage, stage_and_stream, stream, stream_fence};

use crate::datatype::{DataType, ReduceOp};

/// Where a combination goes.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) to: *mut u8,
    /// Past the caches, to be ordered by a [`stream_fence`].
    pub(crate) bypass: bool,
    pub(crate) beside: Beside,
}

/// What is written beside each line of a result, in the same pass.
#[derive(Clone, Copy)]
pub(crate) enum Beside {
    Nothing,
    /// The result a second time.
    Result(*mut u8),
    /// As many bytes of something else.
    Copy {
        to: *mut u8,
        from: *const u8,
    },
}

impl Target {
    /// Just the result.
    pub(crate) fn plain(to: *mut u8) -> Self {
        Self { to, bypass: false, beside: Beside::Nothing }
    }
}

/// `dst[i] = a[i] op b[i]` for `count` elements.
pub(crate) type Reduce = unsafe fn(dst: Target, a: *const u8, b: *const u8, count: usize);
/// `dst[i] /= ranks` for `count` elements.
pub(crate) type Divide = unsafe fn(dst: *mut u8, count: usize, ranks: usize);

/// The functions of one instruction set, by numbers of type and operator.
#[derive(Debug)]
pub struct Kernels {
    /// Name of the instruction set.
    pub name: &'static str,
    /// Average is a sum here.
    reduce: [[Reduce; 5]; 12],
    divide: [Divide; 12],
    /// Whether string moves are fast.
    strings: bool,
}

impl Kernels {
    /// The best set that this machine has; `MIGSHARE_KERNELS` may name a lesser one.
    pub fn get() -> &'static Kernels {
        static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();
        CHOSEN.get_or_init(|| {
            let wanted = std::env::var("MIGSHARE_KERNELS").ok();
            let named = body::available().find(|set| wanted.as_deref() == Some(set.name));
            named.or_else(|| body::available().next()).unwrap_or(body::BASE)
        })
    }

    /// Combines `count` elements; an average is summed, see [`Kernels::finish`].
    ///
    /// # Safety
    /// All are valid for `count` elements; `dst.to` is `a`, `b` or overlaps nothing, and what is beside it overlaps nothing else.
    /// Sources may be written by a broken peer meanwhile: the result is then undefined, nothing else is.
    #[inline]
    pub(crate) unsafe fn reduce(
        &self,
        (kind, op): (DataType, ReduceOp),
        dst: Target,
        a: *const u8,
        b: *const u8,
        count: usize,
    ) {
        // SAFETY: passed on.
        unsafe { self.reduce[kind as usize][op as usize](dst, a, b, count) }
    }

    /// Turns sums into averages over `ranks`.
    ///
    /// # Safety
    /// `dst` is valid for `count` elements.
    #[inline]
    pub unsafe fn finish(&self, kind: DataType, op: ReduceOp, dst: *mut u8, count: usize, ranks: usize) {
        if op == ReduceOp::Average {
            // SAFETY: passed on.
            unsafe { self.divide[kind as usize](dst, count, ranks) }
        }
    }
}
