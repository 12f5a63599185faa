//! The memory of one segment: an anonymous file whose size is sealed.
//!
//! A named segment under /dev/shm would be simpler and is not used: a name can be opened by every process of the user, it
//! is not there for a job with a /dev/shm of its own, it outlives a killed step, and its file cannot be sealed, so that a
//! peer's ftruncate(2) ends its neighbours by SIGBUS (memfd_create(2), fcntl(2) on F_ADD_SEALS).
//!
//! Placement is left to the ranks: the agent touches no page and sets no memory policy, so that each page is taken when a rank
//! first writes to it, on the NUMA node that the rank that owns this part of the segment has it preferred on.
//!
//! Huge pages are transparent ones: the size is a multiple of 2 MiB and the ranks madvise(2) their mapping, which counts where
//! /sys/kernel/mm/transparent_hugepage/shmem_enabled says `advise`. With `segments.huge_pages = "try"` they come from the pool
//! of hugetlbfs, if the pool has enough for the whole segment: it is reserved at once, so that a rank never finds the pool empty,
//! and nobody else has the pages as long as the segment lives, touched or not. One way to SIGBUS is left there: a rank that gives
//! pages back itself by punching holes (fallocate(2)) loses the reservation with them.

use super::limits::{GRAIN, HugePages};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What makes a file this one and no other: nobody can make a second with the same numbers while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

/// The memory of one segment; it goes when the last process lets go of it.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    id: FileId,
}

/// How the kernel gives huge pages to memory of this kind (Documentation/admin-guide/mm/transhuge.rst).
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// The word in force there, such as `never` or `advise`; none where the kernel has no huge pages.
pub(super) fn huge_pages() -> Option<String> {
    chosen(&std::fs::read_to_string(HUGE_PAGES).ok()?)
}

/// The word in brackets.
fn chosen(words: &str) -> Option<String> {
    words.split(['[', ']']).nth(1).map(str::to_owned)
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl Memory {
    /// New memory, all zero, none of it taken yet. The name is for people who look at /proc.
    pub(super) fn make(name: &str, bytes: u64, pages: HugePages) -> io::Result<Memory> {
        let file = match pages {
            HugePages::Never => sized(name, bytes, MemfdFlags::empty())?,
            HugePages::Try => from_pool(name, bytes).or_else(|error| {
                let (needed, free) = (bytes / GRAIN, free_huge_pages());
                tracing::warn!(
                    name,
                    needed,
                    free,
                    %error,
                    "segment has ordinary pages: the pool of 2 MiB pages (vm.nr_hugepages) does not have enough"
                );
                sized(name, bytes, MemfdFlags::empty())
            })?,
        };
        fcntl_add_seals(&file, SEALS)?;
        let id = id_of(&file)?;
        Ok(Memory { file, id })
    }

    /// Memory that an earlier agent made, found behind a path in /proc. None when it is anything else.
    pub(super) fn find(path: &Path, id: FileId, bytes: u64) -> Option<Memory> {
        let named = std::fs::metadata(path).ok()?;
        if (FileId { dev: named.dev(), ino: named.ino() }) != id {
            return None;
        }
        let file = File::options().read(true).write(true).open(path).ok()?;
        let sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SEALS));
        let same = id_of(&file).is_ok_and(|found| found == id);
        let whole = file.metadata().is_ok_and(|meta| meta.len() == bytes);
        (sealed && same && whole).then_some(Memory { file, id })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The memory opened once more, for a rank: what it does to its file description is its own affair.
    pub(super) fn reopen(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::options().read(true).write(true).open(path).map(OwnedFd::from)
    }
}

/// An anonymous file of this size.
fn sized(name: &str, bytes: u64, more: MemfdFlags) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | more;
    // What ranks share is data. Kernels before 6.3 do not know the flag and cannot seal that.
    let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags)?,
        other => other?,
    };
    ftruncate(&file, bytes)?;
    Ok(File::from(file))
}

