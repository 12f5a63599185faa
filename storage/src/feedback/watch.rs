//! The thread that looks at the sources of one mount and tells the read path what changed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{BackendState, Finding, Kind, Report, Source, SourceName};
use crate::fs::ReadPath;
use crate::mounts::{Mount, Root};

/// States cost one small read each; counters say nothing about less than a second.
const TICK: Duration = Duration::from_millis(100);
const COUNTERS: Duration = Duration::from_secs(1);
/// A look that costs more than this part of its period is made less often: a file system of a thousand targets.
const COST: u32 = 50;

/// The sources of one backend.
pub struct Watch {
    backend: String,
    sources: Vec<Watched>,
}

struct Watched {
    source: Box<dyn Source>,
    watches: String,
    finding: Finding,
    due: Instant,
}

impl Watch {
    /// Finds what tells about the backend that a directory is on.
    pub fn find(root: &Root, directory: &Path, mount: Option<&Mount>) -> Self {
        let sources = mount.map_or_else(Vec::new, |m| Kind::of(root, m).sources(root));
        Self::over(directory.display().to_string(), sources)
    }

    fn over(backend: String, sources: Vec<Box<dyn Source>>) -> Self {
        let due = Instant::now();
        let sources = sources.into_iter().map(|source| {
            let watches = source.watches();
            Watched { source, watches, finding: Finding::default(), due }
        });
        Self { backend, sources: sources.collect() }
    }

    /// Starts the thread, which ends with the read path. A backend that says nothing of itself needs none.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(mut self, reads: &Arc<ReadPath>) -> io::Result<()> {
        reads.backend_reported(self.look(Instant::now()));
        if self.sources.is_empty() {
            return Ok(());
        }
        let reads: Weak<ReadPath> = Arc::downgrade(reads);
        let watch = move || {
            let mut last = Report::default();
            while let Some(reads) = reads.upgrade() {
                let report = self.look(Instant::now());
                if report != last {
                    self.tell(&last, &report);
                    reads.backend_reported(report.clone());
                    last = report;
                }
                drop(reads);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("feedback".into()).spawn(watch).map(drop)
    }

    /// Looks at every source that is due.
    fn look(&mut self, now: Instant) -> Report {
        for watched in self.sources.iter_mut().filter(|w| w.due <= now) {
            let began = Instant::now();
            let finding = watched.source.look(now);
            if finding != watched.finding {
                watched.watches = watched.source.watches();
                watched.finding = finding;
            }
            let least = if watched.source.name() == SourceName::Nvme { TICK } else { COUNTERS };
            watched.due = now + least.max(began.elapsed() * COST);
        }
        self.report()
    }

    fn report(&self) -> Report {
        let mut worst = Finding::default();
        let mut source = None;
        for watched in &self.sources {
            let before = worst.state;
            worst = worst.or_worse(watched.finding.clone());
            if worst.state > before {
                source = Some(watched.source.name());
            }
        }
        let watched = self.sources.iter().map(|w| w.watches.clone()).collect();
        Report { state: worst.state, source, signal: worst.signal, watched }
    }

    fn tell(&self, before: &Report, now: &Report) {
        let signal = now.signal.as_deref().unwrap_or("nothing is known against it");
        let backend = &self.backend;
        match (before.state, now.state) {
            (_, BackendState::Gone) => tracing::warn!("backend {backend}: no hits are read there: {signal}"),
            (BackendState::Gone, _) => tracing::info!("backend {backend}: back: {signal}"),
            _ => tracing::debug!("backend {backend}: {:?}: {signal}", now.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(SourceName, Finding);

    impl Source for Fixed {
        fn name(&self) -> SourceName {
            self.0
        }
        fn watches(&self) -> String {
            String::from("something")
        }
        fn look(&mut self, _now: Instant) -> Finding {
            self.1.clone()
        }
    }

    fn source(name: SourceName, finding: Finding) -> Box<dyn Source> {
        Box::new(Fixed(name, finding))
    }

    #[test]
    fn the_worst_finding_is_reported_with_its_source() {
        let mut watch = Watch::over(
            "b".into(),
            vec![
                source(SourceName::Tcp, Finding::degraded("slow".into())),
                source(SourceName::Nvme, Finding::gone("connecting".into())),
                source(SourceName::Rdma, Finding::gone("down".into())),
            ],
        );
        let report = watch.look(Instant::now());
        assert_eq!(report.state, BackendState::Gone);
        assert_eq!((report.source, report.signal.as_deref()), (Some(SourceName::Nvme), Some("connecting")));
        assert_eq!(report.watched.len(), 3);
        assert_eq!(Watch::over("b".into(), Vec::new()).look(Instant::now()), Report::default());
    }
}
