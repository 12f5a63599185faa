//! How two processes come to share a segment.
//!
//! ```text
//!   receiver  listen ── handle (host, nonce) ──▶ NCCL carries it ──▶ sender
//!   sender    connect: abstract unix socket of the nonce ── memfd ──▶ receiver: accept
//!   both      join the segment as ranks 0 and 1, each on a thread of its own
//! ```
//! `connect` and `accept` must not block: they start the thread and look at it in later calls.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use migshare_collectives::segment::pass;
use migshare_collectives::{Comm, Error, Options, Segment};

use crate::abi::{HANDLE_BYTES, NcclResult};
use crate::channel::Channel;
use crate::guard::Failure;

const MAGIC: u64 = 0x6d69_6773_6861_7265;
/// One ring of 256 KiB each way and the control lines; memory is taken where it is touched.
const SEGMENT_BYTES: u64 = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request waits for a peer that lives and does nothing, in milliseconds.
const TIMEOUT_VARIABLE: &str = "MIGSHARE_NET_TIMEOUT_MS";
/// Without that: between two calls of NCCL a GPU may compute for long. A dead peer is noticed at once regardless.
const IDLE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const SENDER: usize = 0;
const RECEIVER: usize = 1;

type Joining = JoinHandle<Result<Comm, Error>>;

/// What NCCL carries from the receiver to the sender.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    magic: u64,
    host: u64,
    nonce: u64,
}

const _: () = assert!(size_of::<Handle>() <= HANDLE_BYTES);

/// `listenComm`.
pub(crate) struct Listener {
    socket: UnixListener,
    joining: Mutex<Vec<Joining>>,
}

/// Connections that `connect` has begun, by the address and the nonce of the handle.
static CONNECTING: Mutex<Option<HashMap<(usize, u64), Joining>>> = Mutex::new(None);

/// A number of this boot of this node.
fn host() -> u64 {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.bytes().fold(MAGIC, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn address(nonce: u64) -> Result<SocketAddr, Failure> {
    SocketAddr::from_abstract_name(format!("migshare-net-{nonce:016x}")).map_err(|e| io("name a socket", &e))
}

fn io(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(NcclResult::SystemError, format!("cannot {what}: {error}"))
}

pub(crate) fn listen() -> Result<(Handle, Listener), Failure> {
    let mut random = [0; 8];
    // SAFETY: the kernel writes at most eight bytes into `random`.
    unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    let nonce = u64::from_ne_bytes(random);
    let socket = UnixListener::bind_addr(&address(nonce)?).map_err(|e| io("listen", &e))?;
    socket.set_nonblocking(true).map_err(|e| io("listen", &e))?;
    Ok((Handle { magic: MAGIC, host: host(), nonce }, Listener { socket, joining: Mutex::default() }))
}

/// Begins or continues a connection; `None` as long as it is not there.
///
/// # Errors
/// `InvalidUsage` when the peer is on another node.
pub(crate) fn connect(at: usize, handle: Handle) -> Result<Option<Channel>, Failure> {
    if handle.magic != MAGIC {
        return Err(Failure::new(NcclResult::InvalidArgument, "the handle is not one of this plugin"));
    }
    if handle.host != host() {
        let text = "the peer is on another node; jobs on several nodes need another NCCL_NET";
        return Err(Failure::new(NcclResult::InvalidUsage, text));
    }
    let mut guard = CONNECTING.lock().unwrap_or_else(PoisonError::into_inner);
    let connecting = guard.get_or_insert_default();
    let key = (at, handle.nonce);
    match connecting.remove(&key) {
        Some(joining) if joining.is_finished() => finish(joining, RECEIVER).map(Some),
        Some(joining) => {
            connecting.insert(key, joining);
            Ok(None)
        }
        None => {
            let address = address(handle.nonce)?;
            connecting.insert(key, std::thread::spawn(move || join_as_sender(&address)));
            Ok(None)
        }
    }
}

/// One more connection, if one is complete.
pub(crate) fn accept(listener: &Listener) -> Result<Option<Channel>, Failure> {
    let mut joining = listener.joining.lock().unwrap_or_else(PoisonError::into_inner);
    match listener.socket.accept() {
        Ok((stream, _)) if same_user(&stream) => {
            joining.push(std::thread::spawn(move || join_as_receiver(&stream)))
        }
        Ok(_) => {} // a stranger who read the name in /proc/net/unix
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(io("accept a connection", &error)),
    }
    match joining.iter().position(JoinHandle::is_finished) {
        Some(index) => finish(joining.swap_remove(index), SENDER).map(Some),
        None => Ok(None),
    }
}

fn finish(joining: Joining, peer: usize) -> Result<Channel, Failure> {
    match joining.join() {
        Ok(comm) => Ok(Channel::new(comm?, peer)),
        Err(_) => Err(Failure::new(NcclResult::InternalError, "a connecting thread ended by a defect")),
    }
}

fn same_user(stream: &UnixStream) -> bool {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes into `peer`.
    let got = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut len)
    };
    // SAFETY: has no arguments and cannot fail.
    got == 0 && peer.uid == unsafe { libc::geteuid() }
}

fn options() -> Options {
    Options { timeout: CONNECT_TIMEOUT, ..Options::default() }
}

fn lasting(comm: Comm) -> Comm {
    let given = std::env::var(TIMEOUT_VARIABLE).ok().and_then(|text| text.parse().ok());
    comm.set_timeout(given.filter(|&millis| millis > 0).map_or(IDLE_TIMEOUT, Duration::from_millis));
    comm
}

fn join_as_sender(address: &SocketAddr) -> Result<Comm, Error> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let stream = loop {
        match UnixStream::connect_addr(address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => {
                return Err(Error::System {
                    what: "connect to the receiver",
                    errno: error.raw_os_error().unwrap_or(0),
                });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let segment = Segment::create(SEGMENT_BYTES, 2)?;
    let descriptor = segment.descriptor().ok_or(Error::Invalid("segment"))?;
    pass::send(&stream, b"s", descriptor)?;
    Comm::join(&segment, SENDER, &options()).map(lasting)
}

fn join_as_receiver(stream: &UnixStream) -> Result<Comm, Error> {
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(|_| Error::last_os("set a timeout"))?;
    let (_, descriptor) = pass::receive(stream, &mut [0; 1])?;
    let descriptor = descriptor.ok_or(Error::Invalid("the sender sent no segment"))?;
    Comm::join(&Segment::from_descriptor(descriptor, 2)?, RECEIVER, &options()).map(lasting)
}
