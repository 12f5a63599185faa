//! Lines of JSON with a limit. Bytes come from other users' processes: nothing here panics on any of them.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead, Read};

/// Longest request in bytes, line feed included.
pub const LINE_LIMIT: usize = 64 * 1024;
/// Longest reply in bytes, line feed included. A status of 16 GPUs of 7 leaves, each leased by a job of its own, is about 60 KiB,
/// and a job may have hundreds of overlapping steps.
pub const REPLY_LIMIT: usize = 1024 * 1024;

/// The reply to a job of some leaves takes a kilobyte or two: memory for a usual line is asked for once.
const USUAL: usize = 2048;

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`REPLY_LIMIT`].
    #[error("line is longer than {REPLY_LIMIT} bytes")]
    TooLong,
    /// The peer hung up in the middle of a line, or before one.
    #[error("connection closed before the end of a line")]
    Closed,
    /// Not the JSON of the expected message.
    #[error("not a valid message")]
    Malformed(#[source] serde_json::Error),
    /// Reading failed.
    #[error("read failed")]
    Io(#[from] std::io::Error),
}

/// The line for a message, line feed included. Fails with [`CodecError::TooLong`] above the limit.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let mut line = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut line, message).map_err(CodecError::Malformed)?;
    line.push(b'\n');
    if line.len() > REPLY_LIMIT { Err(CodecError::TooLong) } else { Ok(line) }
}

/// The message in a line, with or without its line feed.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, CodecError> {
    if line.len() > REPLY_LIMIT {
        return Err(CodecError::TooLong);
    }
    serde_json::from_slice(line).map_err(CodecError::Malformed)
}

/// Reads one line and the message in it. Never holds more than [`REPLY_LIMIT`] bytes.
pub fn read<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<T, CodecError> {
    let mut line = Vec::new();
    from.take(REPLY_LIMIT as u64).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        return decode(&line);
    }
    Err(if line.len() == REPLY_LIMIT { CodecError::TooLong } else { CodecError::Closed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Reply, Request, StatusQuery};

    #[test]
    fn a_message_survives_the_wire() {
        let line = encode(&Request::Status(StatusQuery {})).unwrap();
        assert_eq!(line, b"{\"status\":{}}\n");
        let back: Request = read(&mut line.as_slice()).unwrap();
        assert_eq!(back, Request::Status(StatusQuery {}));
    }

    #[test]
    fn a_line_above_the_limit_is_refused_without_reading_on() {
        let endless = std::io::repeat(b'x');
        let got = read::<Reply>(&mut std::io::BufReader::new(endless));
        assert!(matches!(got, Err(CodecError::TooLong)));
    }

    #[test]
    fn half_a_line_is_a_closed_connection() {
        assert!(matches!(read::<Request>(&mut &b"{\"stat"[..]), Err(CodecError::Closed)));
        assert!(matches!(read::<Request>(&mut &b""[..]), Err(CodecError::Closed)));
    }

    #[test]
    fn garbage_is_malformed() {
        for line in
            [&b"\n"[..], b"null\n", b"{}\n", b"\xff\xfe\n", b"{\"grant\":{\"job\":-1}}\n", b"[[[[[[\n"]
        {
            assert!(matches!(read::<Request>(&mut &line[..]), Err(CodecError::Malformed(_))), "{line:?}");
        }
    }
}
