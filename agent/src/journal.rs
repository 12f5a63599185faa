//! The journal: the node's durable truth as an append-only file. What was appended without error survives a crash; what was not
//! was never answered to anybody.
//!
//! ```text
//!   journal :=  line* zero*     line := crc32c(json) in 8 hex digits, ' ', json, '\n'
//!   line 1   {"format":2,"writer":"migshared 0.1.0"}
//!   others   [{"open":{…}},{"grant":{…}}]            one append: all of it or nothing, then one fsync
//! ```
//!
//! * **Room.** The file is longer than its lines: behind them it holds zeros that were written and synced ahead of need. An append then
//!   changes neither the file's length nor its blocks, and its fsync writes the data alone, where it would otherwise commit the
//!   file system's own journal, too (measured in BENCH.md). A reader that knows no room takes it for a torn tail and cuts it off.
//! * **Torn tail.** Each append is synced before the next begins, so a crash can damage the last line only: it is cut off. A
//!   damaged line with a whole one behind it is no crash, and the start is refused.
//! * **Failed append.** After a failed write or sync nobody knows what the disk holds (fsync(2) may report a failure
//!   once and forget it), so the file is not appended to again: it is replaced by a compacted one first.
//! * **Unwritable directory.** What can be read is read; the journal begins broken, so that the leases of running jobs are known.
//! * **Compaction** writes a new file, syncs it, renames it over the old one and syncs the directory.
//!
//! What the records mean, and when to compact, is decided by the driver.

pub mod disk;
mod line;

pub use disk::Told;
use disk::{DiskRecord, Entry};
use line::{Bad, Header};
use migshare_policy::record::Record;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The newest format that this code reads, and the one that it writes. A file of an older one is written anew when it is
/// opened. Format 2 came with the record of changes of shape and with the kind of refusal in what is told.
pub const FORMAT: u32 = 2;

/// A file below this size is never compacted, in bytes.
const SMALL: u64 = 256 * 1024;
/// Room is made in pieces of so many bytes: some 150 leases.
const ROOM: u64 = 64 * 1024;
/// Room below which more is made when there is time for it.
const LITTLE: u64 = ROOM / 4;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused something.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another agent has the directory.
    #[error("{0} is locked: another migshared runs with this state_dir")]
    Locked(PathBuf),
    /// A later version wrote it.
    #[error(
        "{path} has format {format}, written by {writer}; this migshared reads formats up to {FORMAT}. Start that \
         version or a later one; or let all jobs of this node end and move the file away, then this version begins anew"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// Who wrote it.
        writer: String,
    },
    /// A line is damaged and it is not the last one.
    #[error(
        "{path} line {line}: {cause}, and whole lines follow, so this is no crash but damage. Move the file away to begin anew: \
         what stands on the GPUs is adopted, and leases of running jobs are opened again by their next step"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first damaged line, from 1.
        line: usize,
        /// What is wrong with it.
        cause: String,
    },
}

/// What a journal held when it was opened.
#[derive(Debug)]
pub struct Replay {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// The decisions that were told, oldest first.
    pub told: Vec<Told>,
    /// The format that the file had; this code's own where there was no whole header yet.
    pub format: u32,
    /// Bytes that a crash had left behind the last whole line, and that were cut off.
    pub torn: u64,
}

/// How long a start waits for the lock of an agent that was killed: a program that it was about to run holds it, too, until it runs.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Time between two looks.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// An open journal. It holds a lock on its directory as long as it lives.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// None while the file cannot be written.
    file: Option<File>,
    /// Length of all whole lines, in bytes.
    len: u64,
    /// Length of the file with the zeros behind the lines, in bytes.
    end: u64,
    /// Length after the last compaction, in bytes.
    compact_len: u64,
    /// Why nothing may be appended before a compaction.
    broken: Option<String>,
    _lock: nix::fcntl::Flock<File>,
}

