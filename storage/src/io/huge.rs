//! Huge pages: memory that is one piece for a device, too.

use rustix::mm::{Advice, madvise};

/// Bytes of a huge page on x86-64 and on ARM with pages of 4 KiB.
pub(super) const PAGE: usize = 2 << 20;

/// Memory of one huge page, aligned to it and zeroed, for the rest of the process's life. Where the kernel has none to give it is
/// of ordinary pages.
pub(super) fn page() -> &'static mut [u8] {
    // Twice the size has an aligned half; what is beside it is never touched, and so takes no memory.
    let memory = vec![0u8; 2 * PAGE].leak();
    let start = memory.as_ptr().align_offset(PAGE);
    let page = &mut memory[start..start + PAGE];
    // SAFETY: the range is ours alone, and this advice changes how it is backed, never what it holds.
    let _ = unsafe { madvise(page.as_mut_ptr().cast(), PAGE, Advice::LinuxHugepage) };
    // Now, rather than in the middle of a read.
    page.fill(0);
    page
}
