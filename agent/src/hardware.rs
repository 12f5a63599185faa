//! The thread that owns NVML. It carries out effects in the order in which they come and tells the driver what came of
//! them; it decides nothing and keeps nothing but the session. NVML calls take from microseconds to ten seconds, and some never
//! return, hence a thread of their own, which `alarm` looks after. A second one waits in `events` for what the driver reports.

pub mod alarm;
pub mod events;

use crate::driver::{Event, Inbox};
use crate::metrics::Meters;
use alarm::Calls;
use migshare_nvml::{MigChange, NvmlError, Progress, Session, Versions};
use migshare_policy::node::{Effect, Seen};
use migshare_policy::record::LeafId;
use migshare_proto::GpuUuid;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

/// What the thread is told to do.
#[derive(Debug)]
pub enum Order {
    /// What the policy wants.
    Effect(Effect),
    /// Switch MIG mode on, then look at all GPUs.
    MigOn(GpuUuid),
}

/// How NVML is found.
#[derive(Debug, Clone)]
pub struct Source {
    /// The library, where it is not the system's own.
    pub library: Option<PathBuf>,
    /// The kernel's process file system.
    pub proc_root: PathBuf,
}

/// What is known once NVML is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Versions of the driver.
    pub versions: Versions,
    /// Major number of the capability device files.
    pub caps_major: Option<u32>,
}

/// Starts the thread, whose calls `calls` follows. It ends when the sender is dropped.
pub fn start(
    source: Source,
    meters: Meters,
    inbox: Inbox,
    calls: Calls,
) -> std::io::Result<mpsc::Sender<Order>> {
    let (orders, queue) = mpsc::channel();
    let run = move || {
        let mut hardware = Hardware { source, meters, inbox, calls, session: None };
        for order in queue {
            hardware.calls.work_begins();
            match order {
                Order::Effect(effect) => hardware.carry_out(effect),
                Order::MigOn(gpu) => hardware.mig_on(&gpu),
            }
            hardware.calls.work_ended();
        }
    };
    std::thread::Builder::new().name("nvml".to_owned()).spawn(run)?;
    Ok(orders)
}

struct Hardware {
    source: Source,
    meters: Meters,
    inbox: Inbox,
    calls: Calls,
    session: Option<Session>,
}

impl Hardware {
    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Scan => self.scan(),
            Effect::Create { leaf, profile } => self.create(leaf, profile),
            Effect::Destroy { leaf, gi } => self.destroy(leaf, gi),
        }
    }

    fn scan(&mut self) {
        let seen = match self.with(Session::scan) {
            Ok(reports) => Seen::Scan(reports),
            Err(e) => {
                // A library that does not answer as a whole is opened anew.
                self.session = None;
                Seen::NvmlDead(e.to_string())
            }
        };
        self.tell(seen);
    }

    fn mig_on(&mut self, gpu: &GpuUuid) {
        match self.with(|s| s.set_mig(gpu, true)) {
            Ok(MigChange::Active) => tracing::info!(%gpu, "MIG mode is on"),
            Ok(change) => tracing::error!(%gpu, ?change, "MIG mode stays off until the gpu is reset"),
            Err(e) => tracing::error!(%gpu, error = %e, "MIG mode cannot be switched on"),
        }
        self.scan();
    }

    fn create(&mut self, leaf: LeafId, profile: u32) {
        let at = leaf.place.placement;
        let started = Instant::now();
        let made = self.with(|s| s.create(&leaf.place.gpu, profile, at));
        self.meters.reconfigured("make", made.is_ok(), started.elapsed());
        match made {
            Ok(instance) => self.tell(Seen::Made { leaf, instance }),
            Err(e) => {
                let gpu = leaf.place.gpu.clone();
                tracing::warn!(%leaf, profile, error = %e, "instance could not be made");
                self.tell(Seen::MakeFailed { leaf, error: e.to_string() });
                self.tell_if_lost(gpu, &e);
            }
        }
    }

    fn destroy(&mut self, leaf: LeafId, gi: u32) {
        let started = Instant::now();
        let gone = self.with(|s| s.destroy(&leaf.place.gpu, gi));
        self.meters.reconfigured("destroy", gone.is_ok(), started.elapsed());
        match gone {
            Ok(()) => self.tell(Seen::Removed { leaf }),
            Err(e) => {
                let gpu = leaf.place.gpu.clone();
                tracing::warn!(%leaf, gi, error = %e, "instance could not be destroyed");
                self.tell(Seen::RemoveFailed { leaf, error: e.to_string() });
                self.tell_if_lost(gpu, &e);
            }
        }
    }

    /// Uses the session, which is opened first if need be.
    fn with<T>(&mut self, what: impl FnOnce(&Session) -> Result<T, NvmlError>) -> Result<T, NvmlError> {
        if let Some(session) = &self.session {
            return what(session);
        }
        self.calls.begins("nvmlInit_v2");
        let opened = Session::open(self.source.library.as_deref(), &self.source.proc_root);
        self.calls.ended();
        let mut session = opened?;
        let (meters, calls) = (self.meters.clone(), self.calls.clone());
        session.observe(Box::new(move |call, progress| match progress {
            Progress::Begins => calls.begins(call),
            Progress::Ended { code, took } => {
                calls.ended();
                meters.nvml(call, code, took);
            }
        }));
        let opened = Opened { versions: session.versions()?, caps_major: session.caps_major() };
        self.inbox.send(Event::NvmlOpened(opened));
        what(self.session.insert(session))
    }

    fn tell(&self, seen: Seen) {
        self.inbox.send(Event::Seen(seen));
    }

    fn tell_if_lost(&self, gpu: GpuUuid, e: &NvmlError) {
        if e.is_gone() {
            self.tell(Seen::GpuLost(gpu));
        }
    }
}
