//! One line of the journal: a checksum and the JSON that it is over. What the JSON means is in `disk`.

use super::FORMAT;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Bytes of the checksum and the blank behind it.
const SUM: usize = 9;
/// A lease of four leaves, or a grant of them, takes 1.3 KiB: memory for a usual line is asked for once.
const USUAL: usize = 4096;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) writer: String,
}

impl Header {
    pub(super) fn ours() -> Header {
        Header { format: FORMAT, writer: concat!("migshared ", env!("CARGO_PKG_VERSION")).to_owned() }
    }
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bad {
    #[error("it has no end")]
    Unfinished,
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is no record of this format ({0})")]
    Meaning(#[source] serde_json::Error),
}

/// The line for a value.
pub(super) fn encode<T: Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(USUAL);
    line.resize(SUM, 0);
    serde_json::to_writer(&mut line, value)?;
    let (sum, json) = line.split_at_mut(SUM);
    sum.copy_from_slice(&checksum(json));
    line.push(b'\n');
    Ok(line)
}

/// The value in a line.
pub(super) fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, Bad> {
    serde_json::from_slice(payload(line)?).map_err(Bad::Meaning)
}

/// The JSON of a line whose checksum fits.
pub(super) fn payload(line: &[u8]) -> Result<&[u8], Bad> {
    let line = line.strip_suffix(b"\n").ok_or(Bad::Unfinished)?;
    let (sum, json) = line.split_at_checked(SUM).ok_or(Bad::Checksum)?;
    if sum == checksum(json) { Ok(json) } else { Err(Bad::Checksum) }
}

/// What a line begins with.
fn checksum(json: &[u8]) -> [u8; SUM] {
    let sum = crc32c::crc32c(json);
    let digit = |at: u32| b"0123456789abcdef"[(sum >> (28 - 4 * at)) as usize & 0xf];
    std::array::from_fn(|at| if at < SUM - 1 { digit(at as u32) } else { b' ' })
}
