//! The commands that ask a running sidecar, through the attributes of its mount.

mod profile;
mod status;
mod warm;

use std::path::Path;

use anyhow::{Context, Result, bail};
use migshare_storage::policy::PolicyName;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::Value;

pub(crate) use profile::profile;
pub(crate) use status::status;
pub(crate) use warm::warm;

fn get(path: &Path, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&get_text(path, name)?)?)
}

fn get_text(path: &Path, name: &str) -> Result<String> {
    let mut value = vec![0; 64 << 10];
    let len = getxattr(path, format!("user.migshare.{name}"), &mut value[..])
        .map_err(std::io::Error::from)
        .with_context(|| {
        format!("{} is on no mount of migshare-storage, or not readable", path.display())
    })?;
    value.truncate(len);
    String::from_utf8(value).context("the sidecar answered something that is no text")
}

fn set(path: &Path, name: &str, value: &str) -> Result<()> {
    setxattr(path, format!("user.migshare.{name}"), value.as_bytes(), XattrFlags::empty())
        .map_err(std::io::Error::from)
        .with_context(|| {
            format!("{}: cannot set {name}: it needs a path on a mount and write permission", path.display())
        })
}

fn number(stats: &Value, name: &str) -> u64 {
    stats.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// Prints the counters.
pub(crate) fn stats(mount: &Path, json: bool) -> Result<()> {
    let stats = get(mount, "stats")?;
    if json {
        println!("{stats}");
    } else if let Some(map) = stats.as_object() {
        map.iter().for_each(|(name, value)| println!("{name:36} {value}"));
    }
    Ok(())
}

/// Prints what is known of a file.
pub(crate) fn explain(path: &Path, json: bool) -> Result<()> {
    let known = get(path, "explain")?;
    if json {
        println!("{known}");
    } else {
        println!("{known:#}");
    }
    Ok(())
}

/// Drops files from the cache.
pub(crate) fn forget(paths: &[std::path::PathBuf]) -> Result<()> {
    for file in warm::files(paths)? {
        set(&file, "pin", "0")?;
        set(&file, "forget", "1")?;
    }
    Ok(())
}

/// Changes the policy.
pub(crate) fn set_policy(mount: &Path, policy: PolicyName) -> Result<()> {
    if get_text(mount, "policy").is_err() {
        bail!("{} is no mount of migshare-storage", mount.display());
    }
    set(mount, "policy", &policy.to_string())
}
