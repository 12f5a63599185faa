//! Puts the parts together: one cache, its mounts, the housekeeping, and the end of it all.

mod house;
mod janitor;
mod service;
mod writing;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use thiserror::Error;

pub(crate) use janitor::device_of;
pub use janitor::wait_and_clean;

use house::{House, Keeper};
use janitor::Janitor;

use crate::cache::{Cache, CacheDirError, FileStore};
use crate::config::{Config, ConfigError, LockMode, MountConfig};
use crate::dirty::JournalError;
use crate::feedback::Watch;
use crate::fs::writes::Finished;
use crate::fs::{Engines, Fs, Identity, ReadPath, ReadSettings, WriteBack, probe_locks};
use crate::fuse::{MountOptions, Mounted, mount};
use crate::io::Engine;
use crate::metrics::{self, Source};
use crate::mounts::{Mount, Root, mount_of};
use crate::policy::WindowConfig;

/// Threads of the blocking engine.
const READ_THREADS: usize = 64;
const TICK: Duration = Duration::from_millis(200);

/// Why the sidecar cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheDirError),
    /// FUSE is not there.
    #[error("{0}: load the fuse module and allow access to /dev/fuse (in a container: --device /dev/fuse)")]
    NoFuse(io::Error),
    /// The mount was refused.
    #[error(
        "cannot mount at {at} (without root, /dev/fuse must be open to users and fusermount3 of package fuse3 installed)"
    )]
    Mount {
        /// The mount point.
        at: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The address for metrics is taken or not of this machine.
    #[error(
        "--metrics-listen {address}: cannot listen there; give a free address of this machine, as in 127.0.0.1:9847"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// Dirty data of an earlier mount.
    #[error("the dirty data in {journal}")]
    Journal {
        /// Where it is.
        journal: PathBuf,
        /// What is wrong with it.
        source: JournalError,
    },
    /// Dirty data of an earlier mount cannot get to the backend.
    #[error(
        "an earlier mount with --writes back left dirty data in {journal} that cannot be flushed ({files}); mend that and \
         mount again, mount with --writes back to try on in the background, or give the data up by moving {journal} away"
    )]
    Dirty {
        /// Where it is.
        journal: PathBuf,
        /// The files, with why.
        files: String,
    },
    /// Something else.
    #[error("cannot {what}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// What a sidecar left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Ended {
    /// Nothing: the backend has everything.
    Clean,
    /// Dirty data in a journal, which must not be deleted.
    Dirty,
}

/// A running sidecar.
pub struct Sidecar {
    cache: Arc<Cache<FileStore>>,
    cache_dir: PathBuf,
    cache_size: u64,
    mounts: Vec<Running>,
    metrics_file: Option<PathBuf>,
    keeper: Option<Keeper>,
    janitor: Option<Janitor>,
    metrics_listen: Option<SocketAddr>,
    /// What the metrics are made of, once everything is mounted.
    shown: Arc<Vec<Source>>,
}

struct Running {
    at: PathBuf,
    mounted: Mounted,
    reads: Arc<ReadPath>,
    back: Option<Arc<WriteBack>>,
}