/// The same from the pool of huge pages, all of them reserved.
fn from_pool(name: &str, bytes: u64) -> io::Result<File> {
    let file = sized(name, bytes, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?;
    // A mapping reserves pages for the file, which keeps them when the mapping is gone (hugetlbfs_reserv in the kernel's mm
    // documentation). It is not looked at.
    drop(memmap2::MmapOptions::new().map_raw(&file)?);
    Ok(file)
}

/// Pages of 2 MiB in the pool that nobody has or has reserved.
fn free_huge_pages() -> u64 {
    let pool = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB");
    let read = |name| std::fs::read_to_string(pool.join(name)).ok().and_then(|text| text.trim().parse().ok());
    let count = |name| read(name).unwrap_or(0_u64);
    count("free_hugepages").saturating_sub(count("resv_hugepages"))
}

fn id_of(file: &File) -> io::Result<FileId> {
    let meta = file.metadata()?;
    Ok(FileId { dev: meta.dev(), ino: meta.ino() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const BYTES: u64 = 2 << 20;

    fn plain(bytes: u64) -> io::Result<Memory> {
        Memory::make("test", bytes, HugePages::Never)
    }

    /// Pages in the pool while a test runs; none where it may not fill the pool.
    struct Pool(u64);

    impl Pool {
        const COUNT: &str = "/proc/sys/vm/nr_hugepages";

        fn add(pages: u64) -> Option<Pool> {
            let before: u64 = std::fs::read_to_string(Pool::COUNT).ok()?.trim().parse().ok()?;
            std::fs::write(Pool::COUNT, (before + pages).to_string()).ok()?;
            let pool = Pool(before);
            (free_huge_pages() >= pages).then_some(pool)
        }
    }

    impl Drop for Pool {
        fn drop(&mut self) {
            std::fs::write(Pool::COUNT, self.0.to_string()).unwrap();
        }
    }

    #[test]
    fn huge_pages_are_reserved_for_the_whole_segment_and_go_back_with_it() {
        let Some(_pool) = Pool::add(4) else {
            // Nothing that could be installed helps where memory is in pieces or belongs to somebody else.
            return println!("SKIP: no huge pages can be had here");
        };
        let free = free_huge_pages();
        let memory = Memory::make("test", 3 * BYTES, HugePages::Try).unwrap();
        let rank = File::from(memory.reopen().unwrap());
        assert_eq!(rank.metadata().unwrap().blksize(), BYTES, "of huge pages");
        assert_eq!(free - free_huge_pages(), 3, "reserved before anybody touches them");
        assert!(rank.set_len(BYTES).is_err() && rank.set_len(4 * BYTES).is_err());
        let mapped = memmap2::MmapOptions::new().map_raw(&rank).unwrap();
        let path = format!("/proc/self/fd/{}", rank.as_raw_fd());
        assert!(Memory::find(Path::new(&path), memory.id(), 3 * BYTES).is_some());
        drop((memory, mapped, rank));
        assert_eq!(free_huge_pages(), free);
    }

    #[test]
    fn where_the_pool_is_too_small_the_pages_are_ordinary() {
        let more = (free_huge_pages() + 1000) * BYTES;
        let memory = Memory::make("test", more, HugePages::Try).unwrap();
        let meta = memory.file().metadata().unwrap();
        assert_eq!((meta.len(), meta.blocks()), (more, 0));
        assert!(meta.blksize() < BYTES);
    }

    #[test]
    fn the_word_in_force_is_the_one_in_brackets() {
        let words = "always within_size advise [never] deny force\n";
        assert_eq!(chosen(words).as_deref(), Some("never"));
        assert_eq!(chosen(""), None);
    }

    #[test]
    fn its_size_cannot_be_changed_and_its_bytes_are_shared() {
        let memory = plain(BYTES).unwrap();
        let rank = File::from(memory.reopen().unwrap());
        for size in [0, BYTES - 1, BYTES + 1] {
            assert_eq!(rank.set_len(size).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{size}");
        }
        assert!(fcntl_add_seals(&rank, SealFlags::WRITE).is_err(), "nor can it be made read-only");
        rank.write_all_at(b"rank", BYTES - 4).unwrap();
        let mut seen = [0; 4];
        memory.file().read_exact_at(&mut seen, BYTES - 4).unwrap();
        assert_eq!(&seen, b"rank");
    }

    #[test]
    fn an_untouched_segment_takes_no_memory() {
        let memory = plain(64 * BYTES).unwrap();
        assert_eq!(memory.file().metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn it_is_found_again_and_nothing_else_is_taken_for_it() {
        let (memory, other) = (plain(BYTES).unwrap(), plain(BYTES).unwrap());
        let path = |m: &Memory| format!("/proc/self/fd/{}", m.file().as_raw_fd());
        let found = Memory::find(Path::new(&path(&memory)), memory.id(), BYTES).unwrap();
        assert_eq!(found.id(), memory.id());
        assert!(Memory::find(Path::new(&path(&other)), memory.id(), BYTES).is_none());
        assert!(Memory::find(Path::new(&path(&memory)), memory.id(), 2 * BYTES).is_none());
        assert!(Memory::find(Path::new("/proc/self/fd/99999"), memory.id(), BYTES).is_none());
    }
}
