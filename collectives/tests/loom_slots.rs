//! A model of a slot that is used again: `attendance` as it is, over all interleavings.
//!
//! What the members of the first communicator wrote is a loom cell, which reports an owner that writes while another may still read.

#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use migshare_collectives::attendance::{enter, is_in, leave};
use migshare_collectives::line::Line;

const OLD: u64 = 70;
const NEW: u64 = 80;

/// Rank 0 has left. Rank 1 still reads, leaves, and may go on to another communicator in the same slot.
fn model(goes_on: bool) {
    loom::model(move || {
        let shared: Arc<(Line, UnsafeCell<u64>)> = Arc::new((Line::default(), UnsafeCell::new(1)));
        enter(&shared.0, OLD);
        let second = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            let (attendance, written) = &*second;
            // SAFETY: loom checks that no other access is concurrent.
            written.with(|value| unsafe { assert_eq!(*value, 1) });
            leave(attendance);
            if goes_on {
                enter(attendance, NEW);
            }
        });
        let (attendance, written) = &*shared;
        while is_in(attendance, OLD) {
            loom::thread::yield_now();
        }
        // SAFETY: as above.
        written.with_mut(|value| unsafe { *value = 2 });
        thread.join().unwrap();
    });
}

#[test]
fn nobody_writes_over_what_a_member_still_reads() {
    model(false);
}

#[test]
fn a_member_that_has_gone_on_has_left() {
    model(true);
}
