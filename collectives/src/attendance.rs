//! Who is still in a communicator: what its members must know before they use its slot for another.
//!
//! ```text
//!   enter(key) ─▶ … operations … ─▶ leave
//!                                     │ release, acquire
//!                                     ▼
//!   another member, which left before: is_in(key)? no ─▶ it may write over what it once wrote for the first
//! ```
//! A member that has gone on to another communicator in the same slot shows another key, which is no less an answer: it has asked
//! the same of all members before.

use crate::line::Line;

/// This rank is in the communicator with `key`. Only the owner of the line may call it.
pub fn enter(line: &Line, key: u64) {
    line.post(shown(key));
}

/// It has left, and reads nothing there any more.
pub fn leave(line: &Line) {
    line.post(0);
}

/// Whether the owner of the line is in the communicator with `key`.
#[must_use]
pub fn is_in(line: &Line, key: u64) -> bool {
    line.word() == shown(key)
}

/// Never 0.
fn shown(key: u64) -> u64 {
    key | 1
}
