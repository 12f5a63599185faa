//! Which steps have a segment, and how much is promised: pure, without memory and without clock.
//!
//! ```text
//!   none --open--> promised --release | close | holder gone--> none
//! ```
//! Whether the memory of a promised segment exists already is not known here.

use super::limits::{GRAIN, Limits, Unasked};
use migshare_policy::record::Holder;
use migshare_proto::message::OpenSegment;
use migshare_proto::status::SegmentsStatus;
use migshare_proto::{JobKey, StepId, size};
use std::collections::BTreeMap;

/// A step of a job on this node, as its processes name it.
pub(super) type StepKey = (u32, StepId);

/// A promised segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Promise {
    pub(super) job: JobKey,
    pub(super) bytes: u64,
    /// The slurmstepd with which it ends.
    pub(super) holder: Holder,
}

/// What was decided about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is as promised before.
    Known(Promise),
    /// It is promised now; memory of an earlier step of this name has to go.
    Promised(Promise),
    /// The step has none, and did not ask for one.
    Nothing(String),
    /// The step did not ask, and would have one if there were room.
    Full(String),
    /// The step asked for what it cannot have.
    Refused(String),
}

/// All promises.
#[derive(Debug)]
pub(super) struct Account {
    limits: Limits,
    total: u64,
    promises: BTreeMap<StepKey, Promise>,
}

impl Account {
    pub(super) fn new(limits: Limits) -> Account {
        Account { limits, total: limits.total(), promises: BTreeMap::new() }
    }

    /// Decides about a request, and keeps what it promises.
    pub(super) fn open(&mut self, asked: &OpenSegment, holder: Holder) -> Decision {
        let key = (asked.job.job, asked.step);
        if let Some(known) = self.promises.get(&key)
            && known.job == asked.job
            && known.holder == holder
        {
            return Decision::Known(*known);
        }
        let bytes = match (asked.bytes, self.limits.default) {
            (Some(bytes), _) => bytes,
            (None, Unasked::Size(bytes)) if asked.leaves >= 2 => bytes.0,
            (None, Unasked::Size(_)) => return Decision::Nothing("a single leaf needs none".to_owned()),
            (None, Unasked::Off) => return Decision::Nothing("this site gives none unasked".to_owned()),
        };
        match self.room(key, asked.job.uid, bytes) {
            Ok(bytes) => {
                let promise = Promise { job: asked.job, bytes, holder };
                self.promises.insert(key, promise);
                Decision::Promised(promise)
            }
            Err(why) if asked.bytes.is_some() => Decision::Refused(why),
            Err(why) => Decision::Full(why),
        }
    }

    /// Takes up what an earlier agent promised: limits that were lowered since bind new steps only.
    pub(super) fn restore(&mut self, key: StepKey, promise: Promise) {
        self.promises.insert(key, promise);
    }

    /// Ends a step's segment. Whether there was one.
    pub(super) fn close(&mut self, key: StepKey) -> bool {
        self.promises.remove(&key).is_some()
    }

