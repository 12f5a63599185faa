//! Asks the node's agent for this step's segment: one line of JSON there, one line and a descriptor back.
//!
//! ```text
//!   rank  ── {"segment":{"v":1}}\n ─────────────────────────────────▶  agent
//!   rank  ◀─ {"segment":{"bytes":N,"job":J,"step":S}}\n + SCM_RIGHTS ─  agent     or
//!   rank  ◀─ {"refused":{"reason":"…"}}\n ───────────────────────────  agent
//! ```
//! The agent decides by the cgroup of the peer whose segment it is; nothing here is a credential.

use std::io::Write;
use std::os::fd::OwnedFd;
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
        match ask(path) {
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

fn ask(path: &Path) -> Result<(OwnedFd, Granted)> {
    let mut stream = UnixStream::connect(path).map_err(io("connect to the agent's segment socket"))?;
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

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |e| Error::System { what, errno: e.raw_os_error().unwrap_or(libc::EIO) }
}
