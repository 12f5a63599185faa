//! How many clients of the second socket are inside at a time. Strangers cannot take the places of a step, nor one step
//! those of another.

use super::account::StepKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most connections of one step at a time: more than a node has leaves, and ranks need theirs for a moment only.
const EACH_STEP: u32 = 256;
/// Most connections of one user's processes that belong to no step.
const EACH_STRANGER: u32 = 16;
/// Most connections of all strangers together.
const STRANGERS: u32 = 128;

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Guest {
    Step(StepKey),
    Stranger(u32),
}

/// Who is inside.
#[derive(Debug, Default)]
pub(super) struct Turnstile(Mutex<BTreeMap<Guest, u32>>);

/// A place inside; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    turnstile: Arc<Turnstile>,
    guest: Guest,
}

impl Turnstile {
    /// A place, if there is one for this guest.
    pub(super) fn enter(turnstile: &Arc<Turnstile>, guest: Guest) -> Option<Place> {
        let mut inside = turnstile.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = inside.get(&guest).copied().unwrap_or(0);
        let room = match guest {
            Guest::Step(_) => own < EACH_STEP,
            Guest::Stranger(_) => {
                let strangers = inside.iter().filter(|(guest, _)| matches!(guest, Guest::Stranger(_)));
                own < EACH_STRANGER && strangers.map(|(_, n)| n).sum::<u32>() < STRANGERS
            }
        };
        room.then(|| {
            inside.insert(guest, own + 1);
            Place { turnstile: Arc::clone(turnstile), guest }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.turnstile.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = inside.get_mut(&self.guest) {
            *n -= 1;
            if *n == 0 {
                inside.remove(&self.guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migshare_proto::StepId;

    fn fill(turnstile: &Arc<Turnstile>, guest: Guest) -> Vec<Place> {
        std::iter::from_fn(|| Turnstile::enter(turnstile, guest)).collect()
    }

    #[test]
    fn strangers_and_steps_fill_their_own_places_only() {
        let turnstile = Arc::new(Turnstile::default());
        let strangers: Vec<_> = (0..100).flat_map(|uid| fill(&turnstile, Guest::Stranger(uid))).collect();
        assert_eq!(strangers.len(), STRANGERS as usize);
        let one = fill(&turnstile, Guest::Step((7, StepId(0))));
        assert_eq!(one.len(), EACH_STEP as usize);
        assert!(Turnstile::enter(&turnstile, Guest::Step((7, StepId(1)))).is_some());
        drop((strangers, one));
        assert!(turnstile.0.lock().unwrap().is_empty(), "all places are given back");
    }
}
