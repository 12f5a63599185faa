//! Parts of a backend that are fast, slow or lost each on its own: the object storage targets of a Lustre file system. A
//! backend without such parts is target 0.

use super::StreamId;

/// One part of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TargetId(pub u32);

impl TargetId {
    /// Targets are told apart in this many buckets, as streams are.
    const BUCKETS: usize = StreamId::BUCKETS;

    pub(super) fn bucket(self) -> usize {
        self.0 as usize % Self::BUCKETS
    }
}

/// One `T` for each target that was ever asked for, and those before it.
#[derive(Debug)]
pub(super) struct PerTarget<T>(Vec<T>);

impl<T: Default> Default for PerTarget<T> {
    fn default() -> Self {
        Self(vec![T::default()])
    }
}

impl<T> PerTarget<T> {
    /// The one of a target, made like `new` if it is asked for the first time.
    pub(super) fn at(&mut self, target: TargetId, new: impl Fn() -> T) -> &mut T {
        let place = target.bucket();
        if self.0.len() <= place {
            self.0.resize_with(place + 1, new);
        }
        &mut self.0[place]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}
