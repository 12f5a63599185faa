//! Listings. A reply holds the kernel's buffer and says only when it is full, so entries are collected first and put in when
//! somebody still waits; those that find no room are given back and asked for again.

use std::sync::Arc;
use std::time::Duration;

use fuser::{FileAttr, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request};

use super::convert::{file_attr, kind};
use super::front::{Front, caller};
use crate::fs::{DirEntry, Fs, Listed};

impl Front {
    pub(super) fn list(&self, req: &Request, handle: u64, offset: u64, reply: ReplyDirectory) {
        let ours = Arc::clone(&self.fs);
        let answer = move |mut reply: ReplyDirectory, entries: Vec<DirEntry>| {
            let full = entries.iter().any(|e| reply.add(INodeNo(e.inode), e.next, kind(e.kind), &e.name));
            // Before the reply, which lets the next request come.
            ours.took_all(handle, !full);
            reply.ok();
        };
        self.run(req, reply, move |fs| fs.list(handle, offset), answer);
    }

    /// `directory`: its node, and the handle.
    pub(super) fn list_with_attributes(
        &self,
        req: &Request,
        directory: (u64, u64),
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (who, ttl, ours) = (caller(req), self.options.attribute_timeout, Arc::clone(&self.fs));
        let (parent, handle) = directory;
        let work = move |fs: &Fs| fs.list_with_attributes(&who, parent, handle, offset);
        let answer = move |mut reply: ReplyDirectoryPlus, listed: Vec<Listed>| {
            let mut left = listed.into_iter();
            let refused = left.find(|listed| add(&mut reply, listed, ttl));
            ours.took_all(handle, refused.is_none());
            ours.unlist(refused.into_iter().chain(left));
            reply.ok();
        };
        self.run_or_undo(req, reply, work, answer, Fs::unlist);
    }
}

/// Puts an entry in; `true` when there was no room.
fn add(reply: &mut ReplyDirectoryPlus, (entry, attr): &Listed, ttl: Duration) -> bool {
    // What is not known is looked up before it is next used.
    let (attr, ttl) = attr.as_ref().map_or_else(|| (unknown(entry), Duration::ZERO), |a| (file_attr(a), ttl));
    reply.add(attr.ino, entry.next, &entry.name, &ttl, &attr, Generation(0))
}

/// All that a listing tells of an entry.
fn unknown(entry: &DirEntry) -> FileAttr {
    let never = std::time::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(entry.inode),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: kind(entry.kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
