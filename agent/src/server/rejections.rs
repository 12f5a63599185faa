//! Clients that were sent away: counted all, logged now and then. A wrong plugin and an intruder are seen by it, and neither can fill
//! the log.

use crate::metrics::Meters;
use crate::seldom::Seldom;
use std::time::Instant;

/// Why a client was sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It asked what only root may ask.
    Permission,
    /// It speaks no version that this agent speaks.
    Version,
    /// It sent what is no message.
    Malformed,
    /// Its user has as many connections as allowed.
    Crowded,
}

impl Why {
    const ALL: [Why; 4] = [Why::Permission, Why::Version, Why::Malformed, Why::Crowded];

    /// The label in the figures.
    fn name(self) -> &'static str {
        match self {
            Why::Permission => "permission",
            Why::Version => "version",
            Why::Malformed => "malformed",
            Why::Crowded => "crowded",
        }
    }
}

/// Counts and tells.
#[derive(Debug)]
pub(super) struct Rejections {
    meters: Meters,
    lines: [Seldom; Why::ALL.len()],
}

impl Rejections {
    /// All at zero, so that an increase is seen from the first one on.
    pub(super) fn new(meters: Meters) -> Rejections {
        Why::ALL.iter().for_each(|why| meters.rejected(why.name(), 0));
        Rejections { meters, lines: Default::default() }
    }

    /// A client of this user was sent away. `text` says what it did.
    pub(super) fn add(&self, why: Why, uid: u32, text: &str) {
        self.meters.rejected(why.name(), 1);
        if let Some(left_out) = self.lines[why as usize].due(Instant::now()) {
            tracing::warn!(why = why.name(), uid, left_out, text = harmless(text, 200), "client rejected");
        }
    }
}

/// What a client sent, for the log: without control characters, and not too long.
pub(super) fn harmless(text: &str, longest: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(longest).collect()
}
