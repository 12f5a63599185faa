//! One client's conversation: hello, then requests and replies by turns. Every wait has a limit, and a client holds one line and
//! one reply of memory at most. Nothing here panics on any bytes.

use super::desk::{self, Desk, Pending};
use super::rejections::{Rejections, Why, harmless};
use super::rights;
use crate::driver::{Event, Inbox};
use crate::metrics::Meters;
use crate::segments::Segments;
use crate::wire;
use migshare_proto::codec::{self, LINE_LIMIT};
use migshare_proto::message::{ErrorCode, Hello, Reply, Request};
use migshare_proto::{PROTOCOL, PROTOCOL_MIN};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Time for the hello.
const HELLO: Duration = Duration::from_secs(5);
/// Time for a whole line, from the end of the reply before.
const LINE: Duration = Duration::from_secs(30);
/// Time for a client to take its reply.
const REPLY: Duration = Duration::from_secs(5);
/// Pause after each reply to a client that may only look, and after its end: with its user's few places this bounds how
/// often one user can make the agent draw its picture. Those who start jobs do not wait.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest line of a client that may only look: hello and status are far shorter.
const SHORT_LINE: usize = 4096;
/// Bytes read at once. Small, as idle clients hold it too.
const BUFFER: usize = 1024;

/// Why a conversation ends without a farewell.
struct HungUp;

/// What all conversations are led with.
#[derive(Debug, Clone)]
pub struct Parts {
    inbox: Inbox,
    segments: Arc<Segments>,
    meters: Meters,
    pub(super) rejections: Arc<Rejections>,
}

impl Parts {
    /// The way to the driver, the memory of steps, and what is counted.
    pub fn new(inbox: Inbox, segments: Arc<Segments>, meters: Meters) -> Parts {
        let rejections = Arc::new(Rejections::new(meters.clone()));
        Parts { inbox, segments, meters, rejections }
    }
}

