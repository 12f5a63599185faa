//! The mount table of this process: which file system a directory is on, without asking that file system.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the kernel's files are: `/` but in tests.
#[derive(Clone, Debug)]
pub struct Root(pub PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

impl Root {
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Device number, `major:minor`.
    pub device: String,
    /// Where it is mounted.
    pub at: PathBuf,
    /// Type, as in `ext4`.
    pub kind: String,
    /// Source, as in `/dev/nvme1n1` or `10.0.0.1@tcp:/lustre`.
    pub source: String,
    /// Options of the file system.
    pub options: String,
}

impl Mount {
    /// Identity that survives a remount: type and source. Two file systems with the same identity are still told apart by
    /// the birth and change times of their files.
    pub fn identity(&self) -> u64 {
        // FNV-1a: the value is stored on disk, so it must not change with the compiler's hasher.
        let text = format!("{} {}", self.kind, self.source);
        text.bytes()
            .fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// The mount that a directory is on.
///
/// # Errors
/// When the directory or the mount table cannot be read.
pub fn mount_of(root: &Root, directory: &Path) -> io::Result<Option<Mount>> {
    let device = fs::metadata(directory)?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string(root.at("proc/self/mountinfo"))?;
    let mounts: Vec<Mount> = table.lines().filter_map(parse).collect();
    // By number; btrfs and overlays answer with one that is not in the table: by the longest path then.
    let by_number = mounts.iter().find(|m| m.device == number);
    Ok(by_number.or_else(|| by_path(&mounts, directory)).cloned())
}

fn by_path<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().filter(|m| path.starts_with(&m.at)).max_by_key(|m| m.at.as_os_str().len())
}

/// From one line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
impl FromStr for Mount {
    type Err = ();
    fn from_str(line: &str) -> Result<Self, ()> {
        parse(line).ok_or(())
    }
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (device, at) = (front.next()?, front.nth(1)?);
    let mut back = back.split(' ');
    let (kind, source, options) = (back.next()?, back.next()?, back.next().unwrap_or(""));
    Some(Mount {
        device: device.to_owned(),
        at: PathBuf::from(unescape(at)),
        kind: kind.to_owned(),
        source: unescape(source),
        options: options.to_owned(),
    })
}

/// Octal escapes of blanks, as the mount table writes them.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_mount_table_are_read() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!((mount.device.as_str(), mount.at.as_path()), ("98:0", Path::new("/mnt 2")));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext3", "/dev/root"));
        for broken in ["", "36 35 98:0", "a - b", " - ", "36 35 98:0 / / rw - ext3"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }
}
