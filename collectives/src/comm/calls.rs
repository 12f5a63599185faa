//! The calls of a communicator on raw buffers, blocking or not.

use std::time::Duration;

use super::Comm;
use crate::algorithm::{self, Call, In, Kind, Out, short};
use crate::datatype::{DataType, ReduceOp};
use crate::error::{Error, Result};
use crate::request::{Lane, Request};
use crate::ring;
use crate::segment::Segment;

/// A collective on raw buffers. `count` is in elements per rank; what the two buffers hold depends on
/// the operation:
///
/// | operation       | `send`                | `recv`                | in place when            |
/// |-----------------|-----------------------|-----------------------|--------------------------|
/// | all-reduce      | `count`               | `count`               | equal                    |
/// | reduce          | `count`               | `count`, root only    | equal                    |
/// | reduce-scatter  | `size * count`        | `count`               | `recv == send + rank*count` |
/// | broadcast       | not used              | `count`               | always                   |
/// | all-gather      | `count`               | `size * count`        | `send == recv + rank*count` |
/// | gather          | `count`               | `size * count`, root  | `send == recv + rank*count` |
/// | scatter         | `size * count`, root  | `count`               | `recv == send + rank*count` |
/// | all-to-all      | `size * count`        | `size * count`        | equal, on all ranks      |
#[derive(Clone, Copy, Debug)]
pub struct Collective {
    pub(crate) call: Call,
    send: *const u8,
    recv: *mut u8,
}

impl Collective {
    /// Without elements a null pointer will do; what makes slices of buffers needs another (`slice::from_raw_parts`).
    fn new(call: Call, send: *const u8, recv: *mut u8) -> Self {
        if call.count == 0 {
            let nothing = std::ptr::NonNull::<u64>::dangling().as_ptr().cast();
            return Self { call, send: nothing, recv: nothing };
        }
        Self { call, send, recv }
    }

    /// Waits for all ranks.
    #[must_use]
    pub fn barrier() -> Self {
        Self::new(Call::new(Kind::Barrier, DataType::U8, 0), std::ptr::null(), std::ptr::null_mut())
    }

    /// Copies the root's buffer to all ranks.
    #[must_use]
    pub fn broadcast(buffer: *mut u8, count: usize, data: DataType, root: usize) -> Self {
        Self::new(Call { root, ..Call::new(Kind::Broadcast, data, count) }, buffer, buffer)
    }

    /// Combines on all ranks.
    #[must_use]
    pub fn all_reduce(send: *const u8, recv: *mut u8, count: usize, data: DataType, op: ReduceOp) -> Self {
        Self::new(Call { op, ..Call::new(Kind::AllReduce, data, count) }, send, recv)
    }

    /// Combines at the root.
    #[must_use]
    pub fn reduce(
        send: *const u8,
        recv: *mut u8,
        count: usize,
        data: DataType,
        op: ReduceOp,
        root: usize,
    ) -> Self {
        Self::new(Call { op, root, ..Call::new(Kind::Reduce, data, count) }, send, recv)
    }

    /// Combines, and leaves block `rank` on each rank.
    #[must_use]
    pub fn reduce_scatter(
        send: *const u8,
        recv: *mut u8,
        count: usize,
        data: DataType,
        op: ReduceOp,
    ) -> Self {
        Self::new(Call { op, ..Call::new(Kind::ReduceScatter, data, count) }, send, recv)
    }

    /// Collects the blocks of all ranks on all ranks.
    #[must_use]
    pub fn all_gather(send: *const u8, recv: *mut u8, count: usize, data: DataType) -> Self {
        Self::new(Call::new(Kind::AllGather, data, count), send, recv)
    }

    /// Collects the blocks of all ranks at the root.
    #[must_use]
    pub fn gather(send: *const u8, recv: *mut u8, count: usize, data: DataType, root: usize) -> Self {
        Self::new(Call { root, ..Call::new(Kind::Gather, data, count) }, send, recv)
    }

    /// Hands one of the root's blocks to each rank.
    #[must_use]
    pub fn scatter(send: *const u8, recv: *mut u8, count: usize, data: DataType, root: usize) -> Self {
        Self::new(Call { root, ..Call::new(Kind::Scatter, data, count) }, send, recv)
    }

