//! What an administrator writes: one cache, one or more mounts. The command line makes the same structure.

mod places;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::dirty::ledger::LEAST;
use crate::fs::WriteMode;
use crate::policy::{PolicyName, Profile};

/// Why a configuration cannot be used. Every text names the option and the way out.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("--config {path}: cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("--config {path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        message: String,
    },
    /// A directory is missing or is none.
    #[error("{option} {path} is not a directory: {hint}")]
    NotADirectory {
        /// The option.
        option: &'static str,
        /// The path.
        path: PathBuf,
        /// The way out.
        hint: &'static str,
    },
    /// Two directories lie inside each other, or are the same.
    #[error("{inner_option} {inner} lies inside {outer_option} {outer}: choose one outside of it")]
    Nested {
        /// The option of the inner directory.
        inner_option: &'static str,
        /// The inner directory.
        inner: PathBuf,
        /// The option of the outer directory.
        outer_option: &'static str,
        /// The outer directory.
        outer: PathBuf,
    },
    /// The same mount point twice.
    #[error("mount point {0} is named twice: give each mount its own")]
    Twice(PathBuf),
    /// Two mounts would keep the same backend's data back.
    #[error(
        "{one} and {other} are both mounts of {backend}, and --writes back (writes = \"back\") keeps one journal per backend: \
         leave one of them out, or let both write through"
    )]
    OneJournal {
        /// The backend.
        backend: PathBuf,
        /// A mount point.
        one: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// Nothing to mount.
    #[error("no [[mount]] in the configuration: add one with backend = and at =")]
    NoMounts,
    /// The netcas policy lacks its profile.
    #[error(
        "policy netcas needs a measured profile: run `migshare-storage profile` and give --profile FILE (profile =)"
    )]
    NoProfile,
    /// The profile lacks the row.
    #[error(
        "profile {path} has no row for depth {depth} and {jobs} jobs: give --profile-key with one that it has"
    )]
    NoProfileRow {
        /// The profile.
        path: PathBuf,
        /// Queue depth asked for.
        depth: u32,
        /// Jobs asked for.
        jobs: u32,
    },
    /// Both kinds of locks are to be forwarded where they cannot be told apart.
    #[error(
        "--locks backend without root needs kernel.yama.ptrace_scope=0 to tell flock from fcntl locks: give --locks flock or \
         --locks fcntl"
    )]
    LocksApart,
    /// An option of write-back without write-back.
    #[error("{0} is for --writes back (writes = \"back\"): add that, or leave {0} out")]
    OnlyBack(&'static str),
    /// The journal cannot be that small.
    #[error("--dirty {0} is too small: give at least 16M, or leave it out for a quarter of the cache's size")]
    DirtyTooSmall(u64),
    /// A budget that is no small share.
    #[error("--hedge-percent {0} is too much: hedging is for late reads; give 10 at most, 1 or 2 are usual")]
    HedgeTooMuch(u8),
    /// The profile cannot be read.
    #[error("--profile cannot be used")]
    Profile(#[from] crate::policy::ProfileError),
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The cache that all mounts share.
    pub cache: CacheConfig,
    /// The mounts.
    #[serde(default, rename = "mount")]
    pub mounts: Vec<MountConfig>,
    /// File for the Prometheus node exporter's textfile collector; none: no metrics.
    pub metrics_file: Option<PathBuf>,
    /// Address where Prometheus finds `/metrics`; none: nothing listens.
    pub metrics_listen: Option<SocketAddr>,
}

/// The cache.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// Its directory on local storage.
    pub dir: PathBuf,
    /// Bytes of data that it may hold.
    #[serde(deserialize_with = "size")]
    pub size: u64,
}

