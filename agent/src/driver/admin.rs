//! An admin's questions to the driver: plans, orders, and the story of a job.

use super::{Driver, Question, Waiting};
use crate::wire::{self, admin};
use migshare_proto::Reply;
use migshare_proto::admin::{OrderRequest, PlanQuery, PlanReply};
use migshare_proto::message::{Reason, Refused};
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
        let checked = self.check_now(&request).and_then(|()| admin::order(&self.node, request.order));
        match checked {
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

    /// An order to change layouts "now" is refused if any part of it would have to wait.
    fn check_now(&self, request: &OrderRequest) -> Result<(), Refused> {
        let migshare_proto::admin::Order::Apply(apply) = &request.order else { return Ok(()) };
        if !apply.now {
            return Ok(());
        }
        let plan = self.node.plan(&admin::target(&self.node, apply.target.clone())?)?;
        let why: Vec<String> = plan.deferred.into_iter().map(|d| d.why).collect();
        if why.is_empty() {
            return Ok(());
        }
        let text = format!(
            "nothing was changed, because {} of it would have to wait: {}",
            why.len(),
            why.join("; ")
        );
        Err(Refused::new(Reason::WouldWait, text))
    }

    /// What was decided about a job.
    pub(super) fn story(&self, job: u32) -> Reply {
        Reply::Story(wire::story(self.history.of(job)))
    }
}
