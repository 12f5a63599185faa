//! What the driver reports by itself: critical Xid errors, of which the loss of a GPU is one. It tells that a look is due and, for the
//! log, why; what is true is found by the look. A GPU that reports nothing is found by the regular looks alone.

use crate::error::NvmlError;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError as Wrapped;
use nvml_wrapper::{EventSet, Nvml};
use std::path::Path;
use std::time::Duration;

/// What the driver reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A critical error, by its number where that is known: 79 is a GPU that has fallen off the bus (NVIDIA's Xid catalogue).
    Xid(Option<u64>),
    /// A GPU is lost.
    Lost,
}

/// Longest wait in one call. NVML sleeps in the kernel meanwhile; nothing depends on this.
const WAIT: Duration = Duration::from_secs(3600);

/// An NVML session of its own, because waiting holds it.
pub struct Watch(Nvml);

impl Watch {
    /// Loads and initialises NVML once more; the system's own where no path is given.
    pub fn open(library: Option<&Path>) -> Result<Watch, NvmlError> {
        let mut builder = Nvml::builder();
        if let Some(path) = library {
            builder.lib_path(path.as_os_str());
        }
        builder.init().map(Watch).map_err(|e| NvmlError::wrapped("nvmlInit_v2", e))
    }

    /// Waits for an event. `watched` is told how many GPUs report any. None at once where none does.
    pub fn next(&self, watched: impl FnOnce(u32)) -> Result<Option<Event>, NvmlError> {
        let (set, gpus) = self.register()?;
        watched(gpus);
        if gpus == 0 {
            return Ok(None);
        }
        loop {
            match set.wait(WAIT.as_millis() as u32) {
                Ok(data) => return Ok(Some(Event::Xid(data.event_data.and_then(number)))),
                Err(Wrapped::GpuLost) => return Ok(Some(Event::Lost)),
                Err(Wrapped::Timeout) => {}
                Err(e) => return Err(NvmlError::wrapped("nvmlEventSetWait_v2", e)),
            }
        }
    }

    /// A set of all GPUs that report critical errors, and how many these are. One that is lost already reports nothing.
    fn register(&self) -> Result<(EventSet<'_>, u32), NvmlError> {
        let failed = |call, e| NvmlError::wrapped(call, e);
        let wanted = EventTypes::CRITICAL_XID_ERROR;
        let mut set = self.0.create_event_set().map_err(|e| failed("nvmlEventSetCreate", e))?;
        let count = self.0.device_count().map_err(|e| failed("nvmlDeviceGetCount_v2", e))?;
        let devices = (0..count).filter_map(|index| self.0.device_by_index(index).ok());
        let mut watched = 0;
        for device in devices.filter(|d| d.supported_event_types().is_ok_and(|all| all.contains(wanted))) {
            set = device
                .register_events(wanted, set)
                .map_err(|e| failed("nvmlDeviceRegisterEvents", e.error))?;
            watched += 1;
        }
        Ok((set, watched))
    }
}

fn number(error: XidError) -> Option<u64> {
    match error {
        XidError::Value(number) => Some(number),
        XidError::Unknown => None,
    }
}
