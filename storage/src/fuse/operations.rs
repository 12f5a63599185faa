//! One method per FUSE operation: takes the request apart, and says what is answered.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{file_attr, lock_ask, lock_number, set_time, xattr_answer};
use super::front::{Answer, Front, caller, number};
use super::locking::LockRequest;
use crate::config::LockMode;
use crate::fs::{Attr, Fs, Opened, SetAttr, Writer};

/// Largest request.
const LARGEST: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background: reads by AIO and io_uring, and reading ahead. Beyond it, all
/// others wait in front of the mount, hits too, so that as many misses of a silent backend would stop everybody: as many as the
/// protocol has. A user's mount gets what the kernel's `max_user_bgreq` allows.
const BACKGROUND: u16 = u16::MAX;
/// How long attributes are believed that were given for want of better ones.
const STALE_TTL: Duration = Duration::from_secs(1);

impl Filesystem for Front {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each of these is an offer of newer kernels; without one the next best way is taken.
        let wanted = [
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        for flag in wanted {
            let _ = config.add_capabilities(flag);
        }
        for (flag, wanted) in [
            (InitFlags::FUSE_FLOCK_LOCKS, matches!(self.options.locks, LockMode::Flock | LockMode::Backend)),
            (InitFlags::FUSE_POSIX_LOCKS, matches!(self.options.locks, LockMode::Fcntl | LockMode::Backend)),
        ] {
            if wanted {
                let _ = config.add_capabilities(flag);
            }
        }
        // A direct file can be mapped shared only where the kernel allows it; else the mount stays cached.
        self.direct_maps = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
        self.direct &= self.direct_maps;
        let _ = config.set_max_write(LARGEST);
        if let Err(most) = config.set_max_readahead(LARGEST) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (who, name) = (caller(req), name.to_owned());
        self.run_entry(req, reply, move |fs| fs.lookup(&who, parent.0, &name));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(ino.0, nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ttl = self.options.attribute_timeout;
        let known = self.fs.node(ino.0).ok().and_then(|node| node.last_attr());
        let ticket = match known {
            None => self.enter(req, reply),
            Some(attr) => {
                let last = move |reply: ReplyAttr| reply.attr(&STALE_TTL, &file_attr(&attr));
                let after = self.options.substitute_after;
                self.waiting.enter_with(req.pid(), reply, ReplyAttr::fail, after, last)
            }
        };
        let fs = Arc::clone(&self.fs);
        self.workers.run(Box::new(move || {
            let result = fs.getattr(ino.0);
            match (ticket.take(), result) {
                (Some(reply), Ok(attr)) => reply.attr(&ttl, &file_attr(&attr)),
                (Some(reply), Err(error)) => reply.fail(number(&error)),
                (None, _) => {}
            }
        }));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (who, ttl) = (caller(req), self.options.attribute_timeout);
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let work = move |fs: &Fs| fs.setattr(&who, ino.0, fh.map(|h| h.0), &set);
        self.run(req, reply, work, move |reply, attr| reply.attr(&ttl, &file_attr(&attr)));
    }

    fn readlink(&self, req: &Request, ino: INodeNo, reply: ReplyData) {
        self.run(req, reply, move |fs| fs.readlink(ino.0), |reply, target| reply.data(&target));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (who, name) = (caller(req), name.to_owned());
        self.run_entry(req, reply, move |fs| fs.mknod(&who, parent.0, &name, (mode, umask), rdev.into()));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (who, name) = (caller(req), name.to_owned());
        self.run_entry(req, reply, move |fs| fs.mkdir(&who, parent.0, &name, mode, umask));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, name) = (caller(req), name.to_owned());
        self.run(req, reply, move |fs| fs.unlink(&who, parent.0, &name, false), |reply, ()| reply.ok());
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, name) = (caller(req), name.to_owned());
        self.run(req, reply, move |fs| fs.unlink(&who, parent.0, &name, true), |reply, ()| reply.ok());
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (who, name, target) = (caller(req), name.to_owned(), target.to_owned());
        self.run_entry(req, reply, move |fs| fs.symlink(&who, parent.0, &name, &target));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (who, name, newname) = (caller(req), name.to_owned(), newname.to_owned());
        let work = move |fs: &Fs| fs.rename(&who, (parent.0, &name), (newparent.0, &newname), flags.bits());
        self.run(req, reply, work, |reply, ()| reply.ok());
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (who, name) = (caller(req), newname.to_owned());
        self.run_entry(req, reply, move |fs| fs.link(&who, ino.0, newparent.0, &name));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, direct) = (caller(req), self.open_flags(flags.0, Opened { handle: 0, keep_pages: false }));
        let quiet = self.flush_flags(flags.0);
        let answer = move |reply: ReplyOpen, opened: Opened| {
            let keep = if opened.keep_pages { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
            let flags = if direct.is_empty() { keep } else { direct } | quiet;
            reply.opened(FileHandle(opened.handle), flags);
        };
        let work = move |fs: &Fs| fs.open(&who, ino.0, flags.0);
        self.run_or_undo(req, reply, work, answer, |fs, opened| fs.release(opened.handle));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (who, name, ttl) = (caller(req), name.to_owned(), self.options.attribute_timeout);
        let open_flags = self.open_flags(flags, Opened { handle: 0, keep_pages: false });
        let work = move |fs: &Fs| fs.create(&who, parent.0, &name, (mode, umask), flags);
        let answer = move |reply: ReplyCreate, (attr, opened): (Attr, Opened)| {
            let handle = FileHandle(opened.handle);
            reply.created(&ttl, &file_attr(&attr), Generation(0), handle, open_flags);
        };
        self.run_or_undo(req, reply, work, answer, |fs, (attr, opened)| {
            fs.release(opened.handle);
            fs.forget(attr.id, 1);
        });
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let open = match self.fs.file(fh.0) {
            Ok(open) => open,
            Err(error) => return reply.fail(number(&error)),
        };
        let ticket = self.enter(req, reply);
        let answer = move |result: io::Result<&[u8]>| {
            let Some(reply) = ticket.take() else { return };
            match result {
                Ok(bytes) => reply.data(bytes),
                Err(error) => reply.fail(number(&error)),
            }
        };
        self.fs.read(&open, offset, size, Box::new(answer));
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let writer = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            Writer::Mapping
        } else {
            Writer::Call { caller: caller(req), appends: flags.0 & libc::O_APPEND != 0 }
        };
        let data = data.to_vec();
        let work = move |fs: &Fs| fs.write(writer, fh.0, offset, &data);
        self.run(req, reply, work, |reply, written| reply.written(written as u32));
    }

    fn flush(&self, req: &Request, _ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        // Who only read must get out of a mount whose backend hangs.
        match self.fs.flush_at_once(fh.0, owner.0) {
            Some(Ok(())) => return reply.ok(),
            Some(Err(error)) => return reply.fail(number(&error)),
            None => {}
        }
        let parked = Arc::clone(&self.parked);
        let work = move |fs: &Fs| {
            if fs.drop_owner(fh.0, owner.0) {
                parked.wake_all();
            }
            fs.flush(fh.0)
        };
        self.run_on(&self.flushers, req, reply, work, |reply, ()| reply.ok());
    }

    fn getlk(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        let (who, ask) = (caller(req), lock_ask((fh, owner), (start, end), typ));
        let work = move |fs: &Fs| fs.test_fcntl(&who, &ask);
        self.run(req, reply, work, move |reply, found| match found {
            None => reply.locked(start, end, libc::F_UNLCK, 0),
            // The holder may live on another node: it has no number here.
            Some((kind, start, end)) => reply.locked(start, end, lock_number(kind), 0),
        });
    }

    fn setlk(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        _pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let request = LockRequest {
            fs: Arc::clone(&self.fs),
            ticket: self.waiting.enter_patient(req.pid(), reply, ReplyEmpty::fail),
            who: caller(req),
            mode: self.options.locks,
            ask: lock_ask((fh, owner), (start, end), typ),
            wait: sleep,
        };
        let parked = Arc::clone(&self.parked);
        self.workers.run(Box::new(move || request.begin(&parked)));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // Closing may wait for the backend; nobody waits for the answer.
        let (fs, parked) = (Arc::clone(&self.fs), Arc::clone(&self.parked));
        self.closers.run(Box::new(move || {
            fs.release(fh.0);
            parked.wake_all();
            reply.ok();
        }));
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.run(req, reply, move |fs| fs.fsync(fh.0, datasync), |reply, ()| reply.ok());
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let who = caller(req);
        let answer = |reply: ReplyOpen, handle| reply.opened(FileHandle(handle), FopenFlags::empty());
        let work = move |fs: &Fs| fs.opendir(&who, ino.0);
        self.run_or_undo(req, reply, work, answer, |fs, handle| fs.releasedir(handle));
    }

    fn readdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.list(req, fh.0, offset, reply);
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list_with_attributes(req, (ino.0, fh.0), offset, reply);
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.run(req, reply, move |fs| fs.fsyncdir(fh.0), |reply, ()| reply.ok());
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.run(
            req,
            reply,
            move |fs| fs.statfs(ino.0),
            |reply, s| {
                let (size, fragment) = (s.f_bsize as u32, s.f_frsize as u32);
                let name = s.f_namemax as u32;
                reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, size, name, fragment);
            },
        );
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (who, name, value) = (caller(req), name.to_owned(), value.to_vec());
        let work = move |fs: &Fs| fs.setxattr(&who, ino.0, &name, &value, flags);
        self.run(req, reply, work, |reply, ()| reply.ok());
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (who, name) = (caller(req), name.to_owned());
        self.run(req, reply, move |fs| fs.getxattr(&who, ino.0, &name), xattr_answer(size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let who = caller(req);
        self.run(req, reply, move |fs| fs.listxattr(&who, ino.0), xattr_answer(size));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (who, name) = (caller(req), name.to_owned());
        self.run(req, reply, move |fs| fs.removexattr(&who, ino.0, &name), |reply, ()| reply.ok());
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // With default_permissions the kernel decides and does not ask; an older one that does is told to.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let who = caller(req);
        let work = move |fs: &Fs| fs.fallocate(&who, fh.0, mode, offset, length);
        self.run(req, reply, work, |reply, ()| reply.ok());
    }

    fn lseek(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let work = move |fs: &Fs| fs.lseek(fh.0, offset, whence);
        self.run(req, reply, work, |reply, at| reply.offset(at.cast_signed()));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let who = caller(req);
        let work = move |fs: &Fs| fs.copy_file_range(&who, (fh_in.0, offset_in), (fh_out.0, offset_out), len);
        self.run(req, reply, work, |reply, copied| reply.written(copied as u32));
    }
}
