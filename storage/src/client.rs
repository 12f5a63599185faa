//! The commands that ask a running sidecar, through the attributes of its mount.

mod held;
mod profile;
mod progress;
mod status;
mod warm;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use migshare_storage::config::ConfigError;
use migshare_storage::policy::PolicyName;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;
use serde_json::{Value, json};

pub(crate) use profile::profile;
pub(crate) use status::status;
pub(crate) use warm::warm;

fn get(path: &Path, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&get_text(path, name)?)?)
}

fn get_text(path: &Path, name: &str) -> Result<String> {
    let mut value = vec![0; 64 << 10];
    let len =
        getxattr(path, format!("user.migshare.{name}"), &mut value[..]).map_err(|e| refused(path, e))?;
    value.truncate(len);
    String::from_utf8(value).context("the sidecar answered something that is no text")
}

fn set(path: &Path, name: &str, value: &str) -> Result<()> {
    try_set(path, name, value).map_err(|e| refused(path, e))
}

fn try_set(path: &Path, name: &str, value: &str) -> Result<(), Errno> {
    setxattr(path, format!("user.migshare.{name}"), value.as_bytes(), XattrFlags::empty())
}

/// An error about a path, in words where the number says little.
fn refused(path: &Path, error: Errno) -> anyhow::Error {
    let path = path.display();
    match error {
        Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL => {
            anyhow!("{path} is on no mount of migshare-storage")
        }
        Errno::ACCESS => {
            anyhow!("{path}: you may not read it, or not write to it where the command changes something")
        }
        Errno::NOSPC => {
            anyhow!(
                "{path}: half of the cache is pinned, and more cannot be: `forget` something, or give more --size"
            )
        }
        Errno::PERM => anyhow!("{path}: only the user who runs the sidecar may do that"),
        other => anyhow::Error::from(std::io::Error::from(other)).context(path.to_string()),
    }
}

/// Whether a path is on a mount that answers.
fn check_mount(path: &Path) -> Result<()> {
    get_text(path, "policy").map(drop)
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
pub(crate) fn forget(paths: &[PathBuf], json: bool) -> Result<()> {
    let files = warm::files(paths)?;
    files.iter().try_for_each(|file| set(file, "forget", "1"))?;
    if json {
        println!("{}", json!({ "files": files.len() }));
    }
    Ok(())
}

/// Changes the policy.
pub(crate) fn set_policy(mount: &Path, policy: PolicyName, json: bool) -> Result<()> {
    let before = get_text(mount, "policy")?;
    try_set(mount, "policy", &policy.to_string()).map_err(|error| match error {
        Errno::NODATA => anyhow!("{}: {}", mount.display(), ConfigError::NoProfile),
        Errno::INVAL => anyhow!("{} is no mount but something below one: name the mount", mount.display()),
        other => refused(mount, other),
    })?;
    if json {
        println!("{}", json!({ "policy": policy.to_string(), "before": before }));
    }
    Ok(())
}
