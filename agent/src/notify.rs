//! Tells the service manager how the agent is, by the protocol of sd_notify(3): one datagram per message. Without `NOTIFY_SOCKET`
//! nothing happens.

use crate::segments::rights;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager.
#[derive(Debug)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// Takes the address from the environment of this process.
    pub fn from_env() -> Notifier {
        Notifier::to(std::env::var("NOTIFY_SOCKET").ok().as_deref())
    }

    /// A path, or an abstract name behind '@'.
    fn to(address: Option<&str>) -> Notifier {
        let open = |address: &str| -> std::io::Result<(UnixDatagram, SocketAddr)> {
            let to = match address.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(address)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok((socket, to))
        };
        Notifier(address.and_then(|a| match open(a) {
            Ok(pair) => Some(pair),
            Err(error) => {
                tracing::warn!(address = a, %error, "cannot tell the service manager anything");
                None
            }
        }))
    }

    /// The agent serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The agent goes.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The agent lives.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for people, shown by `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Asks the service manager to hold a file for the next agent, under a name of letters, digits, '-' and '.'.
    /// It does so where the unit has FileDescriptorStoreMax= (sd_pid_notify_with_fds(3)).
    ///
    /// There is no waiting for it to be taken (`BARRIER=1`): the queued message itself holds the file, and systemd reads messages
    /// before it looks for ended processes, so that those of an agent that dies now are still the unit's. Where it takes none, the
    /// next agent finds the file among the ranks'. A wait would stop the answers to ranks whenever the service manager is busy.
    pub fn keep(&self, name: &str, file: BorrowedFd<'_>) {
        let Some((_, to)) = &self.0 else { return };
        let message = format!("FDSTORE=1\nFDNAME={name}");
        if let Err(error) = send_with_file(to, message.as_bytes(), file) {
            tracing::warn!(name, %error, "the service manager does not take a file");
        }
    }

    /// The file of this name is not needed any more.
    pub fn forget(&self, name: &str) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"));
    }

    fn send(&self, message: &str) {
        if let Some((socket, to)) = &self.0
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            tracing::warn!(message, %error, "the service manager does not listen");
        }
    }
}

fn send_with_file(to: &SocketAddr, message: &[u8], file: BorrowedFd<'_>) -> std::io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(to)?;
    rights::send(&socket, message, file)?;
    Ok(())
}

/// How often the service manager wants to hear that the agent lives: half of `WATCHDOG_USEC`, if that is meant for this process.
pub fn watchdog_interval() -> Option<Duration> {
    let for_me = std::env::var("WATCHDOG_PID").ok().is_none_or(|pid| pid == std::process::id().to_string());
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (for_me && micros > 0).then(|| Duration::from_micros(micros / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_socket_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("migshare-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (listener, address) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            Notifier::to(Some(&address)).ready();
            let mut buffer = [0; 64];
            let n = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"READY=1");
        }
    }

    #[test]
    fn without_an_address_nothing_happens() {
        Notifier::to(None).ready();
    }
}