    /// Sends block `i` of each rank to rank `i`.
    #[must_use]
    pub fn all_to_all(send: *const u8, recv: *mut u8, count: usize, data: DataType) -> Self {
        Self::new(Call::new(Kind::AllToAll, data, count), send, recv)
    }

    /// Blocks in the source and in the target on `rank` of `size`; zero where the buffer is not used.
    fn blocks(&self, rank: usize, size: usize) -> (usize, usize) {
        let root = rank == self.call.root;
        match self.call.kind {
            Kind::Barrier => (0, 0),
            Kind::Broadcast => (0, 1),
            Kind::AllReduce => (1, 1),
            Kind::Reduce => (1, usize::from(root)),
            Kind::ReduceScatter => (size, 1),
            Kind::AllGather => (1, size),
            Kind::Gather => (1, if root { size } else { 0 }),
            Kind::Scatter => (if root { size } else { 0 }, 1),
            Kind::AllToAll => (size, size),
        }
    }

    fn check(&self, rank: usize, size: usize, segment: &Segment) -> Result<()> {
        if self.call.root >= size {
            return Err(Error::OutOfRange { what: "root", value: self.call.root, limit: size });
        }
        let bytes = self.call.count.checked_mul(self.call.data.bytes()).and_then(|b| b.checked_mul(size));
        if bytes.is_none_or(|b| b > isize::MAX as usize) {
            return Err(Error::Invalid("the count is of more elements than memory can hold"));
        }
        let (sends, receives) = self.blocks(rank, size);
        let missing = (sends > 0 && self.send.is_null()) || (receives > 0 && self.recv.is_null());
        if missing {
            return Err(Error::Invalid("a null buffer"));
        }
        segment.refuse_stale(self.send, sends * self.call.bytes())?;
        segment.refuse_stale(self.recv, receives * self.call.bytes())?;
        self.check_overlap(rank, sends, receives)
    }

    /// Buffers may overlap only in the in-place form of their operation.
    fn check_overlap(&self, rank: usize, sends: usize, receives: usize) -> Result<()> {
        let block = self.call.bytes();
        let (send, recv) = (self.send as usize, self.recv as usize);
        let apart = send + sends * block <= recv || recv + receives * block <= send;
        let own = rank * block;
        let in_place = match self.call.kind {
            Kind::ReduceScatter | Kind::Scatter => recv == send + own,
            Kind::AllGather | Kind::Gather => send == recv + own,
            _ => send == recv,
        };
        if apart || in_place { Ok(()) } else { Err(Error::Invalid("the buffers overlap")) }
    }
}

impl Comm {
    /// Runs a collective on raw buffers to its end.
    ///
    /// # Safety
    /// The buffers hold the bytes that [`Collective`] names, for the duration of the call.
    ///
    /// # Errors
    /// `Invalid` before anything happens; any other error ends the communicator.
    pub unsafe fn run(&mut self, collective: &Collective) -> Result<()> {
        self.refuse_copy()?;
        collective.check(self.rank(), self.size(), self.segment())?;
        if self.engine.is_busy(Lane::Collective) {
            // SAFETY: passed on; this call outlives the request.
            let request = unsafe { self.start(collective) }?;
            return self.wait(request).map(|_| ());
        }
        let (call, send, recv) = (collective.call, In(collective.send), Out(collective.recv));
        if short::serves(&self.core, &call) {
            // Polled by itself: the state of all other collectives would take longer to set up than this does altogether.
            return self.engine.block_on(&self.core, short::run(&self.core, call, send, recv));
        }
        self.engine.block_on(&self.core, algorithm::run(&self.core, call, send, recv)).map(|_| ())
    }

    /// Starts a collective on raw buffers; it proceeds during [`Comm::test`], [`Comm::wait`] and blocking calls.
    ///
    /// # Safety
    /// The buffers hold the bytes that [`Collective`] names until the request is done or the
    /// communicator is dropped.
    ///
    /// # Errors
    /// `Invalid` before anything happens.
    pub unsafe fn start(&mut self, collective: &Collective) -> Result<Request> {
        self.refuse_copy()?;
        collective.check(self.rank(), self.size(), self.segment())?;
        let core = self.lasting_core();
        let (send, recv) = (In(collective.send), Out(collective.recv));
        let task = Box::pin(algorithm::run(core, collective.call, send, recv));
        Ok(self.engine.start(core, Lane::Collective, task))
    }

