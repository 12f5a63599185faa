//! The one module that knows the FUSE crate: turns requests into calls of [`crate::fs::Fs`] and results into replies.
//!
//! ```text
//!   fuse         how a mount is made and ended
//!   front        what every request goes through: who waits for it, on which thread it runs, how it is answered
//!   operations   one method per FUSE operation
//!   listing      directories: names that fit, and what becomes of those that do not
//!   locking      which kind a lock request is of, and how it waits
//!   convert      attributes, times and kinds in the crate's words
//! ```
//! Reads of data are handed over without blocking; everything else runs on worker threads, because a backend that hangs
//! must not stop the thread that takes requests.

mod convert;
mod front;
mod listing;
mod locking;
mod operations;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fuser::{Config, INodeNo, MountOption, Notifier, SessionACL};
use rustix::fs::{Mode, OFlags, openat};

use crate::config::LockMode;
use crate::fs::Fs;
use crate::waiting::Waiting;
use front::Front;

/// What a mount is to be like for the kernel.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Root: all users, permissions checked by the kernel and the backend.
    pub service: bool,
    /// Bypass the page cache.
    pub direct: bool,
    /// How long names and attributes may be cached by the kernel.
    pub attribute_timeout: Duration,
    /// `soft`: EIO after this time.
    pub soft: Option<Duration>,
    /// A silent backend's attributes of a cached file are replaced by the last known ones after this time.
    pub substitute_after: Duration,
    /// Which locks go to the backend.
    pub locks: LockMode,
    /// Name shown in the mount table.
    pub source: String,
}

/// How long the kernel may take to end a connection that nobody uses.
const LAST_CLOSE: Duration = Duration::from_millis(250);

/// A mounted file system. Dropping it unmounts.
pub struct Mounted {
    session: Option<fuser::BackgroundSession>,
    waiting: Arc<Waiting>,
    /// Minor device number, which names the connection in sysfs.
    device: Option<u32>,
}

/// Mounts.
///
/// # Errors
/// When the kernel or fusermount3 refuses.
pub fn mount(fs: Arc<Fs>, mountpoint: &Path, options: MountOptions) -> io::Result<Mounted> {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(options.source.clone()),
        MountOption::Subtype("migshare".into()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::DefaultPermissions,
    ];
    config.acl = if options.service { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(1);
    let direct = options.direct;
    let front = Front::new(Arc::clone(&fs), options)?;
    let waiting = Arc::clone(&front.waiting);
    let session = fuser::Session::new(front, mountpoint, &config)?.spawn()?;
    relieve(Arc::downgrade(&fs), session.notifier(), mountpoint.to_owned())?;
    let device = crate::sidecar::device_of(mountpoint);
    if widen_read_ahead(device).is_err() && !direct {
        fs.read_ahead();
    }
    Ok(Mounted { session: Some(session), waiting, device })
}

/// Asks the kernel to forget names when it knows too many. A thread of its own, because the kernel locks the directory for it,
/// and whoever has it locked may be waiting for an answer from here.
fn relieve(fs: Weak<Fs>, notifier: Notifier, mountpoint: PathBuf) -> io::Result<()> {
    let run = move || {
        let mut refused = false;
        while let Some(fs) = fs.upgrade() {
            let surplus = fs.surplus();
            for known in surplus.names {
                let _ = notifier.inval_entry(INodeNo(known.parent), &known.name);
            }
            drop(fs);
            if surplus.unused
                && !refused
                && let Err(error) = drop_unused_names(&mountpoint)
            {
                refused = true;
                tracing::warn!(
                    "{} has more directories in use than a quarter of the open files limit, and the kernel forgets none for us ({error}): raise ulimit -n",
                    mountpoint.display()
                );
            }
        }
    };
    std::thread::Builder::new().name("relieve".into()).spawn(run).map(drop)
}

/// Makes the kernel forget all names of a mount that nobody uses: it does so whenever a file system is configured anew, here
/// with nothing changed. Only root may.
fn drop_unused_names(mountpoint: &Path) -> io::Result<()> {
    use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fspick};
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW;
    let mount = fspick(rustix::fs::CWD, mountpoint, flags)?;
    Ok(fsconfig_reconfigure(mount)?)
}

/// Buffered sequential reads come in pieces of the read-ahead window, 128 KiB unless it is widened. Only root may, and not in
/// every container.
fn widen_read_ahead(device: Option<u32>) -> io::Result<()> {
    let device = device.ok_or(io::ErrorKind::NotFound)?;
    std::fs::write(format!("/sys/class/bdi/0:{device}/read_ahead_kb"), "1024")
}

/// Takes a mount out of the tree, also while files are open; without root by fusermount3.
pub(crate) fn detach(mountpoint: &Path) {
    if nix::mount::umount2(mountpoint, nix::mount::MntFlags::MNT_DETACH).is_err() {
        let lazily = ["-u", "-z", "--"];
        let _ = std::process::Command::new("fusermount3").args(lazily).arg(mountpoint).status();
    }
}

/// Makes the kernel refuse all requests of a connection. Containers may have no sysfs with connections; root sees them anyway,
/// in a mount that has no place in the tree.
fn abort(device: u32) -> io::Result<()> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let shown = Path::new("/sys/fs/fuse/connections").join(device.to_string());
    if shown.exists() {
        return std::fs::write(shown.join("abort"), "1");
    }
    let connections = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&connections)?;
    let connections =
        fsmount(&connections, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    let file =
        openat(connections, format!("{device}/abort"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, b"1")?;
    Ok(())
}

impl Mounted {
    /// Minor number of its device.
    pub fn device(&self) -> Option<u32> {
        self.device
    }

    /// Whether the kernel ended the session: somebody unmounted.
    pub fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(|s| s.guard.is_finished())
    }

    /// Unmounts, also while files are open or requests hang.
    pub fn unmount(mut self, mountpoint: &Path) {
        let Some(session) = self.session.take() else { return };
        detach(mountpoint);
        // Files that are still open keep the connection, and a thread that waits in the kernel of a dead backend may keep this
        // process: neither must keep the callers, so what is still under way ends now, with ECONNABORTED, and what comes later,
        // when nobody here listens any more, is refused by the kernel.
        self.waiting.close();
        let start = Instant::now();
        while !session.guard.is_finished() && start.elapsed() < LAST_CLOSE {
            std::thread::sleep(LAST_CLOSE / 50);
        }
        if let Some(device) = self.device.filter(|_| !session.guard.is_finished())
            && let Err(error) = abort(device)
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            tracing::warn!(
                "FUSE connection {device} cannot be cut off ({error}): who has files open on {} may wait for the backend",
                mountpoint.display()
            );
        }
        drop(session);
    }
}
