//! Where slots and records are kept: two files, or in tests a store that loses unsynced sectors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::BLOCK;
use super::directory::CacheDir;

/// Reads and writes of the store. Offsets and lengths of data are multiples of 4096, of the index of 512.
pub trait Sectors: Send + Sync {
    /// Reads index bytes.
    ///
    /// # Errors
    /// When the device fails.
    fn read_index(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes index bytes.
    ///
    /// # Errors
    /// When the device fails or is read-only.
    fn write_index(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes data.
    ///
    /// # Errors
    /// When the device fails, is full or read-only.
    fn write_data(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// When the device fails.
    fn sync(&self) -> io::Result<()>;
}

/// The two files of a cache directory.
#[derive(Debug)]
pub struct FileStore {
    dir: CacheDir,
}

impl FileStore {
    pub(super) fn new(dir: CacheDir) -> Self {
        Self { dir }
    }

    /// The data file for the IO engine: opened with O_DIRECT where the file system has it.
    pub fn data_for_reads(&self) -> Arc<File> {
        Arc::clone(&self.dir.direct)
    }

    /// Whether [`Self::data_for_reads`] bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.dir.is_direct
    }
}

impl Sectors for FileStore {
    fn read_index(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.dir.index.read_exact_at(into, offset)
    }

    fn write_index(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.dir.index.write_all_at(bytes, offset)
    }

    fn write_data(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(BLOCK as usize);
        let file = if aligned { &*self.dir.direct } else { &self.dir.data };
        file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.dir.data.sync_data()?;
        self.dir.index.sync_data()
    }
}
