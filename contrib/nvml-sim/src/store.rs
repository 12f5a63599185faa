//! The node's state on disk: one JSON file that readers take whole and that its owner replaces whole.
//!
//! ```text
//!   reader:  open state.json, read                       (no lock: a rename is atomic)
//!   writer:  flock(lock) → read → change → write state.json.new → rename → capability files → unlock
//! ```
//! **Invariants.** A process killed anywhere leaves either the old or the new state; the kernel drops its lock.
//! `lock` belongs to the owner with mode 0600, so that nobody else can take it or wait on it; others read only.
//! Capability files follow the state: a writer that died between both leaves them behind by a generation, and the
//! next owner that opens the store brings them up to date.
//!
//! The state is as volatile as a GPU's: it is not synced to disk, and a reboot of the host counts as a reboot.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use crate::capfs;
use crate::config::Config;
use crate::files::directory;
use crate::machine::{Condition, FORMAT, Gpu, Machine, MigMode, name_uuid};
use crate::process::Pid;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Only the owner of the state directory may change the state.
    #[error("only the owner of {0} or root may change the simulated hardware")]
    NotOwner(PathBuf),
    /// There is no state yet, and this process may not make it.
    #[error("{0} holds no state yet; its owner must run `nvml-sim init` first")]
    NotBooted(PathBuf),
    /// Root does not write where another user can put links.
    #[error("{path} belongs to uid {uid}; root keeps simulated hardware only in directories of its own")]
    ForeignDirectory {
        /// The state directory.
        path: PathBuf,
        /// Who owns it.
        uid: u32,
    },
    /// The state file is not one of this version.
    #[error("{path} is not usable ({why}); remove it to start afresh")]
    Broken {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file operation failed.
    #[error("{0}")]
    Io(PathBuf, #[source] std::io::Error),
}

/// The state of a node.
pub struct Store {
    config: Config,
    owner: bool,
    cache: Mutex<Option<Cached>>,
}

/// A state that was read. Its file stays open so that the inode number cannot come back for a later one.
struct Cached {
    file: File,
    machine: Arc<Machine>,
}

impl Store {
    /// Opens the state of a configuration. The owner boots the node where it is the first, replays a reboot of the
    /// host, and brings the capability files up to date.
    pub fn open(config: Config) -> Result<Store, StoreError> {
        let dir = &config.state;
        directory(dir).map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => StoreError::NotBooted(dir.clone()),
            _ => StoreError::Io(dir.clone(), e),
        })?;
        let uid = std::fs::metadata(dir).map_err(|e| StoreError::Io(dir.clone(), e))?.uid();
        let euid = nix::unistd::geteuid();
        if euid.is_root() && uid != 0 {
            return Err(StoreError::ForeignDirectory { path: dir.clone(), uid });
        }
        let owner = euid.as_raw() == uid;
        let store = Store { config, owner, cache: Mutex::new(None) };
        if owner {
            store.settle()?;
        }
        Ok(store)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this process may change the state.
    pub fn owner(&self) -> bool {
        self.owner
    }

    /// The state as it is now. Takes no lock that another process can hold.
    pub fn snapshot(&self) -> Result<Arc<Machine>, StoreError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.state_file();
        if let Some(cached) = cache.as_ref()
            && same_file(&cached.file, &path)
        {
            return Ok(Arc::clone(&cached.machine));
        }
        let (file, machine) = self.read()?;
        let machine = Arc::new(machine);
        *cache = Some(Cached { file, machine: Arc::clone(&machine) });
        Ok(machine)
    }

    /// Changes the state. Where `change` refuses, nothing changes.
    pub fn update<T, E>(
        &self,
        change: impl FnOnce(&mut Machine) -> Result<T, E>,
    ) -> Result<Result<T, E>, StoreError> {
        let _lock = self.lock()?;
        let before = self.snapshot()?;
        let mut machine = (*before).clone();
        machine.forget_dead(Pid::alive);
        let done = change(&mut machine);
        if done.is_ok() && machine != *before {
            self.write(machine)?;
        }
        Ok(done)
    }

    /// Boots the node again with what its configuration says now; the GPUs keep their UUIDs.
    pub fn reboot(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.reboot_locked()
    }

    fn reboot_locked(&self) -> Result<(), StoreError> {
        let mut old = self.read()?.1;
        for fault in &old.faults {
            fault.disarm(&self.config.state);
        }
        old.reboot();
        let mut machine = boot(&self.config);
        machine.generation = old.generation;
        machine.next_serial += old.next_serial;
        for (n, gpu) in machine.gpus.iter_mut().enumerate() {
            gpu.serial += old.next_serial;
            if let Some(known) = old.gpus.get(n).filter(|known| known.model == gpu.model) {
                gpu.mig = known.mig;
            }
        }
        self.write(machine)
    }

    /// What the owner does on opening: see [`Store::open`].
    fn settle(&self) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        if !self.state_file().exists() {
            return self.write(boot(&self.config));
        }
        let (_, machine) = self.read()?;
        if machine.boot_id == boot_id() { self.show(&machine) } else { self.reboot_locked() }
    }

    fn read(&self) -> Result<(File, Machine), StoreError> {
        let path = self.state_file();
        let mut file = File::open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => StoreError::NotBooted(self.config.state.clone()),
            _ => StoreError::Io(path.clone(), e),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|e| StoreError::Io(path.clone(), e))?;
        let broken = |why: String| StoreError::Broken { path: path.clone(), why };
        let mut machine: Machine = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        if machine.format != FORMAT {
            return Err(broken(format!("format {} instead of {FORMAT}", machine.format)));
        }
        if machine.boot_id != boot_id() {
            machine.reboot();
        }
        Ok((file, machine))
    }

    fn write(&self, mut machine: Machine) -> Result<(), StoreError> {
        machine.generation += 1;
        let path = self.state_file();
        let fresh = path.with_extension("json.new");
        let io = |e| StoreError::Io(fresh.clone(), e);
        let text = serde_json::to_vec_pretty(&machine).map_err(|e| io(e.into()))?;
        let mut file = File::create(&fresh).map_err(io)?;
        file.set_permissions(PermissionsExt::from_mode(0o644)).map_err(io)?;
        file.write_all(&text).map_err(io)?;
        std::fs::rename(&fresh, &path).map_err(io)?;
        let machine = Arc::new(machine);
        let written = Cached { file, machine: Arc::clone(&machine) };
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(written);
        self.show(&machine)
    }

    /// Makes the capability files show this state.
    fn show(&self, machine: &Machine) -> Result<(), StoreError> {
        capfs::show(machine, &self.config.root).map_err(|(path, e)| StoreError::Io(path, e))
    }

    fn lock(&self) -> Result<Flock<File>, StoreError> {
        if !self.owner {
            return Err(StoreError::NotOwner(self.config.state.clone()));
        }
        let path = self.config.state.join("lock");
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(|e| StoreError::Io(path.clone(), e))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(lock),
                Err((same, nix::errno::Errno::EINTR)) => file = same,
                Err((_, errno)) => return Err(StoreError::Io(path, errno.into())),
            }
        }
    }

    fn state_file(&self) -> PathBuf {
        self.config.state.join("state.json")
    }
}

