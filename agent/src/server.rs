//! The agent's socket. Anybody may connect: the kernel says who it is (SO_PEERCRED), a table says what they may ask, and limits
//! keep whatever they do from harming others.
//!
//! ```text
//!  accept -> room for this user? -> hello within 5 s -> { line within 30 s -> may they? -> driver -> reply within 5 s -> pause }*
//! ```
//!
//! It decides nothing about leaves and keeps no state of a client but its connection. It runs on the driver's thread, so that while the disk
//! takes its time clients wait for their hello as well as for their replies; the kernel keeps those who connect.

mod connection;
mod desk;
mod door;
mod rejections;
pub mod rights;

use connection::Connection;
pub use connection::Parts;
use door::Door;
use rejections::Why;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the socket, open to all users; it does not block. A stale one, left by an agent that was killed, is replaced; one that is
/// answered is not.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    // A service manager may start the agent with a umask that would shut users out.
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        std::fs::create_dir_all(dir)?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves clients for ever. To be run where the driver runs.
pub async fn serve(listener: UnixListener, parts: Parts) {
    let door = Arc::new(Door::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                admit(stream, &door, &parts);
                // Turn about: a flood of clients must not keep those inside waiting.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Begins a conversation, or hangs up where there is no room for this user.
fn admit(stream: UnixStream, door: &Arc<Door>, parts: &Parts) {
    let peer = match stream.peer_cred() {
        Ok(peer) => peer,
        Err(error) => return tracing::warn!(%error, "client without credentials"),
    };
    let Some(place) = Door::enter(door, peer.uid()) else {
        return parts.rejections.add(Why::Crowded, peer.uid(), "no room for another client of this user");
    };
    let connection = Connection::new(stream, peer.uid(), parts.clone());
    tokio::spawn(async move {
        let unhurried = connection.talk().await;
        connection::rest(unhurried).await;
        drop(place);
    });
}
