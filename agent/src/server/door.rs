//! How many clients are let in. Root's places are apart from all others', so that nobody can keep a slurmstepd out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most connections of those who may change state. A node starts a few hundred steps at once at most.
const PRIVILEGED: u32 = 4096;
/// Most connections of all other users together. With 4 KiB of line each, they hold 1 MiB at most.
const OTHERS: u32 = 256;
/// Most connections of one other user.
const EACH: u32 = 32;

/// Who is inside.
#[derive(Debug, Default)]
pub(super) struct Door(Mutex<BTreeMap<u32, u32>>);

/// A client's place inside; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    uid: u32,
}

impl Door {
    /// A place for a client of this user, if there is one.
    pub(super) fn enter(door: &Arc<Door>, uid: u32) -> Option<Place> {
        let mut inside = door.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = inside.get(&uid).copied().unwrap_or(0);
        let room = if super::rights::is_privileged(uid) {
            own < PRIVILEGED
        } else {
            let others = inside.iter().filter(|(uid, _)| !super::rights::is_privileged(**uid));
            own < EACH && others.map(|(_, n)| n).sum::<u32>() < OTHERS
        };
        room.then(|| {
            inside.insert(uid, own + 1);
            Place { door: Arc::clone(door), uid }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.door.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = inside.get_mut(&self.uid) {
            *n -= 1;
            if *n == 0 {
                inside.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(door: &Arc<Door>, uid: u32) -> Vec<Place> {
        std::iter::from_fn(|| Door::enter(door, uid)).collect()
    }

    #[test]
    fn users_fill_their_own_places_only() {
        let door = Arc::new(Door::default());
        let one = fill(&door, 1001);
        assert_eq!(one.len(), EACH as usize);
        let all: Vec<_> = (1002..1100).flat_map(|uid| fill(&door, uid)).collect();
        assert_eq!(one.len() + all.len(), OTHERS as usize);
        assert!(Door::enter(&door, 0).is_some(), "root has places of its own");
    }

    #[test]
    fn a_place_is_given_back() {
        let door = Arc::new(Door::default());
        let all = fill(&door, 1001);
        assert!(Door::enter(&door, 1001).is_none());
        drop(all);
        assert!(Door::enter(&door, 1001).is_some());
        assert!(door.0.lock().unwrap().is_empty());
    }
}
