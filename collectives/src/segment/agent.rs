//! Asks the node's agent for this step's segment: one line of JSON there, one line and a descriptor back.
//!
//! ```text
//!   rank  ── {"segment":{"v":1}}\n ─────────────────────────────────▶  agent
//!   rank  ◀─ {"segment":{"bytes":N,"job":J,"step":S}}\n + SCM_RIGHTS ─  agent     or
//!   rank  ◀─ {"refused":{"reason":"…"}}\n ───────────────────────────  agent
//! ```
//! The agent decides by the cgroup of the peer whose segment it is; nothing here is a credential.

use std::io::{IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};

/// Names the socket on which the agent hands segments out.
pub const SOCKET_VARIABLE: &str = "MIGSHARE_SEGMENT_SOCKET";
const REQUEST: &[u8] = b"{\"segment\":{\"v\":1}}\n";
const LINE_LIMIT: usize = 4096;
const TIMEOUT: Duration = Duration::from_secs(10);

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

/// Fetches the descriptor of the segment from the socket at `path`.
///
/// # Errors
/// A refusal with the agent's reason; a system error when the agent is away or silent for ten seconds.
pub(crate) fn fetch(path: &Path) -> Result<(OwnedFd, Granted)> {
    let mut stream = UnixStream::connect(path).map_err(io("connect to the agent's segment socket"))?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io("set a timeout"))?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io("set a timeout"))?;
    stream.write_all(REQUEST).map_err(io("ask the agent for the segment"))?;
    let mut line = Vec::new();
    let mut descriptor = None;
    while !line.ends_with(b"\n") && line.len() < LINE_LIMIT {
        let mut part = [0; 512];
        let (got, fd) = receive(&stream, &mut part)?;
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

/// One `recvmsg`: bytes, and a descriptor if one came along.
fn receive(stream: &UnixStream, into: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut slice = IoSliceMut::new(into);
    let mut control = [0_u64; 8];
    // SAFETY: all-zero is a valid msghdr: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = (&raw mut slice).cast();
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header points at live buffers with their true lengths (IoSliceMut is an iovec).
    let got = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| Error::last_os("read the agent's answer"))?;
    Ok((got, first_descriptor(&message)))
}

fn first_descriptor(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel filled the control buffer that `message` describes.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref()? };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return None;
    }
    // SAFETY: an SCM_RIGHTS message carries at least one descriptor, unaligned for an int at worst.
    let raw = unsafe { libc::CMSG_DATA(header).cast::<i32>().read_unaligned() };
    // SAFETY: the kernel installed it for us just now; nobody else knows it.
    Some(unsafe { OwnedFd::from_raw_fd(raw) })
}
