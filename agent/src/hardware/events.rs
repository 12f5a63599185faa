//! Waits for what the driver reports by itself, and then has the hardware looked at: a lost GPU is noticed at once. Where the driver
//! reports nothing, or this thread cannot be served, the regular look finds it.

use super::Source;
use crate::driver::{Event, Inbox};
use migshare_nvml::{NvmlError, Watch};
use std::time::Duration;

/// Pause after an event: a GPU that fails reports many times, and after a reset it has to be registered anew.
const AFTER_EVENT: Duration = Duration::from_secs(5);
/// Pause after a failure, as long as the regular look's.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Starts the thread. It ends where no GPU reports anything, else with the process.
pub fn start(source: Source, inbox: Inbox) -> std::io::Result<()> {
    let run = move || {
        loop {
            let pause = match next(&source) {
                Ok(Some(event)) => {
                    tracing::warn!(?event, "the driver reports an error: looking at the gpus");
                    inbox.send(Event::Look);
                    AFTER_EVENT
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "events of the driver cannot be waited for");
                    AFTER_FAILURE
                }
            };
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new().name("nvml-events".to_owned()).spawn(run).map(drop)
}

fn next(source: &Source) -> Result<Option<migshare_nvml::Event>, NvmlError> {
    Watch::open(source.library.as_deref())?.next(|gpus| match gpus {
        0 => tracing::info!("no gpu reports errors by itself: the regular look finds them"),
        _ => tracing::debug!(gpus, "waiting for errors that gpus report"),
    })
}
