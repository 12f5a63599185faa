//! What a restart finds in a cache that went through a power cut, judged against the files themselves.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use migshare_storage::cache::{BLOCK, Cache, FileKey, FileStore};
use migshare_storage::fs::Marks;

use super::boot::run;

/// A disk image, mounted through a loop device while this lives.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(image: &Path, at: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(image).arg(&at));
        Self(at)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// What was found of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) blocks: u64,
    /// Served and right.
    pub(crate) right: u64,
    /// Served and wrong: never.
    pub(crate) wrong: u64,
    /// Indexed, and refused because the checksum says so.
    pub(crate) refused: u64,
}

/// Opens the cache as the sidecar does after a restart, and reads everything of one file that it has.
pub(crate) fn find(cache: &Cache<FileStore>, backend: u64, file: &Path) -> Found {
    let truth = fs::read(file).unwrap();
    let open = File::open(file).unwrap();
    let key = FileKey { backend, inode: open.metadata().unwrap().ino() };
    let version = Marks::of(&open).unwrap().version(&open).unwrap();
    let mut found = Found { blocks: (truth.len() as u64).div_ceil(BLOCK), ..Found::default() };
    for block in 0..found.blocks {
        let Some(parts) = cache.lookup(key, &version, block * BLOCK, BLOCK) else { continue };
        let mut bytes = vec![0; BLOCK as usize];
        let read = cache.store().data_for_reads();
        let mut aligned = migshare_storage::io::Buffer::new(BLOCK as usize);
        read.read_exact_at(&mut aligned, parts[0].store_offset).unwrap();
        bytes.copy_from_slice(&aligned);
        let from = (block * BLOCK) as usize;
        let expected = &truth[from..(from + BLOCK as usize).min(truth.len())];
        match (parts[0].matches(&bytes), bytes.starts_with(expected)) {
            (true, true) => found.right += 1,
            (true, false) => found.wrong += 1,
            (false, _) => found.refused += 1,
        }
        parts.iter().for_each(|part| cache.unpin(part));
    }
    found
}
