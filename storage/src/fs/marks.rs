//! What tells one content of a file from another where size and times do not: the generation of its inode, and on Lustre
//! the version of its data.
//!
//! ```text
//!   backend                     generation               version of the data
//!   Lustre                      of the file's handle     sum over its objects; misses what other clients have not sent yet
//!   FUSE (GlusterFS, …)         none                     none
//!   any other with handles      of the file's handle     none
//! ```
//! A number that a backend does not give is 0, and so equal to itself: then size and times decide alone.

#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod raw;

use std::io;
use std::os::fd::AsFd;

use rustix::fs::fstatfs;

use super::layout::Layout;
use crate::cache::Version;

/// Types of file systems, as statfs(2) names them: linux/magic.h, and LL_SUPER_MAGIC of Lustre's lustre_user.h.
const FUSE: u64 = 0x6573_5546;
const LUSTRE: u64 = 0x0BD0_0BD0;

/// Which numbers a backend is asked for. Found out once, because asking for the type may cost a round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    handles: bool,
    data_version: bool,
}

impl Marks {
    /// What the file system of a file or directory has.
    ///
    /// # Errors
    /// When it does not say what it is.
    pub fn of(any: impl AsFd) -> io::Result<Self> {
        Ok(Self::of_type(fstatfs(any)?.f_type.cast_unsigned()))
    }

    fn of_type(kind: u64) -> Self {
        // A handle of FUSE is the number that its daemon gave out, and may give out otherwise after forgetting the file.
        Self { handles: kind != FUSE, data_version: kind == LUSTRE }
    }

    /// Which part of the backend has which bytes of an open file; known of Lustre alone. May block.
    pub(super) fn layout(self, file: impl AsFd) -> Layout {
        if self.data_version { Layout::of(file) } else { Layout::default() }
    }

    /// Version of an open file, now.
    ///
    /// # Errors
    /// When the backend cannot say.
    pub fn version(self, file: impl AsFd) -> io::Result<Version> {
        let file = file.as_fd();
        let generation = if self.handles { raw::handle(file).map_or(0, |h| fold(&h)) } else { 0 };
        let data_version = if self.data_version { raw::lustre_data_version(file).unwrap_or(0) } else { 0 };
        Ok(Version { generation, data_version, ..Version::of(file)? })
    }
}

/// FNV-1a: the value is stored on disk, so it must not change with the compiler's hasher.
fn fold(handle: &[u8]) -> u64 {
    handle.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;

    #[test]
    fn file_systems_are_asked_for_what_they_have() {
        let ext4 = Marks::of_type(0xEF53);
        assert_eq!((ext4.handles, ext4.data_version), (true, false));
        assert_eq!(Marks::of_type(FUSE), Marks { handles: false, data_version: false });
        assert_eq!(Marks::of_type(LUSTRE), Marks { handles: true, data_version: true });
    }

    #[test]
    fn a_file_keeps_its_generation_and_another_one_has_another() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        fs::write(&one, "x").unwrap();
        fs::write(&two, "x").unwrap();
        let marks = Marks::of(File::open(&one).unwrap()).unwrap();
        let of = |path: &Path| marks.version(File::open(path).unwrap()).unwrap();
        let before = of(&one);
        fs::write(&one, "other").unwrap();
        fs::rename(&one, dir.path().join("three")).unwrap();
        assert_eq!(of(&dir.path().join("three")).generation, before.generation);
        if before.generation == 0 {
            assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "no file handles in {dir:?}");
            return println!("SKIP: the file system of {dir:?} has no file handles");
        }
        assert_ne!(of(&two).generation, before.generation);
    }

    #[test]
    fn a_backend_that_only_seems_to_be_lustre_is_told_apart_by_size_and_times() {
        let file = tempfile::tempfile().unwrap();
        let version = Marks::of_type(LUSTRE).version(&file).unwrap();
        assert_eq!(version.data_version, 0);
        assert_eq!(Version { generation: 0, ..version }, Version::of(&file).unwrap());
    }
}
