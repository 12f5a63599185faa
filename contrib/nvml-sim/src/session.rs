//! What a process has between `nvmlInit` and `nvmlShutdown`: the open store, and handles.
//!
//! A handle is a number, not a pointer: what it is (GPU, GPU instance, compute instance, MIG device), in which
//! initialisation it was given out, on which GPU, and the serial number of the object. So a handle dies with its object, with
//! a reset and with re-initialisation, and any word that a caller passes can be judged without being followed.

use std::sync::{Arc, Mutex, PoisonError};

use crate::capfs;
use crate::code::{Code, Result};
use crate::config::Config;
use crate::fault::{Effect, Fault};
use crate::machine::{ComputeInstance, Gpu, GpuInstance, Machine};
use crate::store::{Store, StoreError};

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `nvmlDevice_t` of a GPU.
    Gpu = 1,
    /// `nvmlGpuInstance_t`.
    GpuInstance = 2,
    /// `nvmlComputeInstance_t`.
    ComputeInstance = 3,
    /// `nvmlDevice_t` of a MIG device.
    MigDevice = 4,
}

const KINDS: [Kind; 4] = [Kind::Gpu, Kind::GpuInstance, Kind::ComputeInstance, Kind::MigDevice];
/// `tag:9 | kind:3 | epoch:12 | gpu:8 | serial:32`
const TAG: u64 = 0x5a;

/// A handle as C callers hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Handle(pub u64);

impl Handle {
    fn new(kind: Kind, epoch: u16, gpu: usize, serial: u32) -> Handle {
        let epoch = u64::from(epoch & 0xfff) << 40;
        Handle(TAG << 55 | (kind as u64) << 52 | epoch | (gpu as u64 & 0xff) << 32 | u64::from(serial))
    }

    fn kind(self) -> Option<Kind> {
        if self.0 >> 55 != TAG {
            return None;
        }
        KINDS.into_iter().find(|kind| *kind as u64 == self.0 >> 52 & 7)
    }

    fn gpu(self) -> usize {
        (self.0 >> 32 & 0xff) as usize
    }

    fn serial(self) -> u32 {
        self.0 as u32
    }

    fn epoch(self) -> u16 {
        (self.0 >> 40 & 0xfff) as u16
    }
}

struct Session {
    /// Calls of `nvmlInit` less those of `nvmlShutdown`.
    users: u32,
    /// Counts initialisations.
    epoch: u16,
    store: Option<Arc<Store>>,
}

static SESSION: Mutex<Session> = Mutex::new(Session { users: 0, epoch: 0, store: None });

/// `nvmlInit`.
pub fn open() -> Result<()> {
    let mut session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    if session.store.is_none() {
        let store = Config::locate(None).map_err(|e| refuse(&e, Code::DRIVER_NOT_LOADED))?;
        let store = Store::open(store).map_err(|e| refuse(&e, Code::DRIVER_NOT_LOADED))?;
        store.snapshot().map_err(|e| refuse(&e, Code::DRIVER_NOT_LOADED))?;
        session.store = Some(Arc::new(store));
        session.epoch = session.epoch.wrapping_add(1);
    }
    session.users += 1;
    Ok(())
}

/// `nvmlShutdown`.
pub fn close() -> Result<()> {
    let mut session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    session.users = session.users.checked_sub(1).ok_or(Code::UNINITIALIZED)?;
    if session.users == 0 {
        session.store = None;
    }
    Ok(())
}

/// One NVML call in progress: the state as it was when the call began.
pub struct Call {
    store: Arc<Store>,
    epoch: u16,
    /// The node.
    pub machine: Arc<Machine>,
    /// Activation status that a fault injects into a mode change.
    pub activation: Option<Code>,
}

/// Begins a call.
pub fn enter() -> Result<Call> {
    let session = SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let store = session.store.clone().ok_or(Code::UNINITIALIZED)?;
    let epoch = session.epoch;
    drop(session);
    let machine = store.snapshot().map_err(|e| refuse(&e, Code::UNKNOWN))?;
    Ok(Call { store, epoch, machine, activation: None })
}

/// Says on standard error why, because NVML's codes cannot.
fn refuse(error: &dyn std::error::Error, code: Code) -> Code {
    let source = error.source().map(|s| format!(": {s}")).unwrap_or_default();
    eprintln!("nvml-sim: {error}{source}");
    code
}

impl Call {
    /// Where the state is.
    pub fn state_dir(&self) -> std::path::PathBuf {
        self.store.config().state.clone()
    }

