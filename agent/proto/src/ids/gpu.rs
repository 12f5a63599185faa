//! The name of a GPU. Every decision about leaves compares and copies it many times, so that it is held as a number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// The UUID of a whole GPU as NVML prints it (`GPU-…`): stable over reboots, resets and driver updates. It is ordered as its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpuUuid(Form);

/// The two forms do not meet: what can be a number always is, so that equal texts are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Form {
    /// `GPU-` and a UUID of lower-case hexadecimal digits (RFC 9562), which is what NVML prints.
    Number(u128),
    /// Anything else.
    Text(Box<str>),
}

const PREFIX: &str = "GPU-";
/// Digits of a UUID between its hyphens.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
/// Bytes of a usual text.
const LENGTH: usize = 40;

impl GpuUuid {
    /// The UUID in this text; any text is one.
    pub fn new(text: &str) -> GpuUuid {
        GpuUuid(number(text).map_or_else(|| Form::Text(text.into()), Form::Number))
    }
}

/// The number in a text that [`fmt::Display`] would give again.
fn number(text: &str) -> Option<u128> {
    let mut digits = text.strip_prefix(PREFIX)?.split('-');
    let mut number = 0;
    for length in GROUPS {
        let group = digits.next().filter(|group| group.len() == length)?;
        for digit in group.bytes() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            number = number << 4 | u128::from(value);
        }
    }
    digits.next().is_none().then_some(number)
}

impl Serialize for GpuUuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for GpuUuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GpuUuid, D::Error> {
        String::deserialize(deserializer).map(|text| GpuUuid::new(&text))
    }
}

impl PartialOrd for Form {
    fn partial_cmp(&self, other: &Form) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Form {
    fn cmp(&self, other: &Form) -> std::cmp::Ordering {
        match (self, other) {
            // Digits come before letters in ASCII, and hyphens stand at the same places: numbers are ordered as their texts.
            (Form::Number(a), Form::Number(b)) => a.cmp(b),
            (Form::Text(a), Form::Text(b)) => a.cmp(b),
            (a, b) => a.to_string().cmp(&b.to_string()),
        }
    }
}

impl Form {
    /// Shows its text to `use_it`.
    fn with_text<T>(&self, use_it: impl FnOnce(&str) -> T) -> T {
        match self {
            Form::Text(text) => use_it(text),
            Form::Number(number) => use_it(std::str::from_utf8(&text(*number)).unwrap_or_default()),
        }
    }
}

/// The usual text of a number. Written by hand, as it stands many times in each line of journal and socket.
fn text(number: u128) -> [u8; LENGTH] {
    let mut text = [b'-'; LENGTH];
    text[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
    let mut shift = u128::BITS;
    let mut at = PREFIX.len();
    for length in GROUPS {
        for place in &mut text[at..at + length] {
            shift -= 4;
            *place = b"0123456789abcdef"[(number >> shift) as usize & 0xf];
        }
        at += length + 1;
    }
    text
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.pad(text))
    }
}

impl fmt::Display for GpuUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "GPU-4a1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d11";

    /// Texts that are nearly usual, and texts that are not at all.
    const TEXTS: [&str; 12] = [
        USUAL,
        "GPU-00000000-0000-0000-0000-000000000000",
        "GPU-ffffffff-ffff-ffff-ffff-ffffffffffff",
        "GPU-4a1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d1f",
        "GPU-4A1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d11",
        "GPU-4a1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d11-",
        "GPU-4a1b1a7e5d5a5d70b5b92f7f0c2a1d11",
        "GPU-+a1b1a7e-5d5a-5d70-b5b9-2f7f0c2a1d11",
        "GPU-unknown-3",
        "GPU-",
        "",
        "GPU-€",
    ];

    #[test]
    fn every_text_comes_back_as_it_was() {
        for text in TEXTS {
            assert_eq!(GpuUuid::new(text).to_string(), text);
        }
        assert!(matches!(GpuUuid::new(USUAL).0, Form::Number(_)));
        let json = serde_json::to_string(&GpuUuid::new(USUAL)).unwrap();
        assert_eq!(json, format!("\"{USUAL}\""));
        assert_eq!(serde_json::from_str::<GpuUuid>(&json).unwrap(), GpuUuid::new(USUAL));
    }

    #[test]
    fn uuids_are_ordered_as_their_texts() {
        for a in TEXTS {
            for b in TEXTS {
                assert_eq!(GpuUuid::new(a).cmp(&GpuUuid::new(b)), a.cmp(b), "{a} and {b}");
            }
        }
    }
}
