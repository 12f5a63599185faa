//! Whether the backend answers, by our own timing and by signals, and how it is taken again after it did not. The same is kept
//! for the cache, of which there are no signals, and whose errors are no silence.
//!
//! ```text
//!   Live --failed read, 250 ms without an answer, signal "gone"--> Down --good answer, signal ends--> Returning(1)
//!    ^                                                              ^                                      |
//!    |                                                              +------ failed read, 250 ms -----------+
//!    +----------------------- answers: each lets one more read be under way, 64 of them -------------------+
//! ```
//! After a lost path some connections are back long before others, and a read on a dead one holds its reader until the other
//! copy is asked. So a backend that returns is given one read, then two, four … Reads from before it went down
//! ("stragglers") count for nothing: they may end in a second or never. While it is down, duplicates ask it; nobody waits for
//! those. Latencies are no business of this module.

use super::{BackendState, InFlight, MILLIS, Nanos};

/// A backend that answers nothing for this long while reads wait is not live.
pub(super) const SILENCE: Nanos = 250 * MILLIS;
/// Time between two questions to a backend that is down: while questions stay unanswered this part of the time that it has
/// been down, at least and at most so much; and more where those that hang hold much memory.
const ASK_PART: Nanos = 8;
const ASK_EVERY: Nanos = 100 * MILLIS;
const ASK_SELDOM: Nanos = 5_000 * MILLIS;
const ASK_RARELY: Nanos = 30_000 * MILLIS;
const MUCH: u64 = 64 << 20;
/// Good answers after which a backend that returned is trusted as before.
const TRUSTED: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Live,
    Down,
    Returning(u32),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Liveness {
    stage: Stage,
    reported: BackendState,
    /// Reads under way that were sent before the backend went down, and those that were sent since.
    stragglers: InFlight,
    fresh: InFlight,
    /// Set when what is under way counts for nothing from now on, until it was asked for.
    fell: bool,
    /// Since when it is down, and when reads under way became stragglers last.
    down_since: Nanos,
    down_at: Nanos,
    /// Since when `fresh` reads wait without an answer to any.
    waiting_since: Nanos,
    asked: Nanos,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            stage: Stage::Live,
            reported: BackendState::Live,
            stragglers: InFlight::default(),
            fresh: InFlight::default(),
            fell: false,
            down_since: 0,
            down_at: 0,
            waiting_since: 0,
            asked: 0,
        }
    }
}

impl Liveness {
    /// Of a target of which nothing is known but what signals say of the whole backend.
    pub(super) fn with(reported: BackendState) -> Self {
        Self { reported, ..Self::default() }
    }

    /// A read of `len` bytes was sent.
    pub(super) fn issued(&mut self, now: Nanos, len: u32) {
        if self.fresh.reads == 0 {
            self.waiting_since = now;
        }
        self.fresh.add(len);
    }

    /// A read of `len` bytes that was sent `latency` ago ended. Returns whether it was a straggler, whose latency says nothing.
    pub(super) fn completed(&mut self, now: Nanos, len: u32, latency: Nanos, ok: bool) -> bool {
        let straggler = self.stragglers.reads > 0 && now.saturating_sub(latency) < self.down_at;
        if straggler {
            self.stragglers.remove(len);
        } else {
            self.fresh.remove(len);
            self.waiting_since = now;
        }
        match (ok, self.stage) {
            (true, Stage::Down) => self.return_slowly(now),
            (true, Stage::Returning(answers)) if !straggler => {
                let next = answers + 1;
                self.stage = if next < TRUSTED { Stage::Returning(next) } else { Stage::Live };
            }
            // A straggler that failed belongs to the time before.
            (false, _) if !straggler => self.go_down(now),
            _ => {}
        }
        straggler
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Nanos) {
        if self.fresh.reads > 0 && now.saturating_sub(self.waiting_since) > SILENCE {
            self.go_down(now);
        }
    }