    /// Effects of the faults that strike this call, in order of their numbers.
    pub fn struck(&self, call: &str, on: Option<Handle>) -> Vec<Fault> {
        if self.machine.faults.is_empty() {
            return Vec::new();
        }
        let gpu = on.filter(|h| h.kind().is_some()).map(Handle::gpu);
        let state = &self.store.config().state;
        self.machine.faults.iter().filter(|f| f.concerns(call, gpu) && f.strikes(state)).cloned().collect()
    }

    /// Notes an injected activation status, for the call to use.
    pub fn note_activation(&mut self, faults: &[Fault]) {
        self.activation = faults.iter().find_map(|f| match f.effect {
            Effect::Activation(code) => Some(Code(code)),
            _ => None,
        });
    }

    /// Whether the caller may manage instances.
    pub fn privileged(&self) -> Result<()> {
        if self.store.owner() || nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Code::NO_PERMISSION) }
    }

    /// Changes the node.
    pub fn update<T>(&self, change: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        match self.store.update(change) {
            Ok(done) => done,
            Err(StoreError::NotOwner(_)) => Err(Code::NO_PERMISSION),
            Err(e) => Err(refuse(&e, Code::UNKNOWN)),
        }
    }

    /// A GPU and its NVML index, from a handle to the GPU itself. Says GPU_IS_LOST or RESET_REQUIRED where it does
    /// not answer.
    pub fn gpu(&self, handle: Handle) -> Result<(usize, &Gpu)> {
        let (index, gpu) = self.parent(handle)?;
        match handle.kind() {
            Some(Kind::Gpu) => Ok((index, gpu)),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// A GPU, from a handle to it or to anything on it.
    pub fn parent(&self, handle: Handle) -> Result<(usize, &Gpu)> {
        let kind =
            handle.kind().filter(|_| handle.epoch() == self.epoch & 0xfff).ok_or(Code::INVALID_ARGUMENT)?;
        let gpu = self.machine.gpu(handle.gpu())?;
        if kind == Kind::Gpu && gpu.serial != handle.serial() {
            return Err(Code::INVALID_ARGUMENT);
        }
        gpu.answers()?;
        Ok((handle.gpu(), gpu))
    }

    /// A GPU instance.
    pub fn gpu_instance(&self, handle: Handle) -> Result<(usize, &Gpu, &GpuInstance)> {
        let (index, gpu) = self.parent(handle)?;
        let known =
            |gi: &&GpuInstance| handle.kind() == Some(Kind::GpuInstance) && gi.serial == handle.serial();
        let instance = gpu.instances.iter().find(known).ok_or(Code::INVALID_ARGUMENT)?;
        Ok((index, gpu, instance))
    }

    /// A compute instance.
    pub fn compute_instance(&self, handle: Handle) -> Result<Place<'_>> {
        self.compute(handle, Kind::ComputeInstance)
    }

    /// A MIG device.
    pub fn mig_device(&self, handle: Handle) -> Result<Place<'_>> {
        self.compute(handle, Kind::MigDevice)
    }

    fn compute(&self, handle: Handle, kind: Kind) -> Result<Place<'_>> {
        let (index, gpu) = self.parent(handle)?;
        let devices = gpu.mig_devices();
        let known = |(_, ci): &&(&GpuInstance, &ComputeInstance)| ci.serial == handle.serial();
        let found = devices.iter().find(known).filter(|_| handle.kind() == Some(kind));
        let (instance, compute) = found.copied().ok_or(Code::INVALID_ARGUMENT)?;
        Ok(Place { index, gpu, instance, compute })
    }

    /// Whether a `nvmlDevice_t` names a MIG device.
    pub fn is_mig_device(&self, handle: Handle) -> Result<bool> {
        match handle.kind() {
            Some(Kind::Gpu) => self.parent(handle).map(|_| false),
            Some(Kind::MigDevice) => self.mig_device(handle).map(|_| true),
            _ => Err(Code::INVALID_ARGUMENT),
        }
    }

    /// The MIG devices of a GPU that this process may see, in NVML's order.
    pub fn visible<'a>(&self, gpu: &'a Gpu) -> Vec<(&'a GpuInstance, &'a ComputeInstance)> {
        let mut devices = gpu.mig_devices();
        if self.store.config().enforce_caps && self.privileged().is_err() {
            let root = &self.store.config().root;
            devices.retain(|(gi, ci)| capfs::may_open(root, gpu.minor, gi.id, ci.id));
        }
        devices
    }

    /// Gives out a handle.
    pub fn handle(&self, kind: Kind, gpu: usize, serial: u32) -> Handle {
        Handle::new(kind, self.epoch, gpu, serial)
    }
}

/// A compute instance with all it lies in.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// NVML index of the GPU.
    pub index: usize,
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The GPU instance.
    pub instance: &'a GpuInstance,
    /// The compute instance.
    pub compute: &'a ComputeInstance,
}
