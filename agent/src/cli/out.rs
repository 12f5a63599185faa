//! Standard output. std's macros panic where nobody reads any more (`migshare explain 812 | head -3`) or a disk is full; all that these
//! commands print goes through [`write`] instead, by macros of the same names in `cli.rs`.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Exit code of a program whose reader has gone: 128 and the number of SIGPIPE, as of one that the signal ended.
const NOBODY_READS: i32 = 128 + 13;

/// Prints, or ends the process: quietly where the reader has seen enough.
pub(super) fn write(words: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_fmt(words).and_then(|()| out.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(NOBODY_READS);
    }
    eprintln!("migshare: cannot print: {error}");
    std::process::exit(super::Exit::Failed as i32);
}