    /// A signal from outside. One that ends is believed as far as one read goes.
    pub(super) fn reported(&mut self, now: Nanos, state: BackendState) {
        let gone = |s| s == BackendState::Gone;
        let before = std::mem::replace(&mut self.reported, state);
        if gone(state) && !gone(before) {
            self.go_down(now);
        } else if gone(before) && !gone(state) {
            self.return_slowly(now);
        }
    }

    fn go_down(&mut self, now: Nanos) {
        if self.stage != Stage::Down {
            self.down_since = now;
        }
        self.stage = Stage::Down;
        self.count_for_nothing(now);
    }

    fn return_slowly(&mut self, now: Nanos) {
        self.stage = Stage::Returning(1);
        self.waiting_since = now;
        // Questions on connections that are not back yet must not keep others from the backend.
        self.count_for_nothing(now);
    }

    fn count_for_nothing(&mut self, now: Nanos) {
        self.fell = true;
        let InFlight { reads, bytes } = std::mem::take(&mut self.fresh);
        self.stragglers.reads += reads;
        self.stragglers.bytes += bytes;
        self.down_at = now;
    }

    /// Whether it answers, as far as our own reads show.
    pub(super) fn answers(&self) -> bool {
        self.stage != Stage::Down
    }

    /// Whether hits may be read there at all.
    pub(super) fn is_live(&self) -> bool {
        self.answers() && self.reported != BackendState::Gone
    }

    /// Whether one more hit may be sent there now.
    pub(super) fn has_room(&self) -> bool {
        self.is_live() && !matches!(self.stage, Stage::Returning(most) if self.fresh.reads >= most)
    }

    /// Whether a duplicate is to ask a backend that is down. The caller sends it if so.
    pub(super) fn wants_question(&mut self, now: Nanos) -> bool {
        // Questions that hang hold memory: ever fewer are asked. Failures hold nothing. Usually what hangs is itself answered
        // once the backend is back, and no question is needed.
        let hang = self.stragglers.reads + self.fresh.reads > 0;
        let down_for = if hang { now.saturating_sub(self.down_since) } else { 0 };
        let longest = if self.stragglers.bytes + self.fresh.bytes < MUCH { ASK_SELDOM } else { ASK_RARELY };
        let every = (down_for / ASK_PART).clamp(ASK_EVERY, longest);
        let due = !self.is_live() && now.saturating_sub(self.asked) >= every;
        if due {
            self.asked = now;
        }
        due
    }

    /// Reads under way that count.
    pub(super) fn fresh(&self) -> InFlight {
        self.fresh
    }

