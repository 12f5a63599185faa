//! One direction of data between two processes: `sendComm` or `recvComm`, its requests and its memory.

use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use migshare_collectives::{Comm, Request, is_readable_from_outside};

use crate::abi::{MAX_REQUESTS, NcclResult, PTR_HOST};
use crate::guard::Failure;

/// A connection; requests keep it alive.
pub(crate) struct Channel {
    comm: Mutex<Comm>,
    peer: usize,
    in_flight: AtomicUsize,
}

/// What `regMr` answers: whether the peer may read the memory itself.
pub(crate) struct Memory {
    readable: bool,
}

/// What `isend` and `irecv` answer.
pub(crate) struct Pending {
    channel: Arc<Channel>,
    request: Request,
    /// A send reports its own length.
    sent: Option<usize>,
}

impl Channel {
    pub(crate) fn new(comm: Comm, peer: usize) -> Self {
        Self { comm: Mutex::new(comm), peer, in_flight: AtomicUsize::new(0) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Comm) -> T) -> T {
        work(&mut self.comm.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether one more request fits; NCCL comes again if not.
    fn has_room(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) < MAX_REQUESTS
    }

    fn pending(self: &Arc<Self>, request: Request, sent: Option<usize>) -> Pending {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Pending { channel: Arc::clone(self), request, sent }
    }

    /// # Safety
    /// `data` holds `len` bytes until the request is done.
    pub(crate) unsafe fn send(
        self: &Arc<Self>,
        data: *const u8,
        len: usize,
        memory: Option<&Memory>,
    ) -> Result<Option<Pending>, Failure> {
        if !self.has_room() {
            return Ok(None);
        }
        let staged = !memory.is_some_and(|memory| memory.readable);
        // SAFETY: passed on.
        let request = self.with(|comm| unsafe { comm.start_send_from(self.peer, 0, data, len, staged) })?;
        Ok(Some(self.pending(request, Some(len))))
    }

    /// # Safety
    /// `data` has room for `len` bytes until the request is done.
    pub(crate) unsafe fn receive(
        self: &Arc<Self>,
        data: *mut u8,
        len: usize,
    ) -> Result<Option<Pending>, Failure> {
        if !self.has_room() {
            return Ok(None);
        }
        // SAFETY: passed on.
        let request = self.with(|comm| unsafe { comm.start_receive(self.peer, 0, data, len) })?;
        Ok(Some(self.pending(request, None)))
    }

    /// The peer learns that nothing more will come or be taken.
    pub(crate) fn close(&self) {
        // A forked child has no peer to tell.
        let _ = self.with(Comm::abort);
    }
}

impl Pending {
    /// The length if the request is done.
    pub(crate) fn test(&self) -> Result<Option<usize>, Failure> {
        let done = self.channel.with(|comm| comm.test(self.request))?;
        Ok(done.map(|received| self.sent.unwrap_or(received as usize)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.channel.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Memory {
    /// # Errors
    /// Refuses anything but host memory.
    pub(crate) fn register(data: *const u8, len: usize, kind: c_int) -> Result<Self, Failure> {
        if kind != PTR_HOST {
            return Err(Failure::new(NcclResult::InvalidUsage, "only host memory can be registered"));
        }
        let last = data.wrapping_add(len.saturating_sub(1));
        Ok(Self { readable: is_readable_from_outside(data) && is_readable_from_outside(last) })
    }
}