/// One mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountConfig {
    /// Directory of the remote file system.
    pub backend: PathBuf,
    /// Where the cached view of it appears.
    pub at: PathBuf,
    /// Policy for clean hits.
    #[serde(default)]
    pub policy: PolicyName,
    /// Perf Profile of the `netcas` policy.
    pub profile: Option<PathBuf>,
    /// Row of the profile: queue depth and jobs.
    #[serde(default = "default_profile_key")]
    pub profile_key: [u32; 2],
    /// Spill only while the backend is not congested.
    #[serde(default)]
    pub polite: bool,
    /// Most bytes of spilled hits in flight at the backend.
    #[serde(default, deserialize_with = "optional_size")]
    pub max_backend_bytes: Option<u64>,
    /// Bypass the kernel's page cache.
    #[serde(default)]
    pub direct: bool,
    /// Where writes go.
    #[serde(default)]
    pub writes: WriteMode,
    /// With write-back: most bytes of dirty data on the cache device; none: a quarter of the cache's size, beside it.
    #[serde(default, deserialize_with = "optional_size")]
    pub dirty: Option<u64>,
    /// With write-back: what fsync waits for; none: the backend.
    pub fsync: Option<Fsync>,
    /// Seconds after which a request to a silent backend fails with EIO; none: wait (hard).
    pub soft_timeout_s: Option<u64>,
    /// Milliseconds after which a silent side of a hit is replaced by the other one; one that answers others has four times what
    /// its reads usually take.
    #[serde(default = "default_rescue")]
    pub rescue_ms: u64,
    /// Most hits that are read at both sides because the first one is late, in percent; 0: none.
    #[serde(default)]
    pub hedge_percent: u8,
    /// Which file locks are taken at the backend too, so that they hold between nodes.
    #[serde(default)]
    pub locks: LockMode,
    /// Milliseconds that the kernel may believe names and attributes.
    #[serde(default = "default_attributes")]
    pub attributes_ms: u64,
}

/// Which file locks are forwarded to the backend; the others hold among the processes of this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// None.
    #[default]
    Local,
    /// Those of flock(2).
    Flock,
    /// Those of fcntl(2), of processes and of open file descriptions.
    Fcntl,
    /// Both.
    Backend,
}

/// What fsync waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fsync {
    /// The backend has the data: they survive the loss of the node.
    #[default]
    Backend,
    /// The journal on the cache device has the data: they survive a reboot, not the loss of the device.
    Local,
}

/// The row that the published policy is compiled for.
pub fn default_profile_key() -> [u32; 2] {
    [16, 1]
}

/// See [`MountConfig::rescue_ms`].
pub fn default_rescue() -> u64 {
    300
}

/// See [`MountConfig::attributes_ms`].
pub fn default_attributes() -> u64 {
    1000
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When it cannot be read or says something unknown.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|e| ConfigError::Syntax { path: path.to_owned(), message: e.to_string() })
    }

    /// Checks directories and makes their paths absolute.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn check(mut self) -> Result<Self, ConfigError> {
        if self.mounts.is_empty() {
            return Err(ConfigError::NoMounts);
        }
        self.check_places()?;
        for mount in &self.mounts {
            mount.check_writes()?;
            mount.read_profile()?;
            if mount.hedge_percent > 10 {
                return Err(ConfigError::HedgeTooMuch(mount.hedge_percent));
            }
            if mount.locks == LockMode::Backend && !can_tell_locks_apart() {
                return Err(ConfigError::LocksApart);
            }
        }
        Ok(self)
    }
}

impl MountConfig {
    /// The profile with its row, where one is given.
    ///
    /// # Errors
    /// When it is missing for `netcas`, unreadable, or lacks the row.
    pub fn read_profile(&self) -> Result<Option<(Profile, u32, u32)>, ConfigError> {
        let [depth, jobs] = self.profile_key;
        match &self.profile {
            None if self.policy == PolicyName::Netcas => Err(ConfigError::NoProfile),
            None => Ok(None),
            Some(path) => {
                let profile = Profile::read(path)?;
                if profile.row(depth, jobs).is_none() {
                    return Err(ConfigError::NoProfileRow { path: path.clone(), depth, jobs });
                }
                Ok(Some((profile, depth, jobs)))
            }
        }
    }

    fn check_writes(&self) -> Result<(), ConfigError> {
        match self {
            Self { writes: WriteMode::Back, dirty: Some(bytes), .. } if *bytes < LEAST => {
                Err(ConfigError::DirtyTooSmall(*bytes))
            }
            Self { writes: WriteMode::Back, .. } => Ok(()),
            Self { dirty: Some(_), .. } => Err(ConfigError::OnlyBack("--dirty")),
            Self { fsync: Some(_), .. } => Err(ConfigError::OnlyBack("--fsync")),
            Self { .. } => Ok(()),
        }
    }

    /// See [`Self::soft_timeout_s`].
    pub fn soft(&self) -> Option<Duration> {
        self.soft_timeout_s.map(Duration::from_secs)
    }
}