    /// Starts to send `len` bytes to `peer`; messages between two ranks stay in order.
    ///
    /// # Safety
    /// `from` holds `len` bytes until the request is done or the communicator is dropped.
    ///
    /// # Errors
    /// `Invalid` for a rank that is no peer.
    pub unsafe fn start_send(
        &mut self,
        peer: usize,
        tag: u64,
        from: *const u8,
        len: usize,
    ) -> Result<Request> {
        // SAFETY: passed on.
        unsafe { self.start_send_from(peer, tag, from, len, false) }
    }

    /// As [`Comm::start_send`]; `staged` is for memory that other processes cannot read, such as mappings of a
    /// device.
    ///
    /// # Safety
    /// As [`Comm::start_send`].
    ///
    /// # Errors
    /// As [`Comm::start_send`].
    pub unsafe fn start_send_from(
        &mut self,
        peer: usize,
        tag: u64,
        from: *const u8,
        len: usize,
        staged: bool,
    ) -> Result<Request> {
        self.check_peer(peer, from, len)?;
        let core = self.lasting_core();
        let task = Box::pin(ring::send(core, peer, tag, In(from), len, staged));
        Ok(self.engine.start(core, Lane::Send(peer), task))
    }

    /// Starts to receive the next message from `peer`, of at most `room` bytes; the result is its length.
    ///
    /// # Safety
    /// `to` has room for `room` bytes until the request is done or the communicator is dropped.
    ///
    /// # Errors
    /// `Invalid` for a rank that is no peer.
    pub unsafe fn start_receive(
        &mut self,
        peer: usize,
        tag: u64,
        to: *mut u8,
        room: usize,
    ) -> Result<Request> {
        self.check_peer(peer, to, room)?;
        let core = self.lasting_core();
        let task = Box::pin(ring::receive(core, peer, tag, Out(to), room));
        Ok(self.engine.start(core, Lane::Receive(peer), task))
    }

    fn check_peer(&self, peer: usize, buffer: *const u8, len: usize) -> Result<()> {
        self.refuse_copy()?;
        if peer >= self.size() {
            return Err(Error::OutOfRange { what: "peer", value: peer, limit: self.size() });
        }
        if peer == self.rank() {
            return Err(Error::Invalid("a message to oneself: the peer is this rank"));
        }
        if len > isize::MAX as usize || (buffer.is_null() && len > 0) {
            return Err(Error::Invalid("a null buffer, or a length that no memory has"));
        }
        Ok(())
    }

    /// Whether a request is done; `Some` has the bytes received, 0 for anything but a receive. A request that is
    /// done, well or not, is forgotten.
    ///
    /// # Errors
    /// What ended the operation.
    pub fn test(&mut self, request: Request) -> Result<Option<u64>> {
        self.refuse_copy()?;
        self.engine.test(&self.core, request)
    }

    /// Waits until a request is done, see [`Comm::test`].
    ///
    /// # Errors
    /// What ended the operation.
    pub fn wait(&mut self, request: Request) -> Result<u64> {
        self.refuse_copy()?;
        self.engine.wait(&self.core, request)
    }

    /// Waits for a request, but not much longer than `limit`, see [`Comm::test`]: for callers that have something to look at meanwhile.
    ///
    /// # Errors
    /// What ended the operation.
    pub fn wait_for(&mut self, request: Request, limit: Duration) -> Result<Option<u64>> {
        self.refuse_copy()?;
        self.engine.wait_for(&self.core, request, limit)
    }

    /// Ends the communicator for all members at once, as after a fault, also for those who have not yet left an operation that this
    /// rank has. What was already sent can still be received. Requests of this rank that are not done have failed, and their buffers
    /// are no longer used.
    ///
    /// # Errors
    /// `Invalid` in a forked child.
    pub fn abort(&mut self) -> Result<()> {
        self.refuse_copy()?;
        self.engine.abandon(&self.core, &Error::PeerLost { rank: self.rank() });
        Ok(())
    }
}