    /// Whether it went down or came back since this was asked last: what was under way then is stragglers now.
    pub(super) fn fell(&mut self) -> bool {
        std::mem::take(&mut self.fell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u32 = 65536;

    fn down(mut liveness: Liveness, reads: u32) -> Liveness {
        (0..reads).for_each(|_| liveness.issued(0, LEN));
        liveness.tick(300 * MILLIS);
        assert!(!liveness.is_live());
        liveness
    }

    #[test]
    fn a_backend_that_returns_is_trusted_a_read_at_a_time() {
        let mut liveness = down(Liveness::default(), 8);
        assert!(liveness.completed(400 * MILLIS, LEN, 400 * MILLIS, true), "sent before it went down");
        let mut under_way = 0;
        let mut most = Vec::new();
        for round in 1..=6u64 {
            while liveness.has_room() && under_way < 100 {
                liveness.issued(400 * MILLIS, LEN);
                under_way += 1;
            }
            most.push(under_way);
            for _ in 0..std::mem::take(&mut under_way) {
                assert!(!liveness.completed((400 + round) * MILLIS, LEN, MILLIS, true));
            }
        }
        assert_eq!(most, [1, 2, 4, 8, 16, 32]);
        assert_eq!(liveness.stage, Stage::Live);
    }

    #[test]
    fn a_read_that_never_ends_keeps_nobody_from_the_backend() {
        let mut liveness = down(Liveness::default(), 1);
        assert!(liveness.wants_question(301 * MILLIS));
        liveness.issued(301 * MILLIS, LEN);
        assert!(!liveness.completed(302 * MILLIS, LEN, MILLIS, true));
        for at in 400..600 {
            liveness.issued(at * MILLIS, LEN);
            assert!(!liveness.completed(at * MILLIS + 1, LEN, 1, true));
        }
        liveness.tick(3_600_000 * MILLIS);
        assert_eq!(liveness.stage, Stage::Live, "{liveness:?}");
    }

    #[test]
    fn a_failed_read_is_followed_by_questions_until_one_is_answered() {
        let mut liveness = Liveness::default();
        liveness.issued(SILENCE, LEN);
        liveness.completed(SILENCE + 1, LEN, 1, false);
        assert!(!liveness.is_live());
        let mut asked = 0;
        for at in (300..2300).step_by(10) {
            if liveness.wants_question(at * MILLIS) {
                asked += 1;
                liveness.issued(at * MILLIS, LEN);
                liveness.completed((at + 1) * MILLIS, LEN, MILLIS, asked == 15);
            }
        }
        assert_eq!(asked, 15);
        assert!(liveness.is_live());
    }

    /// Asks by `len` bytes for an hour, and never gets an answer: how often, and the longest pause of the last minutes.
    fn ask_for_an_hour(len: u32) -> (u32, Nanos) {
        let mut liveness = down(Liveness::default(), 4);
        let (mut asked, mut last, mut longest) = (0, 0, 0);
        for at in (300..3_600_000).step_by(25) {
            liveness.tick(at * MILLIS);
            if liveness.wants_question(at * MILLIS) {
                asked += 1;
                liveness.issued(at * MILLIS, len);
                longest = if at > 3_000_000 { longest.max(at * MILLIS - last) } else { 0 };
                last = at * MILLIS;
            }
        }
        (asked, longest)
    }

    #[test]
    fn questions_that_hang_become_rare_and_hold_little_memory() {
        let (asked, longest) = ask_for_an_hour(1 << 20);
        assert!((64..220).contains(&asked), "{asked} in an hour");
        assert!(longest >= ASK_RARELY);
    }

    /// Requests that a device lost are never answered, and those that come after its return are.
    #[test]
    fn a_small_question_is_asked_every_few_seconds_however_long_it_takes() {
        let (asked, longest) = ask_for_an_hour(4096);
        assert!(asked < 1000, "{asked} in an hour");
        assert!(longest <= ASK_SELDOM + 25 * MILLIS, "{longest}");
    }

    /// A cable that was out for 1.5 s: connections come back one after another, and a question on a dead one waits.
    #[test]
    fn a_backend_is_asked_again_soon_though_questions_hang() {
        let mut liveness = down(Liveness::default(), 8);
        let mut last = 300 * MILLIS;
        for at in (300..1800).step_by(5) {
            liveness.tick(at * MILLIS);
            if liveness.wants_question(at * MILLIS) {
                liveness.issued(at * MILLIS, LEN);
                last = at * MILLIS;
            }
            assert!(at * MILLIS - last <= 200 * MILLIS, "nothing asked for 200 ms at {at} ms");
        }
        liveness.completed(1800 * MILLIS, LEN, 50 * MILLIS, true);
        assert!(liveness.has_room(), "the questions that hang take no room");
    }

    #[test]
    fn a_signal_that_ends_too_early_costs_one_read() {
        let mut liveness = down(Liveness::default(), 3);
        liveness.reported(MILLIS, BackendState::Gone);
        assert!(!liveness.is_live());
        liveness.reported(400 * MILLIS, BackendState::Live);
        assert!(liveness.has_room());
        liveness.issued(400 * MILLIS, LEN);
        assert!(!liveness.has_room());
        liveness.tick(651 * MILLIS);
        assert!(!liveness.is_live());
    }
}
