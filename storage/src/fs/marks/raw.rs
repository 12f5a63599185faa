//! The two system calls, and nothing else: name_to_handle_at(2), and Lustre's ioctl for the version of a file's data
//! (`LL_IOC_DATA_VERSION` in its lustre_user.h, where llapi_get_data_version(3) is made of it).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// MAX_HANDLE_SZ of linux/fcntl.h.
const LARGEST: usize = 128;

/// `struct file_handle` with room for the largest.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; LARGEST],
}

/// `struct ioc_data_version`. All flags 0: no client is asked to send what it has not written yet.
#[repr(C)]
struct DataVersion {
    version: u64,
    layout_version: u32,
    flags: u32,
}

/// The handle by which a file server finds this very file again: the inode and its generation. `None` where the file system
/// has none.
pub(super) fn handle(file: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let mut handle = Handle { bytes: LARGEST as u32, kind: 0, data: [0; LARGEST] };
    let mut mount = 0;
    // SAFETY: the path is an empty C string; the kernel writes at most `bytes` bytes behind the two words of `handle`, which
    // has that room, and one int to `mount`. Both outlive the call.
    let done = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut handle).cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    let data = handle.data.get(..handle.bytes as usize).filter(|_| done == 0)?;
    Some([&handle.kind.to_le_bytes()[..], data].concat())
}

/// `None` where the file is none of Lustre's, or its objects do not say.
pub(super) fn lustre_data_version(file: BorrowedFd<'_>) -> Option<u64> {
    const GET: Opcode = opcode::read::<DataVersion>(b'f', 218);
    let mut asked = DataVersion { version: 0, layout_version: 0, flags: 0 };
    // SAFETY: the opcode says that the kernel reads and writes a value of this size, of which every pattern of bits is one.
    // Lustre reads the flags, although the opcode is one for reading only.
    unsafe { ioctl(file, Updater::<GET, DataVersion>::new(&mut asked)) }.ok()?;
    Some(asked.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opcode_is_the_one_that_lustre_knows() {
        // _IOR('f', 218, struct ioc_data_version), of 16 bytes.
        assert_eq!(opcode::read::<DataVersion>(b'f', 218), 0x8010_66DA);
    }
}
