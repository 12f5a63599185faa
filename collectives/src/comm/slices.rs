//! The calls of a communicator on slices of Rust types, blocking.

use super::{Collective, Comm};
use crate::datatype::{Element, ReduceOp};
use crate::error::{Error, Result};

impl Comm {
    /// Waits for all ranks.
    ///
    /// # Errors
    /// Any error ends the communicator.
    pub fn barrier(&mut self) -> Result<()> {
        // SAFETY: uses no buffers.
        unsafe { self.run(&Collective::barrier()) }
    }

    /// Combines `data` of all ranks, in place.
    ///
    /// # Errors
    /// Any error ends the communicator; `data` is undefined then.
    pub fn all_reduce<T: Element>(&mut self, data: &mut [T], op: ReduceOp) -> Result<()> {
        let at = data.as_mut_ptr().cast();
        // SAFETY: the slice is ours for the duration of the call.
        unsafe { self.run(&Collective::all_reduce(at, at, data.len(), T::DATA_TYPE, op)) }
    }

    /// Copies the root's `data` to all ranks.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    pub fn broadcast<T: Element>(&mut self, data: &mut [T], root: usize) -> Result<()> {
        let at = data.as_mut_ptr().cast();
        // SAFETY: the slice is ours for the duration of the call.
        unsafe { self.run(&Collective::broadcast(at, data.len(), T::DATA_TYPE, root)) }
    }

    /// Collects `send` of all ranks, in rank order; `recv` is `size` times as long.
    ///
    /// # Errors
    /// `Invalid` when the lengths do not fit; otherwise as [`Comm::all_reduce`].
    pub fn all_gather<T: Element>(&mut self, send: &[T], recv: &mut [T]) -> Result<()> {
        if recv.len() != send.len() * self.size() {
            return Err(Error::Invalid("the target is not size times the source"));
        }
        let (from, to) = (send.as_ptr().cast(), recv.as_mut_ptr().cast());
        // SAFETY: both slices are ours for the duration of the call, and have the lengths needed.
        unsafe { self.run(&Collective::all_gather(from, to, send.len(), T::DATA_TYPE)) }
    }

    /// Combines `data` of all ranks into the root's `data`.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    pub fn reduce<T: Element>(&mut self, data: &mut [T], op: ReduceOp, root: usize) -> Result<()> {
        let at = data.as_mut_ptr().cast();
        // SAFETY: the slice is ours for the duration of the call.
        unsafe { self.run(&Collective::reduce(at, at, data.len(), T::DATA_TYPE, op, root)) }
    }

    /// Combines `send` of all ranks, which is `size` times as long as `recv`, and leaves block `rank` of it in `recv`.
    ///
    /// # Errors
    /// As [`Comm::all_gather`].
    pub fn reduce_scatter<T: Element>(&mut self, send: &[T], recv: &mut [T], op: ReduceOp) -> Result<()> {
        if send.len() != recv.len() * self.size() {
            return Err(Error::Invalid("the source is not size times the target"));
        }
        let (from, to) = (send.as_ptr().cast(), recv.as_mut_ptr().cast());
        // SAFETY: both slices are ours for the duration of the call, and have the lengths needed.
        unsafe { self.run(&Collective::reduce_scatter(from, to, recv.len(), T::DATA_TYPE, op)) }
    }

    /// Collects `send` of all ranks in the root's `recv`, in rank order; `recv` counts there only, and is `size` times as long.
    ///
    /// # Errors
    /// As [`Comm::all_gather`].
    pub fn gather<T: Element>(&mut self, send: &[T], recv: &mut [T], root: usize) -> Result<()> {
        if self.rank() == root && recv.len() != send.len() * self.size() {
            return Err(Error::Invalid("the target is not size times the source"));
        }
        let (from, to) = (send.as_ptr().cast(), recv.as_mut_ptr().cast());
        // SAFETY: both slices are ours for the duration of the call, and have the lengths needed where they are used.
        unsafe { self.run(&Collective::gather(from, to, send.len(), T::DATA_TYPE, root)) }
    }

    /// Hands block `rank` of the root's `send` to each rank; `send` counts there only, and is `size` times as long as `recv`.
    ///
    /// # Errors
    /// As [`Comm::all_gather`].
    pub fn scatter<T: Element>(&mut self, send: &[T], recv: &mut [T], root: usize) -> Result<()> {
        if self.rank() == root && send.len() != recv.len() * self.size() {
            return Err(Error::Invalid("the source is not size times the target"));
        }
        let (from, to) = (send.as_ptr().cast(), recv.as_mut_ptr().cast());
        // SAFETY: both slices are ours for the duration of the call, and have the lengths needed where they are used.
        unsafe { self.run(&Collective::scatter(from, to, recv.len(), T::DATA_TYPE, root)) }
    }

    /// Sends block `i` of `send` to rank `i`; the blocks arrive in rank order. Both are a block per rank.
    ///
    /// # Errors
    /// As [`Comm::all_gather`].
    pub fn all_to_all<T: Element>(&mut self, send: &[T], recv: &mut [T]) -> Result<()> {
        if send.len() != recv.len() || !send.len().is_multiple_of(self.size()) {
            return Err(Error::Invalid("the buffers are not a block per rank"));
        }
        let (from, to) = (send.as_ptr().cast(), recv.as_mut_ptr().cast());
        let count = send.len() / self.size();
        // SAFETY: both slices are ours for the duration of the call, and have the lengths needed.
        unsafe { self.run(&Collective::all_to_all(from, to, count, T::DATA_TYPE)) }
    }

    /// Sends `data` to `peer`.
    ///
    /// # Errors
    /// As [`Comm::all_reduce`].
    pub fn send<T: Element>(&mut self, data: &[T], peer: usize) -> Result<()> {
        // SAFETY: the slice outlives the wait, and a failed wait drops the task.
        let request = unsafe { self.start_send(peer, 0, data.as_ptr().cast(), size_of_val(data)) }?;
        self.wait(request).map(|_| ())
    }

    /// Receives one message from `peer`; the number of elements.
    ///
    /// # Errors
    /// `Truncated` when the message is longer than `data`; otherwise as [`Comm::all_reduce`].
    pub fn receive<T: Element>(&mut self, data: &mut [T], peer: usize) -> Result<usize> {
        let bytes = size_of_val(data);
        // SAFETY: the slice outlives the wait, and a failed wait drops the task.
        let request = unsafe { self.start_receive(peer, 0, data.as_mut_ptr().cast(), bytes) }?;
        Ok(self.wait(request)? as usize / size_of::<T>().max(1))
    }
}
