//! Attributes that exist on the mount only: how the command line asks and tells a running sidecar.
//!
//! | attribute | on | get | set |
//! |---|---|---|---|
//! | `user.migshare.stats` | any | statistics of the mount, JSON | - |
//! | `user.migshare.explain` | file | what is cached and why reads go where, JSON | - |
//! | `user.migshare.forget` | file | - | drops the file from the cache, also if it is pinned |
//! | `user.migshare.pin` | file | - | `1` keeps the file from eviction, `0` lets it go; ENOSPC if half of the cache is pinned |
//! | `user.migshare.policy` | root directory | name of the policy | another policy, by the mount's owner; ENODATA if it needs a profile and there is none |
//!
//! They are not listed. Rights are those of any `user.` attribute, which the kernel checks: read permission to get,
//! write permission to set.

use std::ffi::OsStr;
use std::io;
use std::str::FromStr as _;

use super::{Caller, Fs, Node, ROOT, errno};
use crate::cache::BLOCK;
use crate::policy::PolicyName;

/// The part after `user.migshare.`, if the attribute is ours.
pub(super) fn ours(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_prefix("user.migshare.")
}

impl Fs {
    pub(super) fn get_virtual(&self, node: &Node, name: &str) -> io::Result<Vec<u8>> {
        let value = match name {
            "stats" => self.statistics(),
            "policy" => return Ok(self.reads().policy_name().to_string().into_bytes()),
            "explain" => self.explain(node)?,
            _ => return Err(errno(libc::ENODATA)),
        };
        Ok(value.to_string().into_bytes())
    }

    fn statistics(&self) -> serde_json::Value {
        let mut all = self.reads().stats_json();
        let (used, slots) = self.cache().usage();
        all["cache_slots"] = slots.into();
        all["cache_slots_used"] = used.into();
        all["cache_slots_pinned"] = self.cache().pinned_slots().into();
        if let (Some(back), Some(map)) = (self.back(), all.as_object_mut()) {
            map.extend(back.numbers().map(|(name, value)| (name.to_owned(), value.into())));
        }
        all
    }

    pub(super) fn set_virtual(
        &self,
        caller: &Caller,
        node: &Node,
        name: &str,
        value: &[u8],
    ) -> io::Result<()> {
        let text = std::str::from_utf8(value).map_err(|_| errno(libc::EINVAL))?.trim();
        match (name, text) {
            ("forget", _) => {
                self.cache().unpin_file(node.state().key());
                self.cache().forget(node.state().key());
            }
            ("pin", "0") => self.cache().unpin_file(node.state().key()),
            ("pin", "1") => {
                let size = node.attr()?.stat.st_size.cast_unsigned();
                if !self.cache().pin_file(node.state().key(), size) {
                    return Err(errno(libc::ENOSPC));
                }
            }
            ("policy", _) if node.id() == ROOT => {
                if caller.uid != rustix::process::geteuid().as_raw() {
                    return Err(errno(libc::EPERM));
                }
                let policy = PolicyName::from_str(text).map_err(|_| errno(libc::EINVAL))?;
                if policy == PolicyName::Netcas && !self.reads().has_profile() {
                    return Err(errno(libc::ENODATA));
                }
                self.reads().set_policy(policy);
            }
            _ => return Err(errno(libc::EINVAL)),
        }
        Ok(())
    }

    fn explain(&self, node: &Node) -> io::Result<serde_json::Value> {
        let attr = node.attr()?;
        let current = node.state().current();
        let cached =
            current.map_or(0, |c| self.cache().cached_blocks(node.state().key(), &c.version) * BLOCK);
        Ok(serde_json::json!({
            "inode": attr.stat.st_ino,
            "size_bytes": attr.stat.st_size,
            "cached_bytes": cached.min(attr.stat.st_size.cast_unsigned()),
            "version_known": current.is_some(),
            "validated_within_1s": current.is_some_and(|c| c.fresh),
            "split": self.reads().explain(),
        }))
    }
}
