//! Memory for O_DIRECT: aligned to a page, reused.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

const ALIGN: usize = 4096;
/// Buffers are pooled up to this length and this many per length class.
const LARGEST: usize = 2 << 20;
const KEEP: usize = 64;
/// 4 KiB, 8 KiB … 2 MiB.
const CLASSES: usize = 10;

static POOL: [Mutex<Vec<Vec<u8>>>; CLASSES] = [const { Mutex::new(Vec::new()) }; CLASSES];

/// A page-aligned byte buffer that returns to a pool.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

fn class_of(len: usize) -> Option<usize> {
    let pages = len.max(ALIGN).next_power_of_two() / ALIGN;
    (len <= LARGEST).then_some(pages.trailing_zeros() as usize)
}

impl Buffer {
    /// A buffer of `len` bytes; its content is whatever was there before, or zero.
    pub fn new(len: usize) -> Self {
        let pooled = class_of(len).and_then(|c| POOL[c].lock().unwrap_or_else(PoisonError::into_inner).pop());
        let memory = pooled.unwrap_or_else(|| vec![0; len.max(ALIGN).next_power_of_two() + ALIGN]);
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { memory, start, len }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(class) = class_of(self.len) {
            let mut pool = POOL[class].lock().unwrap_or_else(PoisonError::into_inner);
            if pool.len() < KEEP {
                pool.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
