//! One turn of the driver: several proposals, one fsync, then their effects and replies.
//!
//! Proposals are committed in memory one after the other, because each sees what the one before has done. If the journal then
//! fails, the node is put back as it was and the same questions are answered one by one: those that write nothing
//! (a step that asks again, the leaves of a running job) are served all the same.

use super::{Driver, Question, REPAIR, Waiting, now, told};
use crate::journal::Told;
use crate::wire;
use migshare_policy::node::{Effect, Node, Proposal, Verdict};
use migshare_policy::order::RolledBack;
use migshare_policy::record::Record;
use migshare_proto::Reply;
use migshare_proto::message::ErrorCode;
use std::time::Instant;

/// Most proposals of work in one turn; more are done in the next. Cutting 16 GPUs takes a few hundred.
const WORK: usize = 4096;

/// What is proposed in one turn.
#[derive(Default)]
struct Turn {
    /// The node before the first commit, if there was one.
    before: Option<Node>,
    /// The last proposal, not committed yet.
    last: Option<Proposal>,
    records: Vec<Record>,
    told: Vec<Told>,
    effects: Vec<Effect>,
    rolled_back: Vec<RolledBack>,
    verdicts: Vec<(Waiting, Verdict)>,
}

impl Driver {
    /// Answers questions, old and new ones, and works, until nothing changes any more.
    pub(super) fn turns(&mut self, asks: Vec<Waiting>) {
        let mut asks: Vec<Waiting> = std::mem::take(&mut self.waiting).into_iter().chain(asks).collect();
        loop {
            let changed = self.turn(asks);
            if !changed || self.waiting.is_empty() {
                break;
            }
            asks = std::mem::take(&mut self.waiting);
        }
        if self.journal.is_bloated()
            && let Err(error) = self.journal.compact(&self.node.books().records(), &self.history.all())
        {
            tracing::error!(%error, "journal could not be compacted");
        }
        self.journal.make_room();
    }

    /// One turn. Whether it changed the node.
    fn turn(&mut self, asks: Vec<Waiting>) -> bool {
        if self.journal.broken().is_some() {
            self.answer_without_journal(asks);
            return false;
        }
        // Clients first: what else there is to do must not delay their replies.
        let answered = self.answer(asks);
        self.work() || answered
    }

    pub(super) fn answer(&mut self, asks: Vec<Waiting>) -> bool {
        let mut turn = Turn::default();
        for asked in asks {
            self.settle(&mut turn);
            let mut proposal = self.propose(&asked.question);
            turn.told.extend(told::decision(&asked.question, &proposal, self.about.rules.direction));
            let verdict = proposal.verdict.take().unwrap_or(Verdict::Wait);
            turn.add(proposal);
            turn.verdicts.push((asked, verdict));
        }
        self.finish(turn)
    }

    fn work(&mut self) -> bool {
        let mut turn = Turn::default();
        for _ in 0..WORK {
            self.settle(&mut turn);
            match self.node.work(now()) {
                Some(proposal) => turn.add(proposal),
                None => break,
            }
        }
        self.finish(turn)
    }

    fn propose(&self, question: &Question) -> Proposal {
        match question {
            Question::Ask(ask) => self.node.answer(now(), ask),
            Question::Order { order, force } => self.node.order(order, *force),
        }
    }

    /// Commits the last proposal in memory, so that the next one sees it.
    fn settle(&mut self, turn: &mut Turn) {
        if let Some(proposal) = turn.last.take() {
            if turn.before.is_none() {
                turn.before = Some(self.node.clone());
            }
            self.node.commit(&proposal);
        }
    }

    fn finish(&mut self, mut turn: Turn) -> bool {
        turn.told.extend(turn.records.iter().filter_map(told::ending));
        if !turn.records.is_empty()
            && let Err(error) = self.append(&turn.records, &turn.told)
        {
            tracing::error!(%error, "journal cannot be written: nothing was changed");
            self.repair = Some(Instant::now() + REPAIR);
            if let Some(before) = turn.before.take() {
                self.node = before;
            }
            self.answer_without_journal(turn.verdicts.into_iter().map(|(asked, _)| asked).collect());
            return false;
        }
        // Everything is durable: whatever else there is to do must not delay the replies.
        for (asked, verdict) in turn.verdicts {
            self.reply(asked, verdict);
        }
        turn.before = None;
        let changed = !turn.records.is_empty() || !turn.effects.is_empty();
        if let Some(proposal) = turn.last.take() {
            self.node.commit(&proposal);
        }
        self.carry_out(turn.effects);
        turn.records.iter().for_each(|record| told::record(record, self.node.books()));
        self.note_layouts(&turn.records, turn.rolled_back);
        self.remember(turn.told, turn.records.is_empty());
        if changed {
            self.outlets.changes.send_modify(|n| *n += 1);
        }
        changed
    }

    /// Remembers what was told. Refusals change nothing, so that they are written after they were answered.
    fn remember(&mut self, told: Vec<Told>, unwritten: bool) {
        if unwritten
            && !told.is_empty()
            && let Err(error) = self.append(&[], &told)
        {
            tracing::error!(%error, "journal cannot be written");
            self.repair = Some(Instant::now() + REPAIR);
        }
        let books = self.node.books();
        told.into_iter().for_each(|t| self.history.add(t, |job| books.leases_of(job).next().is_some()));
    }

    fn append(&mut self, records: &[Record], told: &[Told]) -> std::io::Result<()> {
        let started = Instant::now();
        let done = self.journal.append(records, told);
        self.outlets.meters.journal(done.is_ok(), started.elapsed());
        done
    }

    /// Serves those who need no record, and tells the others why not.
    fn answer_without_journal(&mut self, asks: Vec<Waiting>) {
        let cause = self.journal.broken().unwrap_or("the journal cannot be written").to_owned();
        for asked in asks {
            let proposal = self.propose(&asked.question);
            match proposal.verdict {
                Some(verdict) if proposal.records.is_empty() => self.reply(asked, verdict),
                _ => {
                    let text = format!("the journal cannot be written ({cause}): nothing was changed");
                    asked.reply.answer(wire::error(ErrorCode::Journal, text));
                }
            }
        }
    }

    fn reply(&mut self, asked: Waiting, verdict: Verdict) {
        let caps_major = self.opened.as_ref().and_then(|o| o.caps_major);
        if let Some(reply) = wire::reply(verdict, caps_major) {
            told::reply(&asked.question, &reply);
            if let Reply::Refused(refused) = &reply {
                self.outlets.meters.refused(refused.reason);
            }
            asked.reply.answer(reply);
        } else if asked.until <= Instant::now() {
            let text = "instances for this lease are still being made; try again";
            asked.reply.answer(wire::error(ErrorCode::Busy, text));
        } else if !asked.reply.is_gone() {
            self.waiting.push(asked);
        }
    }
}

impl Turn {
    fn add(&mut self, proposal: Proposal) {
        self.records.extend_from_slice(&proposal.records);
        self.effects.extend_from_slice(&proposal.effects);
        self.rolled_back.extend_from_slice(&proposal.rolled_back);
        if !proposal.records.is_empty() || !proposal.effects.is_empty() {
            self.last = Some(proposal);
        }
    }
}
