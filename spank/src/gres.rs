//! Slurm's GRES strings: what was asked (`gres:mig:2`, `gres/gpu:a100:1,mig:1g.10gb:2`) and what was given
//! (`mig(CNT:2)`, `gpu:2(IDX:0-1),mig:1g.10gb(CNT:1)`).
//!
//! It only counts `mig` and keeps the rest as it is; Slurm itself judges whether a string is valid.

/// Name of the GRES that counts leaves.
pub const LEAF: &str = "mig";

/// What a `--gres` value says about leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: neither leaves nor `none`.
    Nothing,
    /// `none`: no GRES at all.
    NoGres,
    /// So many leaves per node.
    Leaves(u32),
}

/// Leaves in a request. Of two entries with the same type the last wins, as in Slurm; different types add up.
pub fn asked(gres: &str) -> Asked {
    let mut types: Vec<(&str, u32)> = Vec::new();
    let mut none = false;
    for entry in entries(gres) {
        none |= entry == "none" || entry == "NONE";
        if let Some((kind, count)) = leaf_entry(entry) {
            types.retain(|(known, _)| *known != kind);
            types.push((kind, count));
        }
    }
    match (types.is_empty(), none) {
        (true, true) => Asked::NoGres,
        (true, false) => Asked::Nothing,
        (false, _) => Asked::Leaves(types.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n))),
    }
}

/// Leaves in what slurmctld allocated on one node.
pub fn given(detail: &str) -> u32 {
    let mine = entries(detail).filter_map(leaf_entry);
    mine.fold(0, |sum, (_, n)| sum.saturating_add(n))
}

/// The request with so many leaves added, without the prefixes that Slurm puts there itself.
pub fn with_leaves(gres: Option<&str>, leaves: u32) -> String {
    let mut all: Vec<String> = entries(gres.unwrap_or_default()).map(str::to_owned).collect();
    all.push(format!("{LEAF}:{leaves}"));
    all.join(",")
}

/// The entries of a list without `gres:` or `gres/`. Commas inside parentheses (`IDX:0,2`) do not separate.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    let pieces = list.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth <= 0
    });
    pieces
        .map(|e| e.strip_prefix("gres:").or_else(|| e.strip_prefix("gres/")).unwrap_or(e))
        .filter(|e| !e.is_empty())
}

/// Type and count of an entry that is about leaves.
fn leaf_entry(entry: &str) -> Option<(&str, u32)> {
    let (head, inside) = match entry.split_once('(') {
        Some((head, inside)) => (head, inside.trim_end_matches(')')),
        None => (entry, ""),
    };
    let (name, rest) = head.split_once([':', '=']).unwrap_or((head, ""));
    if name != LEAF {
        return None;
    }
    let (kind, last) = rest.rsplit_once([':', '=']).unwrap_or(("", rest));
    let exact = inside.strip_prefix("CNT:").and_then(number);
    Some(match (number(last), exact) {
        (_, Some(count)) => (rest, count),
        (Some(count), None) => (kind, count),
        // `mig` and `mig:1g.10gb` ask for one.
        (None, None) => (rest, 1),
    })
}

/// A count with Slurm's suffixes k, m, g (powers of 1024).
fn number(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u32 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u32>().ok().map(|n| n.saturating_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_in_all_series_forms() {
        let cases = [
            ("mig:2", Asked::Leaves(2)),
            ("gres:mig:2", Asked::Leaves(2)),
            ("gres/mig:2", Asked::Leaves(2)),
            ("gres/mig=2", Asked::Leaves(2)),
            ("mig", Asked::Leaves(1)),
            ("gres:mig:1g.10gb", Asked::Leaves(1)),
            ("gres:mig:1g.10gb:4", Asked::Leaves(4)),
            ("gres:mig:1g.5gb:2,gres:mig:2g.10gb:1", Asked::Leaves(3)),
            ("mig:2,mig:3", Asked::Leaves(3)),
            ("gpu:a100:1,mig:3", Asked::Leaves(3)),
            ("mig:1k", Asked::Leaves(1024)),
            ("gres:gpu:2", Asked::Nothing),
            ("migrate:2", Asked::Nothing),
            ("", Asked::Nothing),
            ("none", Asked::NoGres),
            ("gres:none", Asked::NoGres),
            ("gres/none", Asked::NoGres),
        ];
        for (text, want) in cases {
            assert_eq!(asked(text), want, "{text}");
        }
    }

    #[test]
    fn allocations_are_counted_in_all_series_forms() {
        let cases = [
            ("mig(CNT:2)", 2),
            ("gres/mig(CNT:2)", 2),
            ("mig:2(IDX:0-1)", 2),
            ("mig:1g.5gb(CNT:2),mig:2g.10gb(CNT:1)", 3),
            ("gpu:a100:3(IDX:0,2,4),mig(CNT:1)", 1),
            ("gpu:a100:3(IDX:0,2,4)", 0),
            ("mig:1g.5gb:2(IDX:0,3)", 2),
            ("mig(CNT:0)", 0),
            ("(null)", 0),
            ("", 0),
        ];
        for (text, want) in cases {
            assert_eq!(given(text), want, "{text}");
        }
    }

    #[test]
    fn adding_leaves_keeps_the_rest() {
        assert_eq!(with_leaves(None, 3), "mig:3");
        assert_eq!(with_leaves(Some("gres:gpu:a100:1,gres:nic"), 3), "gpu:a100:1,nic,mig:3");
    }

    #[test]
    fn nonsense_does_not_panic() {
        for text in [
            "(((",
            ")))",
            "mig(CNT:",
            "mig:(",
            "mig(CNT:99999999999)",
            "mig:4294967295,mig:x:4294967295",
            ":,:,",
        ] {
            let _ = (asked(text), given(text), with_leaves(Some(text), 1));
        }
        assert_eq!(given("mig:a:4294967295(IDX:0),mig:b:4294967295(IDX:1)"), u32::MAX);
    }
}