impl Sidecar {
    /// Checks the configuration, opens the cache and mounts everything.
    ///
    /// # Errors
    /// See [`StartError`]. What was mounted before the failure is unmounted.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.mounts.iter().for_each(|mount| janitor::clear_dead(&mount.at));
        let config = config.check()?;
        // Only its presence: without root it is fusermount3 that opens it.
        std::fs::metadata("/dev/fuse").map_err(StartError::NoFuse)?;
        // Every node that the kernel knows holds a descriptor.
        let _ = raise_file_limit();
        let cache = Arc::new(Cache::open(&config.cache.dir, config.cache.size)?);
        let mut sidecar = Self {
            cache,
            cache_dir: config.cache.dir,
            cache_size: config.cache.size,
            mounts: Vec::new(),
            metrics_file: config.metrics_file,
            metrics_listen: config.metrics_listen,
            shown: Arc::default(),
            keeper: None,
            janitor: None,
        };
        for mount in &config.mounts {
            match sidecar.add(mount) {
                Ok(running) => sidecar.mounts.push(running),
                Err(error) => {
                    let _ = sidecar.stop();
                    return Err(error);
                }
            }
        }
        match sidecar.show() {
            Ok(()) => {
                sidecar.post_janitor();
                Ok(sidecar)
            }
            Err(error) => {
                let _ = sidecar.stop();
                Err(error)
            }
        }
    }

    /// Metrics, and the word to the service manager.
    fn show(&mut self) -> Result<(), StartError> {
        let sources = self.mounts.iter().map(|m| Source {
            at: m.at.clone(),
            reads: Arc::clone(&m.reads),
            back: m.back.clone(),
        });
        self.shown = Arc::new(sources.collect());
        let house = House {
            cache: Arc::clone(&self.cache),
            mounts: Arc::clone(&self.shown),
            metrics_file: self.metrics_file.take(),
        };
        let keeper = house.keep().map_err(|source| StartError::Other { what: "start a thread", source })?;
        self.keeper = Some(keeper);
        if let Some(address) = self.metrics_listen {
            let (cache, shown) = (Arc::clone(&self.cache), Arc::clone(&self.shown));
            let bound = metrics::http::serve(address, move || metrics::render(&cache, &shown))
                .map_err(|source| StartError::Listen { address, source })?;
            tracing::info!("metrics at http://{bound}/metrics");
        }
        service::ready(&self.cache, &self.shown)
            .map_err(|source| StartError::Other { what: "start the watchdog's thread", source })
    }

    /// A service is started again by its supervisor and clears up then; a user has nobody.
    fn post_janitor(&mut self) {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let mounts = self.mounts.iter().filter_map(|m| Some((m.mounted.device()?, &*m.at)));
        match Janitor::post(mounts) {
            Ok(janitor) => self.janitor = Some(janitor),
            Err(error) => tracing::warn!("nobody will unmount if this process is killed: {error}"),
        }
    }

    fn add(&self, config: &MountConfig) -> Result<Running, StartError> {
        let other = |what| move |source| StartError::Other { what, source };
        let service = rustix::process::geteuid().is_root();
        let settings = ReadSettings {
            policy: config.policy,
            window: WindowConfig { polite: config.polite, max_backend_bytes: config.max_backend_bytes },
            profile: config.read_profile()?,
            rescue_after: Duration::from_millis(config.rescue_ms),
            hedge_percent: config.hedge_percent,
            ..ReadSettings::default()
        };
        let engines = Engines {
            cache: Engine::local(READ_THREADS).map_err(other("start the cache's read engine"))?,
            backend: Engine::start(READ_THREADS).map_err(other("start the backend's read engine"))?,
        };
        let root = Root::default();
        let below = mount_of(&root, &config.backend).map_err(other("find the mount of the backend"))?;
        let id = below.as_ref().map_or(0, Mount::identity);
        let reads = ReadPath::new(Arc::clone(&self.cache), engines, settings, id)
            .map_err(other("start the read path"))?;
        Watch::find(&root, &config.backend, below.as_ref())
            .start(&reads)
            .map_err(other("watch the way to the backend"))?;
        let identity = if service { Identity::Caller } else { Identity::Own };
        let writes = writing::start(config, &self.cache_dir, self.cache_size, &reads, identity)?;
        let fs = Fs::new(&config.backend, identity, Arc::clone(&reads), writes)
            .map_err(other("open the backend"))?;
        let back = fs.back().cloned();
        check_locks(config);
        let options = MountOptions {
            service,
            direct: config.direct,
            attribute_timeout: Duration::from_millis(config.attributes_ms),
            soft: config.soft(),
            substitute_after: Duration::from_millis(config.rescue_ms),
            locks: config.locks,
            source: config.backend.display().to_string(),
        };
        let mounted = mount(Arc::new(fs), &config.at, options)
            .map_err(|source| StartError::Mount { at: config.at.clone(), source })?;
        tracing::info!(
            "mounted {} at {}, policy {}",
            config.backend.display(),
            config.at.display(),
            config.policy
        );
        Ok(Running { at: config.at.clone(), mounted, reads, back })
    }

    /// Runs until SIGTERM, SIGINT or SIGHUP, or until everything was unmounted from outside. The signals must be
    /// blocked in all threads ([`block_signals`]).
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn run(self) -> io::Result<Ended> {
        let signals =
            SignalFd::with_flags(&ending_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        while signals.read_signal()?.is_none() && !self.mounts.iter().all(|m| m.mounted.is_over()) {
            std::thread::sleep(TICK);
        }
        Ok(self.stop())
    }

    /// Unmounts everything and makes the cache durable, if its device answers.
    pub fn stop(self) -> Ended {
        service::stopping();
        let mut ended = Ended::Clean;
        for running in self.mounts {
            running.mounted.unmount(&running.at);
            if let Some(back) = &running.back
                && writing::finish(back, &running.at) != Finished::Clean
            {
                ended = Ended::Dirty;
            }
            running.reads.close();
        }
        self.keeper.into_iter().for_each(Keeper::end);
        drop(self.janitor);
        ended
    }
}

/// Blocks the signals that [`Sidecar::run`] waits for; to be called before any thread is started.
///
/// # Errors
/// When the kernel refuses.
pub fn block_signals() -> io::Result<()> {
    Ok(ending_signals().thread_block()?)
}

/// The signals that end a sidecar, and a command.
pub fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Says so at the start if the backend refuses the locks that are to be forwarded; programs then see its refusal.
fn check_locks(config: &MountConfig) {
    let backend = File::open(&config.backend);
    if config.locks != LockMode::Local
        && let Ok(backend) = backend
        && let Err((kind, error)) = probe_locks(&backend)
    {
        tracing::warn!(
            "{} refuses {kind} locks ({error}), and so will {}; --locks local keeps locks on this node",
            config.backend.display(),
            config.at.display()
        );
    }
}

fn raise_file_limit() -> nix::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error()))
}
