//! The files of an import, as Lustre 2.10 to 2.17 write them.

/// Requests that were answered, and how long they waited together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) count: u64,
    pub(super) micros: u64,
}

impl Waits {
    /// What was added; nothing after somebody cleared the statistics.
    pub(super) fn since(self, before: Self) -> Self {
        match (self.count.checked_sub(before.count), self.micros.checked_sub(before.micros)) {
            (Some(count), Some(micros)) => Self { count, micros },
            _ => Self::default(),
        }
    }
}

/// `current_state: FULL` of the file `state`.
pub(super) fn current_state(text: &str) -> Option<String> {
    value(text, "current_state:")
}

/// `    state: FULL` of the file `import`.
pub(super) fn import_state(text: &str) -> Option<String> {
    value(text, "state:")
}

/// `       current_connection: 172.20.20.5@o2ib` of the file `import`.
pub(super) fn connection(text: &str) -> Option<String> {
    value(text, "current_connection:")
}

fn value(text: &str, key: &str) -> Option<String> {
    let found = text.lines().find_map(|l| l.trim_start().strip_prefix(key))?.trim();
    (!found.is_empty()).then(|| found.trim_matches('"').to_owned())
}

/// The line `req_waittime COUNT samples [usec] MIN MAX SUM SUMSQ` of the file `stats`; newer releases write `[usecs]`.
pub(super) fn waits(text: &str) -> Option<Waits> {
    let mut words = text.lines().find_map(|l| l.strip_prefix("req_waittime "))?.split_whitespace();
    let count = words.next()?.parse().ok()?;
    (words.next()? == "samples" && words.next()?.starts_with("[usec")).then_some(())?;
    Some(Waits { count, micros: words.nth(2)?.parse().ok()? })
}
