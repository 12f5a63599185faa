//! An admin's questions to the driver: plans, orders, and the story of a job.

use super::{Driver, Question, Waiting};
use crate::wire::{self, admin};
use migshare_proto::Reply;
use migshare_proto::admin::{OrderRequest, PlanQuery, PlanReply};
use tokio::sync::oneshot;

impl Driver {
    /// What a change of layouts would do.
    pub(super) fn plan(&self, query: PlanQuery) -> Reply {
        let plan = admin::target(&self.node, query.target).and_then(|target| {
            let ordered = Some(self.node.is_ordered(&target));
            Ok(PlanReply { ordered, ..admin::plan(self.node.plan(&target)?) })
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
        match admin::order(&self.node, request.order) {
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

    /// What was decided about a job.
    pub(super) fn story(&self, job: u32) -> Reply {
        Reply::Story(wire::story(self.history.of(job)))
    }
}