    pub(super) fn get(&self, key: StepKey) -> Option<&Promise> {
        self.promises.get(&key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (StepKey, &Promise)> {
        self.promises.iter().map(|(key, promise)| (*key, promise))
    }

    /// What an admin is shown.
    pub(super) fn status(&self) -> SegmentsStatus {
        let promised = self.promises.values().map(|p| p.bytes).sum();
        SegmentsStatus { steps: self.promises.len() as u32, promised, limit: self.total }
    }

    /// Bytes promised to all steps but this one, by user.
    fn promised_beside(&self, key: StepKey) -> BTreeMap<u32, u64> {
        let mut users = BTreeMap::new();
        for (_, promise) in self.promises.iter().filter(|(k, _)| **k != key) {
            *users.entry(promise.job.uid).or_insert(0) += promise.bytes;
        }
        users
    }

    /// The size to promise: whole huge pages, if there is room for them.
    fn room(&self, key: StepKey, uid: u32, asked: u64) -> Result<u64, String> {
        let max = self.limits.max.0;
        if asked > max {
            return Err(format!(
                "a segment of {} is more than the {} that a step may have on this node (segments.max)",
                size::show(asked),
                size::show(max)
            ));
        }
        let bytes = asked.next_multiple_of(GRAIN);
        let users = self.promised_beside(key);
        let own = users.get(&uid).copied().unwrap_or(0);
        let per_user = self.limits.per_user();
        if bytes > per_user.saturating_sub(own) {
            return Err(format!(
                "a segment of {} does not fit: {} of {} are promised to other steps of user {uid} on this node (segments.per_user)",
                size::show(bytes),
                size::show(own),
                size::show(per_user)
            ));
        }
        let promised: u64 = users.values().sum();
        if bytes > self.total.saturating_sub(promised) {
            return Err(format!(
                "a segment of {} does not fit: {} of {} are promised to other steps of this node, to {} (segments.total)",
                size::show(bytes),
                size::show(promised),
                size::show(self.total),
                holders(&users)
            ));
        }
        Ok(bytes)
    }
}

/// Who holds how much, in words.
fn holders(users: &BTreeMap<u32, u64>) -> String {
    let texts: Vec<String> = users.iter().map(|(uid, n)| format!("user {uid} {}", size::show(*n))).collect();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::limits::Bytes;
    use super::*;

    const MIB: u64 = 1 << 20;

    fn account() -> Account {
        let default = Unasked::Size(Bytes(64 * MIB));
        let (max, total) = (Bytes(128 * MIB), Some(Bytes(200 * MIB)));
        Account::new(Limits { default, max, total, per_user: total, ..Limits::default() })
    }

    fn asked(job: u32, leaves: u32, bytes: Option<u64>) -> OpenSegment {
        let job = JobKey { job, start: 1, uid: 1000 };
        OpenSegment { job, step: StepId(0), leaves, bytes, holder: 10 + job.job }
    }

    fn holder(asked: &OpenSegment) -> Holder {
        Holder { pid: asked.holder, born: 5 }
    }

    fn open(account: &mut Account, asked: &OpenSegment) -> Decision {
        account.open(asked, holder(asked))
    }

    fn bytes(decision: Decision) -> u64 {
        match decision {
            Decision::Known(p) | Decision::Promised(p) => p.bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_leaves_have_a_segment_and_one_has_none() {
        let mut account = account();
        assert_eq!(bytes(open(&mut account, &asked(1, 2, None))), 64 * MIB);
        assert!(matches!(open(&mut account, &asked(2, 1, None)), Decision::Nothing(_)));
        assert_eq!(bytes(open(&mut account, &asked(3, 1, Some(MIB)))), GRAIN, "whole huge pages");
    }

    #[test]
    fn asked_again_it_is_the_same_and_counts_once() {
        let mut account = account();
        let request = asked(1, 2, Some(128 * MIB));
        let first = open(&mut account, &request);
        assert_eq!(bytes(open(&mut account, &request)), bytes(first));
        assert_eq!(account.promised_beside((9, StepId(9))), BTreeMap::from([(1000, 128 * MIB)]));
    }

    #[test]
    fn a_user_takes_no_more_than_a_users_share() {
        let limits = Limits { max: Bytes(64 * MIB), total: Some(Bytes(200 * MIB)), ..Limits::default() };
        let mut account = Account::new(limits);
        assert_eq!(bytes(open(&mut account, &asked(1, 2, Some(64 * MIB)))), 64 * MIB);
        let second = open(&mut account, &asked(2, 2, Some(64 * MIB)));
        assert!(matches!(&second, Decision::Refused(why) if why.contains("64M of 100M")), "{second:?}");
        let mut other = asked(3, 2, Some(64 * MIB));
        other.job.uid = 1001;
        assert_eq!(bytes(open(&mut account, &other)), 64 * MIB);
        let status = account.status();
        assert_eq!((status.steps, status.promised, status.limit), (2, 128 * MIB, 200 * MIB));
    }

    #[test]
    fn a_run_of_the_same_name_replaces_the_earlier_one() {
        let mut account = account();
        open(&mut account, &asked(1, 2, Some(128 * MIB)));
        let mut again = asked(1, 2, Some(100 * MIB));
        again.job.start = 2;
        assert_eq!(bytes(open(&mut account, &again)), 100 * MIB);
        assert_eq!(account.all().count(), 1);
    }

    #[test]
    fn too_much_is_refused_with_the_limit_that_it_meets() {
        let mut account = account();
        let refusal = |decision| match decision {
            Decision::Refused(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(refusal(open(&mut account, &asked(1, 2, Some(129 * MIB)))).contains("segments.max"));
        open(&mut account, &asked(1, 2, Some(128 * MIB)));
        let mut other = asked(2, 2, Some(128 * MIB));
        other.job.uid = 1001;
        let text = refusal(open(&mut account, &other));
        assert!(text.contains("128M of 200M") && text.contains("user 1000 128M (segments.total)"), "{text}");
        open(&mut account, &asked(3, 2, None));
        assert!(
            matches!(open(&mut account, &asked(4, 2, None)), Decision::Full(_)),
            "who did not ask still starts"
        );
        assert!(account.close((1, StepId(0))) && !account.close((1, StepId(0))));
        assert_eq!(bytes(open(&mut account, &asked(2, 2, Some(128 * MIB)))), 128 * MIB);
    }
}
