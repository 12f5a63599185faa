//! Where everything lies: directories that are there, and that do not lie inside each other.

use std::path::{Path, PathBuf};

use super::{Config, ConfigError, MountConfig};
use crate::fs::WriteMode;

impl Config {
    /// Checks directories and makes their paths absolute, so that nothing depends on the working directory any more.
    pub(super) fn check_places(&mut self) -> Result<(), ConfigError> {
        self.cache.dir = cache_directory(&self.cache.dir)?;
        for mount in &mut self.mounts {
            mount.backend = directory("BACKEND", &mount.backend, "mount the remote file system first")?;
            mount.at =
                directory("MOUNT", &mount.at, "make it with mkdir; after a crash, fusermount3 -u it first")?;
            apart(("MOUNT", &mount.at), ("BACKEND", &mount.backend))?;
            apart(("--cache", &self.cache.dir), ("BACKEND", &mount.backend))?;
            apart(("--cache", &self.cache.dir), ("MOUNT", &mount.at))?;
        }
        for (i, mount) in self.mounts.iter().enumerate() {
            self.mounts[..i].iter().try_for_each(|earlier| beside(earlier, mount))?;
        }
        Ok(())
    }
}

/// Whether both mounts can be made.
fn beside(one: &MountConfig, other: &MountConfig) -> Result<(), ConfigError> {
    if one.at == other.at {
        return Err(ConfigError::Twice(one.at.clone()));
    }
    apart(("MOUNT", &one.at), ("MOUNT", &other.at))?;
    // What lies in the other one's mount would be looked for through it, or be hidden by it.
    for (mount, backend) in [(one, other), (other, one)] {
        apart(("MOUNT", &mount.at), ("BACKEND", &backend.backend))?;
    }
    let keeps_back = [one, other].iter().any(|m| m.writes == WriteMode::Back);
    if keeps_back && one.backend == other.backend {
        return Err(ConfigError::OneJournal {
            backend: one.backend.clone(),
            one: one.at.clone(),
            other: other.at.clone(),
        });
    }
    Ok(())
}

fn directory(option: &'static str, path: &Path, hint: &'static str) -> Result<PathBuf, ConfigError> {
    let found = path.canonicalize().ok().filter(|p| p.is_dir());
    found.ok_or_else(|| ConfigError::NotADirectory { option, path: path.to_owned(), hint })
}

/// It may be missing, and is then made; no link is followed where it is.
fn cache_directory(path: &Path) -> Result<PathBuf, ConfigError> {
    let refused = |hint| ConfigError::NotADirectory { option: "--cache", path: path.to_owned(), hint };
    let whole = std::path::absolute(path).ok();
    let parent = whole.as_deref().and_then(|p| p.parent()?.canonicalize().ok()).filter(|p| p.is_dir());
    let parent = parent.ok_or_else(|| refused("make the directory that it lies in first"))?;
    let name = whole.as_deref().and_then(Path::file_name).ok_or_else(|| refused("give its name"))?;
    let dir = parent.join(name);
    match dir.symlink_metadata() {
        Ok(found) if !found.is_dir() => {
            Err(refused("give a directory itself, as links are not followed here"))
        }
        _ => Ok(dir),
    }
}

/// Neither lies inside the other one.
fn apart(one: (&'static str, &Path), other: (&'static str, &Path)) -> Result<(), ConfigError> {
    outside(one, other)?;
    outside(other, one)
}

fn outside(inner: (&'static str, &Path), outer: (&'static str, &Path)) -> Result<(), ConfigError> {
    if !inner.1.starts_with(outer.1) {
        return Ok(());
    }
    Err(ConfigError::Nested {
        inner_option: inner.0,
        inner: inner.1.to_owned(),
        outer_option: outer.0,
        outer: outer.1.to_owned(),
    })
}
