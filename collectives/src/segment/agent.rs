//! Asks the node's agent for this step's segment: one line of JSON there, one line and a descriptor back.
//!
//! ```text
//!   rank  ── {"segment":{"v":1}}\n ─────────────────────────────────▶  agent
//!   rank  ◀─ {"segment":{"bytes":N,"job":J,"step":S}}\n + SCM_RIGHTS ─  agent     or
//!   rank  ◀─ {"refused":{"reason":"…"}}\n ───────────────────────────  agent
//! ```
//! The agent decides by the cgroup of the peer whose segment it is; nothing here is a credential.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::segment::pass::receive;

/// Names the socket on which the agent hands segments out.
pub const SOCKET_VARIABLE: &str = "MIGSHARE_SEGMENT_SOCKET";
const REQUEST: &[u8] = b"{\"segment\":{\"v\":1}}\n";
const LINE_LIMIT: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// What the agent answers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Segment(Granted),
    Refused { reason: String },
}

/// The segment of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Granted {
    pub(crate) bytes: u64,
    pub(crate) job: u64,
    pub(crate) step: u64,
}

/// Fetches the descriptor of the segment from the socket at `path`. An agent that is being restarted is waited for.
///
/// # Errors
/// A refusal with the agent's reason; a system error when the agent is away or silent for ten seconds.
pub(crate) fn fetch(path: &Path) -> Result<(OwnedFd, Granted)> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match ask(path, deadline) {
            Err(e) if passes(&e, path) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
}

/// Whether this is what a restart of the agent looks like: its socket is missing for a moment, nobody listens, or it is
/// gone before it has answered.
fn passes(error: &Error, path: &Path) -> bool {
    match error {
        Error::System { errno: libc::ECONNREFUSED | libc::EPIPE | libc::ECONNRESET, .. } => true,
        Error::System { errno: libc::ENOENT, .. } => path.parent().is_some_and(Path::is_dir),
        _ => false,
    }
}

fn ask(path: &Path, deadline: Instant) -> Result<(OwnedFd, Granted)> {
    let mut stream = connect(path, deadline)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io("set a timeout"))?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io("set a timeout"))?;
    stream.write_all(REQUEST).map_err(io("ask the agent for the segment"))?;
    let mut line = Vec::new();
    let mut descriptor = None;
    while !line.ends_with(b"\n") && line.len() < LINE_LIMIT {
        let mut part = [0; 512];
        let (got, fd) = receive(&stream, &mut part)?;
        if got == 0 && line.is_empty() {
            return Err(Error::System { what: "read the agent's answer", errno: libc::ECONNRESET });
        }
        if got == 0 {
            break;
        }
        line.extend_from_slice(&part[..got]);
        descriptor = descriptor.or(fd);
    }
    let answer = serde_json::from_slice(&line)
        .map_err(|e| Error::Environment(format!("the agent's answer about the segment is malformed: {e}")))?;
    match (answer, descriptor) {
        (Answer::Refused { reason }, _) => Err(Error::Refused(reason)),
        (Answer::Segment(granted), Some(fd)) => Ok((fd, granted)),
        (Answer::Segment(_), None) => {
            Err(Error::Environment("the agent's answer came without a descriptor".into()))
        }
    }
}

/// Connects. connect(2) waits without end while an agent that hangs has a full backlog, unless the socket's time-out for sending is
/// set before, which the standard library cannot.
fn connect(path: &Path, deadline: Instant) -> Result<UnixStream> {
    const WHAT: &str = "connect to the agent's segment socket";
    // SAFETY: all-zero is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let name = path.as_os_str().as_bytes();
    // The last byte stays zero.
    if name.len() >= address.sun_path.len() || name.contains(&0) {
        return Err(Error::System { what: WHAT, errno: libc::ENAMETOOLONG });
    }
    address.sun_path.iter_mut().zip(name).for_each(|(to, from)| *to = *from as libc::c_char);
    // SAFETY: numbers only.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(Error::last_os(WHAT));
    }
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    let stream = unsafe { UnixStream::from_raw_fd(socket) };
    // A time-out of nothing would mean none at all.
    let left = deadline.saturating_duration_since(Instant::now()).max(PAUSE);
    stream.set_write_timeout(Some(left)).map_err(io("set a timeout"))?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: an address of this length, which the kernel only reads.
    match unsafe { libc::connect(socket, (&raw const address).cast(), length) } {
        0 => Ok(stream),
        _ => Err(match io(WHAT)(std::io::Error::last_os_error()) {
            Error::System { what, errno: libc::EAGAIN } => Error::System { what, errno: libc::ETIMEDOUT },
            other => other,
        }),
    }
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::System { what, errno: e.raw_os_error().unwrap_or(libc::EIO) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_agent_that_accepts_nobody_is_given_up_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // A backlog of none takes one connection; the next would wait for ever.
        // SAFETY: numbers only, of a socket that lives.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let _first = UnixStream::connect(&path).unwrap();
        let begin = Instant::now();
        let got = connect(&path, begin + Duration::from_millis(50));
        assert!(matches!(got, Err(Error::System { errno: libc::ETIMEDOUT, .. })), "{got:?}");
    }
}
