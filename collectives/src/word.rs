//! The 64-bit control word: a step number that can tell when it was not written by a correct rank.
//!
//! ```text
//!   63                          20 19        10 9          0
//!  ┌──────────────────────────────┬────────────┬────────────┐
//!  │ step, only ever grows        │ check(step)│ signature  │
//!  └──────────────────────────────┴────────────┴────────────┘
//! ```
//! `check` is a keyed hash of the step, `signature` a hash of the operation. A random word passes for
//! a plausible step with a chance of about 2^-26; this finds damage and stray writes, it is not a
//! defence against a rank that computes the hash. The top steps mean "poisoned".

use crate::error::{POISON_CAUSES, Status};

/// Bits right of the step.
const STEP_SHIFT: u32 = 20;
const FIELD: u64 = 0x3ff;
/// The largest step an operation may use; those above are reserved for poison.
pub const STEP_MAX: u64 = (1 << (64 - STEP_SHIFT)) - 1 - POISON_CAUSES.len() as u64;
/// No correct rank is further ahead of another than this many steps.
pub(crate) const WINDOW: u64 = 1 << 28;

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A step with the signature of its operation.
    Step {
        /// The step.
        step: u64,
        /// 10 bits.
        signature: u16,
    },
    /// The owner ended the communicator.
    Poisoned(Status),
    /// No correct rank wrote this.
    Garbage,
}

/// Encodes and checks the words of one communicator.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    key: u64,
}

impl Codec {
    /// A codec for a communicator whose members agreed on `key`.
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self { key }
    }

    #[inline]
    fn check(self, step: u64) -> u64 {
        (step ^ self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54
    }

    /// The word for `step` of an operation with `signature`.
    #[inline]
    #[must_use]
    pub fn encode(self, step: u64, signature: u16) -> u64 {
        (step << STEP_SHIFT) | (self.check(step) << 10) | (u64::from(signature) & FIELD)
    }

    /// The word by which a rank ends the communicator.
    #[must_use]
    pub fn poison(self, cause: Status) -> u64 {
        let index = POISON_CAUSES.iter().position(|c| *c == cause).unwrap_or(POISON_CAUSES.len() - 1);
        self.encode(STEP_MAX + 1 + index as u64, 0)
    }

    /// The step of a word, unchecked: for the quick "not there yet" test only.
    #[inline]
    #[must_use]
    pub fn step_of(word: u64) -> u64 {
        word >> STEP_SHIFT
    }

    /// Decodes a word whose owner cannot be behind `floor`.
    #[inline]
    #[must_use]
    pub fn decode(self, word: u64, floor: u64) -> Seen {
        let step = Self::step_of(word);
        if (word >> 10) & FIELD != self.check(step) {
            return Seen::Garbage;
        }
        if step > STEP_MAX && word & FIELD != 0 {
            return Seen::Garbage;
        }
        if step > STEP_MAX {
            return Seen::Poisoned(POISON_CAUSES[(step - STEP_MAX - 1) as usize]);
        }
        if step < floor || step - floor > WINDOW {
            return Seen::Garbage;
        }
        Seen::Step { step, signature: (word & FIELD) as u16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn poison_keeps_its_cause() {
        let codec = Codec::new(7);
        for cause in POISON_CAUSES {
            assert_eq!(codec.decode(codec.poison(cause), 5), Seen::Poisoned(cause));
        }
    }

    #[test]
    fn all_ones_are_never_poison_whatever_the_key() {
        assert!((0..100_000).all(|key| Codec::new(key).decode(u64::MAX, 0) == Seen::Garbage));
    }

    proptest! {
        #[test]
        fn a_word_round_trips(key: u64, step in 0..1_u64 << 43, signature in 0_u16..1024) {
            let codec = Codec::new(key);
            prop_assert_eq!(codec.decode(codec.encode(step, signature), step), Seen::Step { step, signature });
        }

        #[test]
        fn a_step_far_away_is_garbage(key: u64, step in 0..1_u64 << 40, ahead in WINDOW + 1..1 << 40) {
            let codec = Codec::new(key);
            prop_assert_eq!(codec.decode(codec.encode(step + ahead, 0), step), Seen::Garbage);
            prop_assert_eq!(codec.decode(codec.encode(step, 0), step + ahead), Seen::Garbage);
        }
    }

    #[test]
    fn random_words_hardly_ever_pass() {
        let codec = Codec::new(0x1234_5678_9abc_def0);
        let mut state = 42_u64;
        let passed = (0..1_000_000)
            .filter(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                matches!(codec.decode(state ^ (state >> 33), 1 << 20), Seen::Step { .. })
            })
            .count();
        assert_eq!(passed, 0);
    }
}
