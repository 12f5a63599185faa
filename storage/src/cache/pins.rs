//! Files that stay. At most half of the slots are kept so: what anybody pins must not take the cache from everybody.

use std::collections::HashMap;

use super::record::FileKey;

/// See the module.
#[derive(Debug)]
pub(super) struct Pins {
    /// With the slots that each may come to hold.
    files: HashMap<FileKey, u64>,
    /// Their sum.
    wanted: u64,
    /// Slots that pinned files hold now.
    held: u64,
    most: u64,
}

impl Pins {
    pub(super) fn new(slots: u32) -> Self {
        Self { files: HashMap::new(), wanted: 0, held: 0, most: u64::from(slots / 2) }
    }

    /// Pins a file that holds `held` slots and may come to hold `wanted`. Returns whether there is room for it.
    pub(super) fn add(&mut self, file: FileKey, wanted: u64, held: u64) -> bool {
        let before = self.files.get(&file).copied();
        let sum = self.wanted - before.unwrap_or(0) + wanted;
        if sum > self.most {
            return false;
        }
        self.wanted = sum;
        self.held += if before.is_none() { held } else { 0 };
        self.files.insert(file, wanted);
        true
    }

    /// Lets a file go that holds `held` slots.
    pub(super) fn remove(&mut self, file: FileKey, held: u64) {
        if let Some(wanted) = self.files.remove(&file) {
            self.wanted -= wanted;
            self.held -= held;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A file got a slot.
    pub(super) fn gained(&mut self, file: &FileKey) {
        self.held += u64::from(self.files.contains_key(file));
    }

    /// A file lost a slot.
    pub(super) fn lost(&mut self, file: &FileKey) {
        self.held -= u64::from(self.files.contains_key(file));
    }

    /// Whether a slot of this file must stay. Not while they hold too many: files grow after they were pinned.
    pub(super) fn keep(&self, file: &FileKey) -> bool {
        self.held <= self.most && self.files.contains_key(file)
    }

    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = FileKey> + '_ {
        self.files.keys().copied()
    }

    /// Slots that pinned files hold.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}