pub(super) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: Arc<OwnedWriteHalf>,
    uid: u32,
    parts: Parts,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, uid: u32, parts: Parts) -> Connection {
        let (reader, writer) = stream.into_split();
        let reader = BufReader::with_capacity(BUFFER, reader);
        Connection { reader, writer: Arc::new(writer), uid, parts }
    }

    /// Talks until the client ends it or breaks a rule. For how long its place is to stay taken.
    pub(super) async fn talk(mut self) -> Duration {
        // Either side may hang up at any point: that is the end, and no error.
        let _ = self.conversation().await;
        self.pause()
    }

    fn pause(&self) -> Duration {
        if rights::is_privileged(self.uid) { Duration::ZERO } else { PAUSE }
    }

    async fn conversation(&mut self) -> Result<Infallible, HungUp> {
        let first = timeout(HELLO, self.line()).await.map_err(|_| HungUp)??;
        let greeting = self.greet(first);
        if let Reply::Error(error) = &greeting {
            let why = if error.code == ErrorCode::Version { Why::Version } else { Why::Malformed };
            self.parts.rejections.add(why, self.uid, &error.text);
        }
        self.send(&greeting).await?;
        let Reply::Hello(Hello { protocol, .. }) = greeting else { return Err(HungUp) };
        loop {
            let line = timeout(LINE, self.line()).await.map_err(|_| HungUp)??;
            let since = Instant::now();
            match line.and_then(|l| codec::decode::<Request>(&l).map_err(|e| e.to_string())) {
                Ok(request) => {
                    let pending = Pending { request: rights::name(&request), protocol, since };
                    self.serve(request, pending).await?;
                    rest(self.pause()).await;
                }
                Err(text) => {
                    self.parts.rejections.add(Why::Malformed, self.uid, &text);
                    // Where a bad line ends the next one is not known to begin.
                    self.send(&wire::error(ErrorCode::Malformed, text)).await?;
                    return Err(HungUp);
                }
            }
        }
    }

    /// The next line, or what is wrong with it.
    async fn line(&mut self) -> Result<Result<Vec<u8>, String>, HungUp> {
        let limit = if rights::is_privileged(self.uid) { LINE_LIMIT } else { SHORT_LINE };
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(limit as u64);
        limited.read_until(b'\n', &mut line).await.map_err(|_| HungUp)?;
        match line.last() {
            Some(b'\n') => Ok(Ok(line)),
            _ if line.len() == limit => Ok(Err(format!("line is longer than {limit} bytes"))),
            _ => Err(HungUp),
        }
    }

    /// The answer to the first line: versions are agreed, or that is the end.
    fn greet(&self, line: Result<Vec<u8>, String>) -> Reply {
        let hello = match line.map(|l| codec::decode::<Request>(&l)) {
            Ok(Ok(Request::Hello(hello))) => hello,
            Ok(Ok(_)) => return wire::error(ErrorCode::Malformed, "the first line must be a hello"),
            Ok(Err(e)) => return wire::error(ErrorCode::Malformed, e.to_string()),
            Err(text) => return wire::error(ErrorCode::Malformed, text),
        };
        let version = hello.protocol.min(PROTOCOL);
        if version < hello.oldest.max(PROTOCOL_MIN) {
            let text = format!(
                "no common protocol: this agent speaks {PROTOCOL_MIN} to {PROTOCOL}, {} speaks {} to {}",
                program(&hello),
                hello.oldest,
                hello.protocol
            );
            return wire::error(ErrorCode::Version, text);
        }
        tracing::debug!(uid = self.uid, program = program(&hello), version, "client");
        let program = concat!("migshared ", env!("CARGO_PKG_VERSION")).to_owned();
        Reply::Hello(Hello { protocol: version, oldest: PROTOCOL_MIN, program })
    }

    /// Answers one request.
    async fn serve(&mut self, request: Request, pending: Pending) -> Result<(), HungUp> {
        let rest = match request {
            // Those that a job's launch waits for, and that leave nothing to do behind the reply.
            Request::OpenLease(_) | Request::Grant(_) | Request::JobLeaves(_)
                if rights::may(self.uid, &request) =>
            {
                self.hand_over(request, pending).await?
            }
            request => {
                let reply = self.answer(request).await?.for_protocol(pending.protocol);
                let own = pending.since.elapsed();
                self.send(&reply).await?;
                pending.answered(own, &self.parts.meters);
                return Ok(());
            }
        };
        self.write(&rest).await
    }

    /// Lets the driver answer the client itself. What the client has not taken of the reply.
    async fn hand_over(&mut self, request: Request, pending: Pending) -> Result<Vec<u8>, HungUp> {
        let Some(ask) = wire::ask(request) else {
            return Ok(desk::line(&wire::error(ErrorCode::Internal, "a request without an answer")));
        };
        let (desk, rest) = Desk::new(Arc::clone(&self.writer), self.parts.meters.clone(), pending);
        self.parts.inbox.send(Event::Ask(ask, Box::new(desk)));
        Ok(self.wait(rest).await?.unwrap_or_else(|| desk::line(&stopping())))
    }

    async fn answer(&mut self, request: Request) -> Result<Reply, HungUp> {
        if !rights::may(self.uid, &request) {
            let text = format!("user {} may not ask {}: only root may", self.uid, rights::name(&request));
            self.parts.rejections.add(Why::Permission, self.uid, &text);
            return Ok(wire::error(ErrorCode::Permission, text));
        }
        match request {
            Request::Hello(_) => Ok(wire::error(ErrorCode::Malformed, "hello was said already")),
            Request::Status(_) => {
                let (sender, receiver) = oneshot::channel();
                self.parts.inbox.send(Event::Status(sender));
                let Some(mut status) = self.wait(receiver).await? else { return Ok(stopping()) };
                status.segments = Some(self.parts.segments.status());
                Ok(Reply::Status(status))
            }
            Request::OpenSegment(asked) => Ok(self.parts.segments.promise(&asked)),
            other => {
                let (sender, receiver) = oneshot::channel();
                let Some(event) = event(other.clone(), sender) else {
                    return Ok(wire::error(ErrorCode::Internal, "a request without an answer"));
                };
                self.parts.inbox.send(event);
                let reply = self.wait(receiver).await?.unwrap_or_else(stopping);
                self.end_segments(&other, &reply);
                Ok(reply)
            }
        }
    }

    /// A segment ends with the grant or lease that it goes with.
    fn end_segments(&self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Release(grant), Reply::Done(_)) => self.parts.segments.released(grant),
            (Request::CloseLease(lease), Reply::Done(_)) => self.parts.segments.closed(lease),
            _ => {}
        }
    }

    /// Waits for the driver, and gives up when the client does. None: the driver is gone.
    async fn wait<T>(&mut self, mut answer: oneshot::Receiver<T>) -> Result<Option<T>, HungUp> {
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer.ok()),
            more = self.reader.fill_buf() => if more.map_err(|_| HungUp)?.is_empty() {
                return Err(HungUp);
            },
        }
        // The client has sent its next line already; it stays in the buffer.
        Ok(answer.await.ok())
    }

    async fn send(&self, reply: &Reply) -> Result<(), HungUp> {
        self.write(&desk::line(reply)).await
    }

    async fn write(&self, mut line: &[u8]) -> Result<(), HungUp> {
        let all = async {
            while !line.is_empty() {
                self.writer.writable().await?;
                match self.writer.try_write(line) {
                    Ok(taken) => line = &line[taken..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        };
        match timeout(REPLY, all).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(HungUp),
        }
    }
}

/// Sleeps, if at all: the runtime's timer counts whole milliseconds, so that a sleep of nothing takes one.
pub(super) async fn rest(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// The event for a request that has a reply of its own.
fn event(request: Request, reply: oneshot::Sender<Reply>) -> Option<Event> {
    match request {
        Request::Plan(query) => Some(Event::Plan(query, reply)),
        Request::Order(order) => Some(Event::Order(order, reply)),
        Request::Explain(query) => Some(Event::Explain(query.job, reply)),
        other => wire::ask(other).map(|ask| Event::Ask(ask, Box::new(reply))),
    }
}

fn stopping() -> Reply {
    wire::error(ErrorCode::Busy, "the agent is stopping")
}

/// A client's name for the log.
fn program(hello: &Hello) -> String {
    harmless(&hello.program, 64)
}
