//! Slurm's host lists, as its configuration files and options have them: `n[1-3,07-10]`, `a1,r[1-2]n[0-3]x`.
//!
//! A list is matched, never expanded: `n[1-1000000]` costs nothing.

/// Whether a list names this node.
pub fn names(list: &str, node: &str) -> bool {
    pieces(list).any(|piece| matches(piece, node))
}

/// The pieces of a list. Commas inside brackets do not separate.
fn pieces(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0i32;
    let split = list.split(move |c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ',' && depth <= 0
    });
    split.map(str::trim).filter(|piece| !piece.is_empty())
}

fn matches(piece: &str, node: &str) -> bool {
    let Some((literal, rest)) = piece.split_once('[') else { return piece == node };
    let (Some(node), Some((ranges, rest))) = (node.strip_prefix(literal), rest.split_once(']')) else {
        return false;
    };
    let digits = node.bytes().take_while(u8::is_ascii_digit).count();
    // "n[1-2][0-9]": how many digits belong to the first bracket is not known beforehand.
    (1..=digits).any(|n| ranges.split(',').any(|r| within(r.trim(), &node[..n])) && matches(rest, &node[n..]))
}

/// Whether a number, as written, is in `7` or `07-10`. Slurm pads to the width of the lower bound.
fn within(range: &str, written: &str) -> bool {
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (Ok(first), Ok(last), Ok(number)) = (low.parse(), high.parse(), written.parse::<u64>()) else {
        return false;
    };
    (first..=last).contains(&number) && written == format!("{number:0width$}", width = low.len())
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn lists_name_what_slurm_means() {
        for (list, node) in [
            ("n1", "n1"),
            ("a,n1", "n1"),
            ("n[1-3]", "n2"),
            ("n[1,3]", "n3"),
            ("n[07-10]", "n08"),
            ("n[07-10]", "n10"),
            ("n[8-12]", "n12"),
            ("a[1-2],n[5,7-9]", "n8"),
            ("r[1-2]n[0-3]x", "r2n3x"),
            ("r[1-2][0-9]", "r17"),
            ("n[1-18446744073709551615]", "n77"),
        ] {
            assert!(names(list, node), "{list} {node}");
        }
    }

    #[test]
    fn lists_do_not_name_others() {
        for (list, node) in [
            ("n1", "n11"),
            ("n[1-3]", "n4"),
            ("n[1-3]", "n02"),
            ("n[07-10]", "n8"),
            ("n[1-3]", "n"),
            ("n[1-3]", "n2x"),
            ("r[1-2]n[0-3]x", "r2n4x"),
            ("n[", "n1"),
            ("n[]", "n1"),
            ("n[x-y]", "n1"),
            ("", "n1"),
            ("ALL", "n1"),
        ] {
            assert!(!names(list, node), "{list} {node}");
        }
    }
}
