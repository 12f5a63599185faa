//! Event sets: changes of the MIG configuration, and GPUs that fall off the bus.
//!
//! A set remembers what each registered GPU looked like; waiting compares. So an event tells that something changed
//! since the last one, however many changes there were, and none is lost between registration and waiting.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::border::Out;
use super::exports;
use super::layout::EventData;
use crate::code::{Code, Result};
use crate::machine::{Condition, Gpu, Machine};
use crate::session::{self, Call, Handle, Kind};

/// `nvmlEventTypeXidCriticalError` and `nvmlEventMigConfigChange`.
const XID: u64 = 0x8;
const MIG_CONFIG_CHANGE: u64 = 0x100;
/// Xid 79: GPU has fallen off the bus (NVIDIA's Xid catalogue).
const XID_OFF_THE_BUS: u64 = 79;
const NO_INSTANCE: u32 = u32::MAX;
/// How often a caller looks who may not watch the state's directory.
const LOOK: Duration = Duration::from_millis(20);

/// Sleeps until the state may have changed: it is replaced by a rename, which inotify(7) tells.
struct Sleeper(Option<Inotify>);

impl Sleeper {
    /// Watches from now on.
    fn new() -> Sleeper {
        let watch = || -> nix::Result<Inotify> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let state = session::enter().map_err(|_| nix::errno::Errno::EINVAL)?.state_dir();
            inotify.add_watch(&state, AddWatchFlags::IN_MOVED_TO)?;
            Ok(inotify)
        };
        Sleeper(watch().ok())
    }

    fn sleep(&self, at_most: Duration) {
        let Some(inotify) = &self.0 else { return std::thread::sleep(at_most.min(LOOK)) };
        let wait = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        // A wait that is cut short only means one look more.
        let _ = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], wait);
        let _ = inotify.read_events();
    }
}

struct Set {
    id: u64,
    watches: Vec<Watch>,
}

struct Watch {
    gpu: usize,
    types: u64,
    seen: Look,
}

/// What events are about: MIG mode, instances by serial number, whether the GPU is there.
#[derive(Clone, PartialEq)]
struct Look {
    mig: bool,
    instances: Vec<u32>,
    lost: bool,
}

/// Sets by id; ids start at 1 and are never used twice.
static SETS: Mutex<(u64, Vec<Set>)> = Mutex::new((0, Vec::new()));

fn look(gpu: &Gpu) -> Look {
    let instances = gpu
        .instances
        .iter()
        .flat_map(|gi| std::iter::once(gi.serial).chain(gi.compute.iter().map(|c| c.serial)));
    Look { mig: gpu.mig.current, instances: instances.collect(), lost: gpu.condition == Condition::Lost }
}

/// Does something with a set.
fn with<T>(id: u64, act: impl FnOnce(&mut Set) -> T) -> Result<T> {
    let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
    sets.1.iter_mut().find(|set| set.id == id).map(act).ok_or(Code::INVALID_ARGUMENT)
}

impl Set {
    /// The next event, if something has changed: GPU, type and data.
    fn next(&mut self, machine: &Machine) -> Option<(usize, u64, u64)> {
        for watch in &mut self.watches {
            let Some(gpu) = machine.gpus.get(watch.gpu) else { continue };
            let now = look(gpu);
            if watch.types & XID != 0 && now.lost && !watch.seen.lost {
                watch.seen.lost = true;
                return Some((watch.gpu, XID, XID_OFF_THE_BUS));
            }
            let changed = (now.mig, &now.instances) != (watch.seen.mig, &watch.seen.instances);
            let report = changed && watch.types & MIG_CONFIG_CHANGE != 0;
            watch.seen = now;
            if report {
                return Some((watch.gpu, MIG_CONFIG_CHANGE, 0));
            }
        }
        None
    }
}

fn wait(id: u64, data: Out<EventData>, timeout_ms: u32) -> Result<()> {
    data.required()?;
    let deadline = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
    let sleeper = Sleeper::new();
    loop {
        // Entered anew each time: the state moves on. A session that another thread closes is noticed at the next look.
        let call = session::enter()?;
        if let Some((index, event_type, event_data)) = with(id, |set| set.next(&call.machine))? {
            let serial = call.machine.gpu(index)?.serial;
            return data.put(EventData {
                device: call.handle(Kind::Gpu, index, serial),
                event_type,
                event_data,
                gpu_instance_id: NO_INSTANCE,
                compute_instance_id: NO_INSTANCE,
            });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Code::TIMEOUT);
        }
        drop(call);
        sleeper.sleep(left);
    }
}

fn register(call: &Call, device: Handle, types: u64, id: u64) -> Result<()> {
    let (index, gpu) = call.gpu(device)?;
    if types & !(XID | MIG_CONFIG_CHANGE) != 0 {
        return Err(Code::NOT_SUPPORTED);
    }
    let seen = look(gpu);
    with(id, |set| set.watches.push(Watch { gpu: index, types, seen }))
}

exports! {
    /// `nvmlEventSetCreate`.
    fn nvmlEventSetCreate(set: Out<u64>) |_call| {
        set.required()?;
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.0 += 1;
        let id = sets.0;
        sets.1.push(Set { id, watches: Vec::new() });
        set.put(id)
    }

    /// `nvmlDeviceRegisterEvents`.
    fn nvmlDeviceRegisterEvents(device: Handle, types: u64, set: u64) on device |call| {
        register(call, device, types, set)
    }

    /// `nvmlDeviceGetSupportedEventTypes`.
    fn nvmlDeviceGetSupportedEventTypes(device: Handle, types: Out<u64>) on device |call| {
        call.gpu(device)?;
        types.put(XID | MIG_CONFIG_CHANGE)
    }

    /// `nvmlEventSetWait_v2`.
    fn nvmlEventSetWait_v2(set: u64, data: Out<EventData>, timeout_ms: u32) |_call| { wait(set, data, timeout_ms) }

    /// `nvmlEventSetWait`.
    fn nvmlEventSetWait(set: u64, data: Out<EventData>, timeout_ms: u32) |_call| { wait(set, data, timeout_ms) }

    /// `nvmlEventSetFree`.
    fn nvmlEventSetFree(set: u64) |_call| {
        with(set, |_| ())?;
        let mut sets = SETS.lock().unwrap_or_else(PoisonError::into_inner);
        sets.1.retain(|s| s.id != set);
        Ok(())
    }
}
