//! What a dirty file looks like: the backend's bytes where they still count, the journal's on top, and the attributes.

use std::io;
use std::os::unix::fs::FileExt;

use crate::dirty::Piece;
use crate::fs::{Attr, Fs, Node, OpenFile};

use super::WriteBack;

/// A segment may go while its bytes are being asked for, because they have reached the backend: then the state is asked again.
pub(super) const TRIES: u32 = 4;

impl WriteBack {
    /// Bytes of a file, dirty or not; fewer than asked for at its end only.
    ///
    /// # Errors
    /// When the backend or the journal's device fails.
    pub(super) fn read(&self, open: &OpenFile, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut last = io::Error::from_raw_os_error(libc::EIO);
        for _ in 0..TRIES {
            let known = self.ledger.dirty().find(open.node.state().key()).map(|(_, f)| {
                let len = len.min(f.size().saturating_sub(offset));
                (len, f.overlay(offset, len))
            });
            let Some((len, (pieces, valid))) = known else {
                let mut bytes = vec![0; len as usize];
                let got = read_some(&open.file, offset, &mut bytes)?;
                bytes.truncate(got);
                return Ok(bytes);
            };
            match self.compose(open, offset, len, &pieces, valid) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn compose(
        &self,
        open: &OpenFile,
        offset: u64,
        len: u64,
        pieces: &[Piece],
        valid: u64,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        let covered: u64 = pieces.iter().map(|p| p.len).sum();
        let below = valid.saturating_sub(offset).min(len);
        if covered < len && below > 0 {
            read_some(&open.file, offset, &mut bytes[..below as usize])?;
        }
        for piece in pieces {
            let at = (piece.offset - offset) as usize;
            bytes[at..at + piece.len as usize].copy_from_slice(&self.ledger.read(piece)?);
        }
        Ok(bytes)
    }
}

fn read_some(file: &std::fs::File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read_at(&mut into[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

impl Fs {
    /// Attributes as users of the mount see them: size and modification time of a dirty file are the journal's.
    pub(in crate::fs) fn seen(&self, node: &Node, mut attr: Attr) -> Attr {
        let Some(back) = self.back() else { return attr };
        let dirty = back.ledger.dirty();
        let Some((_, file)) = dirty.find(node.state().key()) else { return attr };
        attr.stat.st_size = file.size().cast_signed();
        attr.stat.st_blocks = attr.stat.st_blocks.max(file.bytes().div_ceil(512).cast_signed());
        let (secs, nanos) = (file.mtime().div_euclid(1_000_000_000), file.mtime().rem_euclid(1_000_000_000));
        attr.stat.st_mtime = secs;
        attr.stat.st_mtime_nsec = nanos.cast_unsigned();
        attr
    }
}