impl Journal {
    /// Opens the journal of a directory, which is made if need be, and reads it. One that can be read but not written is
    /// opened all the same, and is [`Self::broken`].
    pub fn open(dir: &Path) -> Result<(Journal, Replay), JournalError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| failed("cannot make", dir, e))?;
        let lock = lock(dir)?;
        let path = dir.join("journal");
        let bytes = read(&path)?;
        let (replay, len) = parse(&path, &bytes)?;
        let dir = dir.to_owned();
        let mut journal =
            Journal { dir, file: None, len, end: len, compact_len: len, broken: None, _lock: lock };
        let settled = match replay.format {
            FORMAT => journal.settle(&path, bytes.len() as u64, replay.torn),
            _ => journal.replace(&replay.records, &replay.told),
        };
        if let Err(e) = settled {
            journal.broken = Some(e.to_string());
        }
        Ok((journal, replay))
    }

    /// Appends records, and what was told with them, and syncs. On an error nothing may be believed to be on disk, and [`Self::broken`] says why
    /// until a [`Self::compact`] succeeds.
    pub fn append(&mut self, records: &[Record], told: &[Told]) -> io::Result<()> {
        if let Some(cause) = &self.broken {
            return Err(io::Error::other(cause.clone()));
        }
        let line = entries(records, told)?;
        let file = self.file.as_mut().ok_or_else(|| io::Error::other("the journal is not open"))?;
        match file.write_all_at(&line, self.len).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.len += line.len() as u64;
                self.end = self.end.max(self.len);
                Ok(())
            }
            Err(e) => {
                self.broken = Some(e.to_string());
                Err(e)
            }
        }
    }

    /// Makes room for the next appends, if little is left. Meant for a time when nobody waits. Without it appends succeed as well, only
    /// slower, so that a full disk is no failure here.
    pub fn make_room(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.broken.is_none()) else { return };
        if self.end - self.len >= LITTLE {
            return;
        }
        let made = file.write_all_at(&[0; ROOM as usize], self.end).and_then(|()| file.sync_data());
        match made {
            Ok(()) => self.end += ROOM,
            Err(error) => tracing::debug!(%error, "no room for the journal ahead of need"),
        }
    }

    /// Why the last append failed, if nothing has repaired that since.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Whether the file has grown to a multiple of what it must hold.
    pub fn is_bloated(&self) -> bool {
        self.len > SMALL.max(4 * self.compact_len)
    }

    /// Replaces the file by one that holds these records and tellings and nothing else. On an error the old file stays.
    pub fn compact(&mut self, records: &[Record], told: &[Told]) -> io::Result<()> {
        let done = self.replace(records, told);
        if let Err(e) = &done {
            self.broken.get_or_insert_with(|| e.to_string());
        }
        done
    }

    fn replace(&mut self, records: &[Record], told: &[Told]) -> io::Result<()> {
        let (new, path) = (self.dir.join("journal.new"), self.dir.join("journal"));
        let mut bytes = line::encode(&Header::ours())?;
        if !records.is_empty() || !told.is_empty() {
            bytes.extend(entries(records, told)?);
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(&self.dir)?.sync_all()?;
        self.file = Some(file);
        self.len = bytes.len() as u64;
        self.end = self.len;
        self.compact_len = self.len;
        self.broken = None;
        Ok(())
    }

    /// Cuts a torn tail off, and gives an empty file its header. `found` is the file's length, `torn` that of the tail.
    fn settle(&mut self, path: &Path, found: u64, torn: u64) -> io::Result<()> {
        if self.len == 0 {
            return self.replace(&[], &[]);
        }
        let file = OpenOptions::new().write(true).open(path)?;
        if torn > 0 {
            file.set_len(self.len)?;
            file.sync_all()?;
        } else {
            self.end = found;
        }
        self.file = Some(file);
        Ok(())
    }
}

fn entries(records: &[Record], told: &[Told]) -> io::Result<Vec<u8>> {
    let all = records.iter().map(DiskRecord::from).chain(told.iter().map(DiskRecord::from));
    line::encode(&all.collect::<Vec<_>>())
}

fn lock(dir: &Path) -> Result<nix::fcntl::Flock<File>, JournalError> {
    use nix::errno::Errno;
    use nix::fcntl::{Flock, FlockArg};
    let path = dir.join("lock");
    let writable = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    // A lock needs no writing: a read-only disk that was used before still has the file.
    let mut file = writable
        .or_else(|e| File::open(&path).map_err(|_| e))
        .map_err(|e| failed("cannot open", &path, e))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((busy, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = busy,
            Err((_, Errno::EWOULDBLOCK)) => return Err(JournalError::Locked(dir.to_owned())),
            Err((_, errno)) => return Err(failed("cannot lock", &path, errno.into())),
        }
        std::thread::sleep(LOCK_LOOK);
    }
}

fn read(path: &Path) -> Result<Vec<u8>, JournalError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)) {
        Ok(_) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(bytes),
        Err(e) => Err(failed("cannot read", path, e)),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { what, path: path.to_owned(), source }
}

/// The records of a file, and the length of its whole lines.
fn parse(path: &Path, bytes: &[u8]) -> Result<(Replay, u64), JournalError> {
    let mut replay = Replay { records: Vec::new(), told: Vec::new(), format: FORMAT, torn: 0 };
    let mut good = 0;
    for (at, text) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let parsed = if at == 0 {
            header(path, text)?.map(|format| replay.format = format)
        } else {
            replay.take(text)
        };
        match parsed {
            Ok(()) => good += text.len() as u64,
            Err(bad) if whole_line_in(&bytes[good as usize..]) => {
                return Err(JournalError::Damaged {
                    path: path.to_owned(),
                    line: at + 1,
                    cause: bad.to_string(),
                });
            }
            Err(_) => break,
        }
    }
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    replay.torn = used.saturating_sub(good);
    Ok((replay, good))
}

/// Reads the first line; a newer format is an error of its own, as nothing behind it may be judged.
fn header(path: &Path, text: &[u8]) -> Result<Result<u32, Bad>, JournalError> {
    match line::decode::<Header>(text) {
        Ok(h) if h.format > FORMAT => {
            Err(JournalError::Newer { path: path.to_owned(), format: h.format, writer: h.writer })
        }
        Ok(h) => Ok(Ok(h.format)),
        Err(bad) => Ok(Err(bad)),
    }
}

impl Replay {
    /// Takes in a line.
    fn take(&mut self, text: &[u8]) -> Result<(), Bad> {
        for entry in line::decode::<Vec<DiskRecord>>(text)? {
            match Entry::from(entry) {
                Entry::Record(record) => self.records.push(record),
                Entry::Told(told) => self.told.push(told),
            }
        }
        Ok(())
    }
}

/// Zeros before a line are a hole, such as a lost write leaves, and hide no line.
fn whole_line_in(bytes: &[u8]) -> bool {
    let behind_zeros = |text: &[u8]| text.iter().position(|byte| *byte != 0).unwrap_or(text.len());
    bytes.split_inclusive(|b| *b == b'\n').any(|text| line::payload(&text[behind_zeros(text)..]).is_ok())
}

#[cfg(test)]
mod tests;
