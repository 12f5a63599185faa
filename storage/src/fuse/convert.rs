//! Attributes, times and kinds in the words of the FUSE crate.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileHandle, FileType, INodeNo, LockOwner, ReplyXattr, TimeOrNow};
use rustix::fs::FileType as Kind;

use crate::fs::{Attr, LockAsk, LockType, SetTime};

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let stat = &attr.stat;
    let time = |secs: i64, nanos: u64| match u64::try_from(secs) {
        Ok(secs) => UNIX_EPOCH + Duration::new(secs, nanos as u32),
        Err(_) => UNIX_EPOCH - Duration::from_secs(secs.unsigned_abs()) + Duration::from_nanos(nanos),
    };
    FileAttr {
        ino: INodeNo(attr.id),
        size: stat.st_size.cast_unsigned(),
        blocks: stat.st_blocks.cast_unsigned(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(Kind::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => match at.duration_since(UNIX_EPOCH) {
            Ok(after) => SetTime::At(after.as_secs().cast_signed(), after.subsec_nanos()),
            Err(before) => {
                let before = before.duration();
                let nanos = before.subsec_nanos();
                let borrow = i64::from(nanos > 0);
                SetTime::At(-before.as_secs().cast_signed() - borrow, (1_000_000_000 - nanos) % 1_000_000_000)
            }
        },
    }
}

pub(super) fn xattr_answer(size: u32) -> impl FnOnce(ReplyXattr, Vec<u8>) + Send + 'static {
    move |reply, value| {
        if size == 0 {
            reply.size(value.len() as u32);
        } else if value.len() > size as usize {
            reply.error(Errno::ERANGE);
        } else {
            reply.data(&value);
        }
    }
}

/// What a lock request asks for: `who` as (open file, owner), `range` as (first byte, last byte).
pub(super) fn lock_ask(who: (FileHandle, LockOwner), range: (u64, u64), number: i32) -> LockAsk {
    let kind = match number {
        libc::F_RDLCK => LockType::Read,
        libc::F_WRLCK => LockType::Write,
        _ => LockType::Unlock,
    };
    LockAsk { handle: who.0.0, owner: who.1.0, kind, start: range.0, end: range.1 }
}

pub(super) fn lock_number(kind: LockType) -> i32 {
    match kind {
        LockType::Read => libc::F_RDLCK,
        LockType::Write => libc::F_WRLCK,
        LockType::Unlock => libc::F_UNLCK,
    }
}
