//! What the driver shows of itself: the picture for `status`, whether Slurm may send jobs, whom to watch, and the
//! state of the journal as it bears on these.

use super::{Driver, REPAIR};
use migshare_policy::node::Service;
use migshare_proto::status::Status;
use std::collections::BTreeSet;
use std::time::Instant;

impl Driver {
    /// The picture of the node.
    pub(super) fn status(&self) -> Status {
        let picture = self.node.status();
        let mut problems = picture.problems;
        problems.extend(self.journal_problem());
        problems.extend(self.nvml_problem());
        problems.extend(self.isolation.problems.iter().cloned());
        let (driver, cuda) = self.opened.as_ref().map_or_else(Default::default, |o| {
            (o.versions.driver.clone(), format!("{}.{}", o.versions.cuda.0, o.versions.cuda.1))
        });
        Status {
            node: self.about.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            driver,
            cuda,
            layout: self.about.rules.layout.to_string(),
            counted: picture.counted,
            usable: picture.usable,
            gpus: picture.gpus,
            leases: picture.leases,
            problems,
            isolation: self.isolation.clone(),
            // The server knows; the driver has nothing to do with them.
            segments: None,
        }
    }

    /// Tells those who follow what has changed, and the log what has gone wrong or is right again.
    pub(super) fn publish(&mut self) {
        let problems: BTreeSet<String> = self.node.problems().into_iter().collect();
        problems.difference(&self.problems).for_each(|problem| tracing::warn!(problem, "problem"));
        self.problems.difference(&problems).for_each(|problem| tracing::info!(problem, "problem is over"));
        self.problems = problems;
        let service = self.service();
        self.outlets.service.send_if_modified(|current| {
            let changed = *current != service;
            if changed {
                tracing::info!(?service, "service level");
                *current = service;
            }
            changed
        });
        let holders = self.node.holders();
        self.outlets.holders.send_if_modified(|current| {
            let changed = *current != holders;
            *current = holders;
            changed
        });
        let leases = self.node.books().leases.len();
        self.outlets.leases.send_if_modified(|current| std::mem::replace(current, leases) != leases);
    }

    /// Repairs a broken journal when it is time.
    pub(super) fn mind_the_journal(&mut self) {
        if self.journal.broken().is_none() {
            self.repair = None;
            return;
        }
        if self.repair.is_some_and(|at| at > Instant::now()) {
            return;
        }
        match self.journal.compact(&self.node.books().records(), &self.history.all()) {
            Ok(()) => {
                tracing::info!("journal can be written again");
                self.repair = None;
            }
            Err(error) => {
                tracing::warn!(%error, "journal still cannot be written");
                self.repair = Some(Instant::now() + REPAIR);
            }
        }
    }

    /// A node whose journal cannot be written can open no lease, one whose driver hangs can run none, and one that
    /// cannot isolate tasks starts none: each would eat the queue.
    fn service(&self) -> Service {
        match (self.node.service(), self.own_problem()) {
            (Service::Unfit { reason }, _) => Service::Unfit { reason },
            (_, Some(problem)) => Service::Unfit { reason: format!("migshare: {problem}") },
            (service, None) => service,
        }
    }

    /// What keeps this node from serving beside the state of its GPUs.
    fn own_problem(&self) -> Option<String> {
        let isolation = || self.isolation.problems.first().cloned();
        self.journal_problem().or_else(|| self.nvml_problem()).or_else(isolation)
    }

    /// A text that stays the same while it lasts: it becomes the reason of a drain.
    fn nvml_problem(&self) -> Option<String> {
        self.hangs.map(|call| format!("NVML does not return from {call}: the driver or a GPU hangs"))
    }

    fn journal_problem(&self) -> Option<String> {
        self.journal.broken().map(|cause| format!("journal cannot be written: {cause}"))
    }
}
