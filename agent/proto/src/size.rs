//! Sizes of memory as people write them: `256M`. The one grammar for the option, the configuration and messages.

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Reads a whole number with an optional unit K, M, G or T, which are powers of 1024. `None` for anything else, also for
/// zero and for what does not fit.
pub fn parse(text: &str) -> Option<u64> {
    let last = text.chars().last()?.to_ascii_uppercase();
    let shift = UNITS.iter().find(|(unit, _)| *unit == last).map(|(_, shift)| *shift);
    let digits = if shift.is_some() { &text[..text.len() - 1] } else { text };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift.unwrap_or(0)).filter(|bytes| *bytes > 0)
}

/// A size for a message: in the largest unit that divides it.
pub fn show(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("4096"), Some(4096));
        assert_eq!(parse("64k"), Some(64 << 10));
        assert_eq!(parse("256M"), Some(256 << 20));
        assert_eq!(parse("3G"), Some(3 << 30));
        assert_eq!(parse("2T"), Some(2 << 40));
    }

    #[test]
    fn what_is_no_size_is_not_guessed_at() {
        for text in ["", "0", "0G", "M", "-1", "+1M", "1.5G", "1 G", "1MB", "1MiB", "ß", "9G9", "16777216T"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_is_typed() {
        for text in ["256M", "3G", "1536M", "4095", "64K", "2T"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
        assert_eq!(show(0), "0");
    }
}
