//! An admin's questions to the driver: plans, orders, and the story of a job.

use super::history::is_opening;
use super::{Driver, Question, Waiting, told};
use crate::wire::{self, admin};
use migshare_policy::node::Target;
use migshare_policy::order::RolledBack;
use migshare_policy::record::Record;
use migshare_proto::Reply;
use migshare_proto::admin::{OrderRequest, PlanQuery, PlanReply, RollbackStatus};
use tokio::sync::oneshot;

impl Driver {
    /// What a change of layouts would do.
    pub(super) fn plan(&self, query: PlanQuery) -> Reply {
        let plan = admin::target(&self.node, query.target).and_then(|target| {
            let ordered = Some(self.node.is_ordered(&target));
            let rolled_back = self.rolled_back_from(&target);
            let mut plan = PlanReply { ordered, rolled_back, ..admin::plan(self.node.plan(&target)?) };
            for step in &mut plan.moves {
                step.expected_ms = self.outlets.meters.expected_ms(step.make);
            }
            Ok(plan)
        });
        plan.map_or_else(Reply::Refused, Reply::Plan)
    }

    /// The question in an order. None where it was refused at once.
    pub(super) fn order_asked(
        &self,
        request: OrderRequest,
        reply: oneshot::Sender<Reply>,
    ) -> Option<Waiting> {
        let force = request.force;
        match admin::order(&self.node, super::now(), request.order) {
            Ok(order) => {
                let question = Question::Order { order, force };
                Some(Waiting::new(question, Box::new(reply)))
            }
            Err(refused) => {
                tracing::warn!(reason = refused.reason.name(), text = refused.text, "order refused");
                self.outlets.meters.refused(refused.reason);
                // A client that hung up needs no reply.
                let _ = reply.send(Reply::Refused(refused));
                None
            }
        }
    }

    /// The GPUs that were last ordered to have these layouts, and could not.
    fn rolled_back_from(&self, target: &Target) -> Vec<RollbackStatus> {
        let refused = target.iter().filter_map(|(gpu, layout)| {
            let refused = self.rolled_back.get(gpu).filter(|refused| refused.layout == *layout)?;
            let gpu = self.node.books().gpus.get(gpu)?.index;
            Some(RollbackStatus { gpu, why: refused.why.clone() })
        });
        refused.collect()
    }

    /// Remembers what hardware refused, for those who ask how their order went, until the GPU gets another one.
    pub(super) fn note_layouts(&mut self, records: &[Record], rolled_back: Vec<RolledBack>) {
        for record in records {
            if let Record::Target { gpu, .. } = record
                && self.node.books().formers.contains_key(gpu)
            {
                self.rolled_back.remove(gpu);
            }
        }
        for refused in rolled_back {
            told::rolled_back(&refused);
            self.rolled_back.insert(refused.gpu.clone(), refused);
        }
    }

    /// What was decided about a job.
    pub(super) fn story(&self, job: u32) -> Reply {
        let mut story = self.history.of(job);
        if !story.iter().any(is_opening)
            && let Some((_, lease)) = self.node.books().leases_of(job).next()
        {
            story.insert(0, told::opening(job, lease));
        }
        Reply::Story(wire::story(story))
    }
}
