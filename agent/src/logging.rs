//! Where events go. Which events: `MIGSHARE_LOG`, in the syntax of tracing's filter, `info` by default.
//!
//! ```text
//!   stdout is the journal's (systemd)   fields of their own: `journalctl -t migshared MIGSHARE_JOB=812`
//!   otherwise                           a line of text for people, coloured on a terminal only
//!   --log json                          one JSON object per line and event
//! ```
//! Whether stdout is the journal's is told by `JOURNAL_STREAM` (systemd.exec(5)), which is believed only if it names this very
//! stream: a shell under a service inherits the variable, too.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line and event.
    Json,
    /// The systemd journal, with the event's fields as fields of the entry.
    Journal,
}

/// What the journal's fields begin with; a field `job` is `MIGSHARE_JOB` there.
const PREFIX: &str = "MIGSHARE";

/// Starts logging for this process, in the form that fits where stdout goes unless one is asked for.
pub fn start(asked: Option<LogFormat>) {
    let filter = EnvFilter::try_from_env("MIGSHARE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let events = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let format = asked.unwrap_or(if is_the_journals() { LogFormat::Journal } else { LogFormat::Text });
    match (format, tracing_journald::layer()) {
        (LogFormat::Json, _) => events.with(lines.json().flatten_event(true)).init(),
        (LogFormat::Journal, Ok(journal)) => {
            let journal = journal.with_syslog_identifier("migshared".to_owned());
            events.with(journal.with_field_prefix(Some(PREFIX.to_owned()))).init();
        }
        (LogFormat::Journal, Err(error)) => {
            events.with(lines.with_ansi(false)).init();
            tracing::warn!(%error, "the journal cannot be reached: the log is text");
        }
        (LogFormat::Text, _) => events.with(lines.with_ansi(std::io::stdout().is_terminal())).init(),
    }
}

/// Whether stdout is connected to the journal.
fn is_the_journals() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stdout())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}
