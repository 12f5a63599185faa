//! Which nodes a `--constraint` may mean (sbatch(1)): names, `&` or `,`, `|`, parentheses and brackets.
//!
//! What is not certain leaves a node in, as a price check on too many nodes asks the user to choose, and one on too few would be wrong:
//! with counts (`a*2`) the rest of the job's nodes can be any, and for `&` beside `|` without parentheses the nodes of
//! both readings are taken. What is no expression at all Slurm refuses by itself.

/// Deepest nesting that is followed.
const DEEPEST: usize = 32;

/// Whether a node may be meant; `has` says whether it has a feature.
pub(super) fn may_mean(wish: &str, has: &dyn Fn(&str) -> bool) -> bool {
    if wish.contains('*') {
        return true;
    }
    let mut reader = Reader { rest: wish, has, depth: 0 };
    reader.expression().filter(|_| reader.rest.is_empty()).unwrap_or(true)
}

struct Reader<'a> {
    rest: &'a str,
    has: &'a dyn Fn(&str) -> bool,
    depth: usize,
}

impl Reader<'_> {
    /// `term { sign term }`. None where there is none.
    fn expression(&mut self) -> Option<bool> {
        let first = self.term()?;
        // From left to right, and with `&` before `|`: the terms of a product are collected until it ends.
        let (mut by_turns, mut sum, mut product) = (first, false, first);
        while let Some(sign) = self.rest.chars().next().filter(|c| "&,|".contains(*c)) {
            self.rest = &self.rest[1..];
            let term = self.term()?;
            if sign == '|' {
                by_turns |= term;
                sum |= product;
                product = term;
            } else {
                by_turns &= term;
                product &= term;
            }
        }
        Some(by_turns || sum || product)
    }

    /// A name, or an expression in parentheses or brackets.
    fn term(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_start();
        let closing = match self.rest.chars().next()? {
            '(' => ')',
            '[' => ']',
            _ => return self.name(),
        };
        self.depth += 1;
        self.rest = &self.rest[1..];
        let inside = (self.depth <= DEEPEST).then(|| self.expression()).flatten()?;
        self.depth -= 1;
        self.rest = self.rest.strip_prefix(closing)?.trim_start();
        Some(inside)
    }

    fn name(&mut self) -> Option<bool> {
        let end = self.rest.find(['&', ',', '|', '(', ')', '[', ']']).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.trim().is_empty()).then(|| (self.has)(name.trim()))
    }
}