fn same_file(open: &File, path: &Path) -> bool {
    let (Ok(a), Ok(b)) = (open.metadata(), std::fs::metadata(path)) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The node as its configuration describes it, freshly booted.
fn boot(config: &Config) -> Machine {
    let mut machine = Machine {
        format: FORMAT,
        generation: 0,
        boot_id: boot_id(),
        next_serial: 0,
        driver: config.driver.clone(),
        cuda: config.cuda,
        caps_major: config.caps_major,
        gpus: Vec::new(),
        faults: Vec::new(),
    };
    for (n, gpu) in config.gpus.iter().enumerate() {
        let n = n as u32;
        let seed = name_uuid(&format!("{}/{}/{}/{n}", config.node, config.state.display(), gpu.model.alias));
        let digits: String = seed.bytes().map(|b| char::from(b'0' + b % 10)).take(13).collect();
        let serial = machine.serial();
        machine.gpus.push(Gpu {
            serial,
            model: gpu.model.alias.clone(),
            uuid: format!("GPU-{seed}"),
            board: digits,
            bus: 1 + 7 * n,
            minor: n,
            numa_node: gpu.numa_node,
            cpus: gpu.cpus.clone(),
            gi_order: gpu.gi_order,
            mig: MigMode { current: gpu.mig, pending: gpu.mig },
            condition: Condition::Healthy,
            holders: Vec::new(),
            processes: Vec::new(),
            instances: Vec::new(),
        });
    }
    machine
}
