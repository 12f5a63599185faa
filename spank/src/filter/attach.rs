//! Puts a rule on a cgroup, in the way that its hierarchy knows.
//!
//! cgroup v2 has rules of its own about who may filter beside whom. Where Slurm attached without `ALLOW_MULTI` below,
//! ours is refused (EPERM). Where it attached with `ALLOW_OVERRIDE` above, ours would silently replace it: so the
//! programs that decided before must still decide afterwards, or ours is taken off again.

use super::cgroup::{Kind, Place};
use super::program::program;
use super::{FilterError, Rule, bpf, closed};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Closes, in this cgroup, all capability devices that the rule does not open.
pub fn attach(place: &Place, dir: &Path, proc: &Path, rule: &Rule) -> Result<(), FilterError> {
    match place.kind {
        Kind::Bpf => attach_program(dir, rule),
        Kind::Devices => deny(dir, proc, rule),
    }
}

fn attach_program(dir: &Path, rule: &Rule) -> Result<(), FilterError> {
    let failed = |call| move |source| FilterError::Bpf { call, source };
    let cgroup = File::open(dir).map_err(FilterError::file(dir))?;
    let program = bpf::load(&program(rule)).map_err(failed("load"))?;
    let before = bpf::effective(cgroup.as_fd()).map_err(failed("query"))?;
    match bpf::attach(cgroup.as_fd(), program.as_fd()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !before.is_empty() => {
            return Err(FilterError::Taken { path: dir.to_owned() });
        }
        Err(e) => return Err(failed("attach")(e)),
    }
    let after = bpf::effective(cgroup.as_fd()).map_err(failed("query"))?;
    if before.iter().all(|id| after.contains(id)) {
        return Ok(());
    }
    bpf::detach(cgroup.as_fd(), program.as_fd()).map_err(failed("detach"))?;
    Err(FilterError::Taken { path: dir.to_owned() })
}

/// The devices controller of v1: one denial per minor, because an `allow` cannot carve a hole into a wider `deny`.
fn deny(dir: &Path, proc: &Path, rule: &Rule) -> Result<(), FilterError> {
    let minors = closed(proc, rule).map_err(FilterError::file(proc))?;
    let path = dir.join("devices.deny");
    let mut file = OpenOptions::new().write(true).open(&path).map_err(FilterError::file(&path))?;
    for minor in minors {
        let line = format!("c {}:{minor} rwm", rule.major);
        // One write is one rule: the kernel reads no further than the first.
        file.write_all(line.as_bytes()).map_err(FilterError::file(&path))?;
    }
    Ok(())
}