/// Whether the system calls of other processes of the same user can be looked at.
fn can_tell_locks_apart() -> bool {
    let scope = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    rustix::process::geteuid().is_root() || scope.is_ok_and(|s| s.trim() == "0")
}

/// Parses a size: a number of bytes, or with K, M, G or T (powers of 1024).
///
/// # Errors
/// A text that says what is accepted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => {
            return Err(format!(
                "{text:?} is no size: give bytes, or a number with K, M, G or T, as in 200G"
            ));
        }
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|b| *b > 0).ok_or_else(|| format!("{text:?} is no size: give a positive number, as in 200G"))
}

#[derive(Deserialize)]
#[serde(transparent)]
struct SizeText(String);

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_size(&SizeText::deserialize(from)?.0).map_err(serde::de::Error::custom)
}

fn optional_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_bad_ones_say_what_is_accepted() {
        assert_eq!(parse_size("200G"), Ok(200 << 30));
        assert_eq!(parse_size("512 ".trim()), Ok(512));
        for bad in ["", "0", "G", "-1G", "1.5G", "10X", "99999999999T"] {
            assert!(parse_size(bad).unwrap_err().contains("200G"), "{bad}");
        }
    }

    #[test]
    fn the_example_of_the_readme_is_read() {
        let readme = include_str!("../README.md");
        let example = readme.split("```toml\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
        let config: Config = toml::from_str(example).unwrap();
        assert_eq!(config.cache.size, 2 << 40);
        assert_eq!(config.mounts[1].max_backend_bytes, Some(16 << 20));
        assert_eq!(config.mounts[1].policy, PolicyName::CacheOnly);
    }

    fn check(text: &str) -> Result<Config, String> {
        let parsed: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        parsed.check().map_err(|e| e.to_string())
    }

    #[test]
    fn bad_configurations_name_the_option_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["b", "m", "b/inner", "m/in", "n"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let text = |backend: &str, at: &str, more: &str| {
            format!(
                "[cache]\ndir = {:?}\nsize = \"1G\"\n[[mount]]\nbackend = {:?}\nat = {:?}\n{more}",
                path("c"),
                path(backend),
                path(at)
            )
        };
        let two = |(one, writes): (&str, &str), (other, too): (&str, &str)| {
            let second =
                format!("[[mount]]\nbackend = {:?}\nat = {:?}\nwrites = {too:?}\n", path("b"), path(other));
            text("b", one, &format!("writes = {writes:?}\n{second}"))
        };
        assert!(check(&text("b", "m", "")).is_ok());
        assert!(check(&two(("m", "through"), ("n", "around"))).is_ok());
        for (config, says) in [
            (text("none", "m", ""), "BACKEND"),
            (text("b", "none", ""), "mkdir"),
            (text("b", "b/inner", ""), "lies inside BACKEND"),
            (text("b", "m", "").replace("/c\"", "/b\""), "--cache"),
            (text("b", "m", "").replace("/c\"", "/m/c\""), "lies inside MOUNT"),
            (text("b/inner", "m", "").replace("/c\"", "/b\""), "lies inside --cache"),
            (text("b", "m", "").replace("/c\"", "/none/c\""), "--cache"),
            (two(("m", "back"), ("n", "back")), "one journal"),
            (two(("m", "through"), ("n", "back")), "/n are both mounts"),
            (two(("m", "through"), ("m", "through")), "named twice"),
            (two(("m", "through"), ("m/in", "through")), "m/in lies inside MOUNT"),
            (two(("m/in", "through"), ("m", "through")), "m/in lies inside MOUNT"),
            (text("b", "m", "policy = \"netcas\""), "--profile"),
            (text("b", "m", "polcy = \"netcas\""), "polcy"),
            (text("b", "m", "policy = \"fast\""), "fast"),
            (text("b", "m", "max_backend_bytes = \"x\""), "200G"),
            (text("b", "m", "hedge_percent = 50"), "--hedge-percent 50"),
            (text("b", "m", "writes = \"behind\""), "behind"),
            (text("b", "m", "dirty = \"1G\""), "--writes back"),
            (text("b", "m", "fsync = \"local\""), "--writes back"),
            (text("b", "m", "writes = \"back\"\ndirty = \"1M\""), "16M"),
            ("[cache]\ndir = \"/c\"\nsize = \"1G\"\n".into(), "[[mount]]"),
        ] {
            let error = check(&config).unwrap_err();
            assert!(error.contains(says), "{config}\ngave {error}");
        }
    }
}
