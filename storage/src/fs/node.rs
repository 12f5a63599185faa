//! Nodes: backend objects that the kernel knows, each held by an O_PATH descriptor.
//!
//! The descriptor keeps the inode alive, so an unlinked open file stays reachable and an inode number cannot be
//! reused while the kernel still knows the old one. Paths are never stored: renames cost nothing.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Stat, fstat};

use super::version::FileState;
use super::writes::Writing;
use super::{Attr, Marks, ROOT};
use crate::cache::FileKey;

/// A backend object.
#[derive(Debug)]
pub struct Node {
    id: u64,
    fd: OwnedFd,
    key: (u64, u64),
    state: Arc<FileState>,
    last: Mutex<Stat>,
    /// See [`super::crowd`].
    pub(super) listed: AtomicBool,
    /// What writers of it share.
    pub(super) writing: Writing,
}

impl Node {
    /// Under which number the kernel knows it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is known of its content.
    pub fn state(&self) -> &Arc<FileState> {
        &self.state
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its name below /proc/self/fd.
    pub(super) fn fd_name(&self) -> String {
        self.fd.as_raw_fd().to_string()
    }

    /// Attributes as the backend has them now.
    pub(super) fn attr(&self) -> io::Result<Attr> {
        let stat = fstat(&self.fd)?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = stat;
        Ok(Attr { id: self.id, stat })
    }

    /// Attributes as they were last seen, of a file whose content is known: good enough to go on reading it from the cache
    /// while the backend is silent.
    pub fn last_attr(&self) -> Option<Attr> {
        let stat = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.state.current()?.version;
        (stat.st_size.cast_unsigned() == known.size).then_some(Attr { id: self.id, stat })
    }
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<u64, (Arc<Node>, u64)>,
    by_key: HashMap<(u64, u64), u64>,
    next_odd: u64,
}

#[derive(Debug)]
pub(super) struct NodeTable {
    maps: Mutex<Maps>,
    root: (u64, u64),
    backend: u64,
    marks: Marks,
}

/// Ids of objects whose inode number cannot serve as one: other devices below the backend, and numbers 0 and 1.
const ODD: u64 = 1 << 63;

impl NodeTable {
    pub(super) fn new(root: OwnedFd, backend: u64) -> io::Result<Self> {
        let stat = fstat(&root)?;
        let marks = Marks::of(&root)?;
        let table = Self { maps: Mutex::default(), root: (stat.st_dev, stat.st_ino), backend, marks };
        table.adopt(root, &stat);
        Ok(table)
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.maps().by_id.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Node>> {
        self.maps().by_id.get(&id).map(|(node, _)| Arc::clone(node))
    }

    /// Gives the object of `fd` a node, or another reference to the one it has.
    pub(super) fn adopt(&self, fd: OwnedFd, stat: &Stat) -> Arc<Node> {
        let key = (stat.st_dev, stat.st_ino);
        let mut maps = self.maps();
        if let Some(id) = maps.by_key.get(&key).copied()
            && let Some((node, count)) = maps.by_id.get_mut(&id)
        {
            *count += 1;
            *node.last.lock().unwrap_or_else(PoisonError::into_inner) = *stat;
            return Arc::clone(node);
        }
        let id = self.id_of(&mut maps, key);
        let file = self.file_key(stat);
        let node = Arc::new(Node {
            id,
            fd,
            key,
            state: Arc::new(FileState::new(file, self.marks)),
            last: Mutex::new(*stat),
            listed: AtomicBool::new(false),
            writing: Writing::default(),
        });
        maps.by_id.insert(id, (Arc::clone(&node), 1));
        maps.by_key.insert(key, id);
        node
    }

    /// Under which key the cache knows a file.
    pub(super) fn file_key(&self, stat: &Stat) -> FileKey {
        FileKey { backend: self.backend ^ stat.st_dev.wrapping_sub(self.root.0), inode: stat.st_ino }
    }

    fn id_of(&self, maps: &mut Maps, key: (u64, u64)) -> u64 {
        if key == self.root {
            ROOT
        } else if key.0 == self.root.0 && (2..ODD).contains(&key.1) {
            key.1
        } else {
            maps.next_odd += 1;
            ODD | maps.next_odd
        }
    }

    pub(super) fn forget(&self, id: u64, count: u64) {
        if id == ROOT {
            return;
        }
        let mut maps = self.maps();
        let Some((node, left)) = maps.by_id.get_mut(&id) else { return };
        *left = left.saturating_sub(count);
        if *left == 0 {
            let key = node.key;
            maps.by_id.remove(&id);
            maps.by_key.remove(&key);
        }
    }
}
