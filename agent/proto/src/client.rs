//! The blocking client. It is made for the inside of slurmstepd: no thread, and one deadline for everything.

use crate::codec::{self, CodecError};
use crate::message::{ErrorReply, Hello, Refused, Reply, Request};
use crate::{PROTOCOL, PROTOCOL_MIN};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Refused, agent away and broken: three different answers.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the agent did not answer in time.
    #[error("no agent answers at {path}: {cause}")]
    Away {
        /// The socket.
        path: String,
        /// What the system said.
        cause: String,
    },
    /// The agent works, and says no.
    #[error("{}", .0.text)]
    Refused(Refused),
    /// The agent answered that it cannot serve.
    #[error("agent: {}", .0.text)]
    Broken(ErrorReply),
    /// The answer was not one that belongs to the request.
    #[error("the agent's answer makes no sense: {0}")]
    Nonsense(String),
}

/// A connection to the agent after the hello.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<Limited>,
    path: String,
    /// What the agent said of itself.
    pub agent: Hello,
}

impl Client {
    /// Connects and says hello. All calls of this client together take at most `patience`.
    ///
    /// A unix connect blocks while the agent's backlog is full, so it is tried without blocking until the deadline.
    pub fn connect(path: &Path, program: &str, patience: Duration) -> Result<Client, ClientError> {
        let deadline = Instant::now() + patience;
        let name = path.display().to_string();
        let away = |e: std::io::Error| ClientError::Away { path: name.clone(), cause: e.to_string() };
        let stream = connect_until(path, deadline).map_err(away)?;
        let agent = Hello { protocol: 0, oldest: 0, program: String::new() };
        let mut client = Client { stream: BufReader::new(Limited { stream, deadline }), path: name, agent };
        let hello = Hello { protocol: PROTOCOL, oldest: PROTOCOL_MIN, program: program.to_owned() };
        match client.ask(&Request::Hello(hello))? {
            Reply::Hello(agent) => client.agent = agent,
            other => return Err(ClientError::Nonsense(format!("{other:?} to hello"))),
        }
        Ok(client)
    }

    /// Sends one request and waits for its reply. Refusals and errors come as [`ClientError`].
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        let line = codec::encode(request).map_err(|e| ClientError::Nonsense(e.to_string()))?;
        self.stream.get_mut().write_all(&line).map_err(|e| self.away(e.to_string()))?;
        match codec::read(&mut self.stream) {
            Ok(Reply::Refused(r)) => Err(ClientError::Refused(r)),
            Ok(Reply::Error(e)) => Err(ClientError::Broken(e)),
            Ok(reply) => Ok(reply),
            Err(CodecError::Io(e)) => Err(self.away(e.to_string())),
            Err(CodecError::Closed) => Err(self.away("it hung up".to_owned())),
            Err(e) => Err(ClientError::Nonsense(e.to_string())),
        }
    }

    fn away(&self, cause: String) -> ClientError {
        ClientError::Away { path: self.path.clone(), cause }
    }
}

/// A stream whose every read and write ends at the deadline.
#[derive(Debug)]
struct Limited {
    stream: UnixStream,
    deadline: Instant,
}

impl Limited {
    /// Time left; an error when none is.
    fn left(&self) -> std::io::Result<Duration> {
        left(self.deadline)
    }
}

impl Read for Limited {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(into).map_err(plain_timeout)
    }
}

impl Write for Limited {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(from).map_err(plain_timeout)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The kernel says "Resource temporarily unavailable" when a socket time-out runs out: say what it means.
fn plain_timeout(e: std::io::Error) -> std::io::Error {
    if e.kind() == std::io::ErrorKind::WouldBlock { timed_out() } else { e }
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")
}

fn left(deadline: Instant) -> std::io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A zero time-out would mean "for ever" to the kernel.
    if left < Duration::from_millis(1) { Err(timed_out()) } else { Ok(left) }
}

/// Connects without ever blocking in connect(2): a full backlog answers EAGAIN, and is tried again until the deadline.
fn connect_until(path: &Path, deadline: Instant) -> std::io::Result<UnixStream> {
    use nix::errno::Errno;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;

    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EAGAIN) => std::thread::sleep(left(deadline)?.min(BACKLOG_PAUSE)),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Pause between two tries while the agent's backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(5);
