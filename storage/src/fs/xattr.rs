//! Extended attributes, POSIX ACLs among them, and the attributes by which the sidecar itself is asked and told.

use std::ffi::OsStr;
use std::io;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use super::{Caller, Fs, Node, errno, virtual_xattr};

/// Largest value that Linux knows.
const LARGEST: usize = 64 << 10;

impl Fs {
    fn proc_path(node: &Node) -> String {
        format!("/proc/self/fd/{}", node.fd_name())
    }

    /// Value of an attribute.
    ///
    /// # Errors
    /// As the backend gives them; this holds for all operations here.
    pub fn getxattr(&self, caller: &Caller, id: u64, name: &OsStr) -> io::Result<Vec<u8>> {
        let node = self.node(id)?;
        if let Some(name) = virtual_xattr::ours(name) {
            return self.get_virtual(&node, name);
        }
        self.act(caller, || {
            let mut value = vec![0; LARGEST];
            let len = getxattr(Self::proc_path(&node), name, &mut value[..])?;
            value.truncate(len);
            Ok(value)
        })
    }

    /// Names of all attributes, each ended by a zero byte.
    ///
    /// # Errors
    /// See [`Self::getxattr`].
    pub fn listxattr(&self, caller: &Caller, id: u64) -> io::Result<Vec<u8>> {
        let node = self.node(id)?;
        self.act(caller, || {
            let mut names = vec![0u8; LARGEST];
            let len = listxattr(Self::proc_path(&node), &mut names[..])?;
            names.truncate(len);
            Ok(names)
        })
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// See [`Self::getxattr`].
    pub fn setxattr(
        &self,
        caller: &Caller,
        id: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> io::Result<()> {
        let node = self.node(id)?;
        if let Some(name) = virtual_xattr::ours(name) {
            return self.set_virtual(caller, &node, name, value);
        }
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        self.act(caller, || Ok(setxattr(Self::proc_path(&node), name, value, flags)?))
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// See [`Self::getxattr`].
    pub fn removexattr(&self, caller: &Caller, id: u64, name: &OsStr) -> io::Result<()> {
        let node = self.node(id)?;
        if virtual_xattr::ours(name).is_some() {
            return Err(errno(libc::EPERM));
        }
        self.act(caller, || Ok(removexattr(Self::proc_path(&node), name)?))
    }
}
