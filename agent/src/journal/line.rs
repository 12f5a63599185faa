//! One line of the journal: a checksum and the JSON that it is over. What the JSON means is in `disk`.

use super::FORMAT;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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
    let json = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    line.extend(json);
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
    let (sum, json) = line.split_at_checked(9).ok_or(Bad::Checksum)?;
    let expected = format!("{:08x} ", crc32c::crc32c(json));
    if sum == expected.as_bytes() { Ok(json) } else { Err(Bad::Checksum) }
}
