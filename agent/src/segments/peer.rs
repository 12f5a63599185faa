//! Who is at the other end: the process that connected, held fast so that its pid cannot come to mean another one.
//!
//! The kernel notes pid and user at connect(2). With SO_PEERPIDFD (Linux 6.5) it also gives a pidfd of exactly that process.
//! Before 6.5 the pid is opened when the connection is accepted, and a process that was born after that is not taken for
//! the peer; what is left is a pid that is used again between connect and accept, by a process of the same user.
//! What is read of the process in /proc counts only if it still runs afterwards ([`Peer::runs`]).

use crate::process;
use migshare_policy::record::Holder;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};

/// The process at the other end.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
    process: Holder,
    /// None on kernels without pidfd (before 5.3): then the start time alone tells.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// The peer of a connection that was just accepted. None when it is gone, or not to be seen from here.
    pub(super) fn of(stream: &impl AsFd) -> Option<Peer> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials).ok()?;
        let pid = u32::try_from(credentials.pid()).ok().filter(|pid| *pid > 0)?;
        let pidfd = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(fd) => Some(fd),
            Err(nix::errno::Errno::ENOPROTOOPT) => pin(pid)?,
            Err(_) => return None,
        };
        let process = process::holder(pid);
        let peer = Peer { pid, uid: credentials.uid(), process, pidfd };
        peer.runs().then_some(peer)
    }

    /// Whether it runs still, so that what was read under its pid was about it.
    pub(super) fn runs(&self) -> bool {
        let ended = self.pidfd.as_ref().is_some_and(|fd| {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO) != Ok(0)
        });
        !ended && process::is_alive(self.process)
    }
}

/// Opens a process that was there before now. The outer `None`: there is no such process.
fn pin(pid: u32) -> Option<Option<OwnedFd>> {
    let accepted = process::ticks_since_boot();
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(fd) => Some(fd),
        Err(rustix::io::Errno::NOSYS) => None,
        Err(_) => return None,
    };
    (process::holder(pid).born <= accepted).then_some(pidfd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    #[test]
    fn this_process_is_the_peer_of_its_own_socket() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert!(peer.runs());
    }

    #[test]
    fn a_peer_that_has_ended_is_nobody_also_when_its_socket_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        // The child of the one that connects inherits the connection and keeps it open.
        let script = "import os,socket,sys\nc=socket.socket(socket.AF_UNIX)\nc.connect(sys.argv[1])\n\
                      if os.fork():\n os._exit(0)\nprint('up',flush=True)\nc.recv(1)";
        let mut child = Command::new("python3");
        let child = child.args(["-c", script]).arg(&path).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut up = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        child.wait().unwrap();
        assert!(Peer::of(&stream).is_none());
        drop(stream);
    }

    #[test]
    fn a_pid_is_pinned_only_to_a_process_that_was_there_before() {
        assert!(pin(std::process::id()).is_some_and(|fd| fd.is_some()));
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert!(pin(gone.id()).is_none());
    }
}
