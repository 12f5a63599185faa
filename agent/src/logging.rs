//! Where events go: to stdout, for people or, on request, as one JSON object per line. Which events: `MIGSHARE_LOG`, in the
//! syntax of tracing's filter, `info` by default.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line and event.
    Json,
}

/// Starts logging for this process.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("MIGSHARE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text if std::io::stdout().is_terminal() => builder.init(),
        // Under a service manager or in a file: no colours.
        LogFormat::Text => builder.with_ansi(false).init(),
    }
}
