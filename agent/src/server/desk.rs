//! Where the reply to one request goes. The driver writes it to the client as soon as the records behind it are durable: the server's turn
//! comes only when the driver has nothing left to do.
//!
//! ```text
//!   line read whole --> driver: answer, fsync --> reply written --> server: what the socket did not take at once, and the next line
//!   |---------- the agent's own time --------|
//! ```
//! The agent's own time is a metric and a debug event. It ends where the reply is handed to the kernel: that very call wakes the client,
//! which may run before the call returns. While the thread is busy with others' requests a line waits in its socket: that is in
//! its client's wait and not in here.
//!
//! It never blocks: what a socket does not take at once is left to the server.

use crate::driver::Asker;
use crate::metrics::Meters;
use crate::wire;
use migshare_proto::Reply;
use migshare_proto::codec;
use migshare_proto::message::ErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::oneshot;

/// A request whose answer is awaited.
#[derive(Debug)]
pub(super) struct Pending {
    /// What to call it.
    pub(super) request: &'static str,
    /// The protocol that was agreed with the client.
    pub(super) protocol: u32,
    /// When its line was read whole.
    pub(super) since: Instant,
}

/// The client's end of the driver.
#[derive(Debug)]
pub(super) struct Desk {
    writer: Arc<OwnedWriteHalf>,
    meters: Meters,
    pending: Pending,
    rest: oneshot::Sender<Vec<u8>>,
}

impl Desk {
    /// A desk, and what comes when the reply was written: the bytes that the client did not take yet.
    pub(super) fn new(
        writer: Arc<OwnedWriteHalf>,
        meters: Meters,
        pending: Pending,
    ) -> (Desk, oneshot::Receiver<Vec<u8>>) {
        let (rest, receiver) = oneshot::channel();
        (Desk { writer, meters, pending, rest }, receiver)
    }
}

impl Asker for Desk {
    fn answer(self: Box<Self>, reply: Reply) {
        let mut line = line(&reply.for_protocol(self.pending.protocol));
        let own = self.pending.since.elapsed();
        // A client that is slow or gone is the server's matter.
        let taken = self.writer.try_write(&line).unwrap_or(0);
        let _ = self.rest.send(line.split_off(taken));
        self.pending.answered(own, &self.meters);
    }

    fn is_gone(&self) -> bool {
        self.rest.is_closed()
    }
}

impl Pending {
    /// Tells the agent's own time for this request.
    pub(super) fn answered(&self, own: Duration, meters: &Meters) {
        meters.request(self.request, own);
        let own_us = own.as_nanos() as f64 / 1e3;
        tracing::debug!(request = self.request, own_us, "request answered");
    }
}

/// The line for a reply.
pub(super) fn line(reply: &Reply) -> Vec<u8> {
    let line =
        codec::encode(reply).or_else(|e| codec::encode(&wire::error(ErrorCode::Internal, e.to_string())));
    line.unwrap_or_default()
}
