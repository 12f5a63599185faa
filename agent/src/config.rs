//! The agent's configuration file. Strict: an unknown key, a wrong type or a value without meaning stops the start with a
//! message that names it. Nothing here is read from the environment.

use crate::segments::limits::Limits;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the file is when nobody says.
pub const DEFAULT_PATH: &str = "/etc/migshare/agent.toml";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or a type that is not known here.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and cause.
        source: Box<toml::de::Error>,
    },
    /// A value has no meaning.
    #[error("{path}: {key}: {cause}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        cause: String,
    },
}

/// The configuration of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Slurm's name of this node; the short host name where not given.
    pub node: String,
    /// How idle GPUs are cut.
    pub layout: LayoutName,
    /// How leaves lie when a request does not say.
    pub placement: Placing,
    /// Directory of the journal; made with mode 0700.
    pub state_dir: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// The socket where ranks get the memory that they share; `segment.sock` beside the agent's socket where not given.
    pub segment_socket: PathBuf,
    /// How much memory ranks may share.
    pub segments: Limits,
    /// NVML, where it is not the system's own.
    pub nvml_library: Option<PathBuf>,
    /// Seconds after which an NVML call that has not returned is an alarm.
    pub nvml_alarm: u64,
    /// Whether to wait for the errors that GPUs report by themselves.
    pub nvml_events: bool,
    /// The kernel's process file system.
    pub proc_root: PathBuf,
    /// How the shapes of instances may change.
    pub reshape: Reshape,
    /// Where others can see what happens.
    pub metrics: Metrics,
    /// What concerns Slurm.
    pub slurm: Slurm,
}

/// Names of the layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutName {
    /// As many equal leaves as the GPU allows.
    #[default]
    Uniform,
    /// As many leaves, the last one with the memory that the others leave over.
    FullMemory,
}

/// How leaves lie when a request does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placing {
    /// As the driver's generation suggests.
    #[default]
    Auto,
    /// On one GPU, then on GPUs of one NUMA node.
    Pack,
    /// Over as many GPUs as possible.
    Spread,
}

/// How the shapes of instances may change for requests larger than a leaf.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reshape {
    /// Most changes of shape that the jobs of one user may cause within the window.
    pub per_user: u32,
    /// The window in seconds.
    pub window: u32,
    /// When larger instances are cut to the layout again.
    pub give_back: GiveBack,
    /// What becomes of a job for whose larger instances no place is free.
    pub no_place: NoPlace,
}

/// What becomes of a job for whose larger instances no place is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoPlace {
    /// It fails at once and says why.
    #[default]
    Fail,
    /// A batch job is queued again, away from this node, as long as its partitions have other nodes; others fail.
    Requeue,
}

/// When larger instances are cut to the layout again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GiveBack {
    /// When their job ends.
    #[default]
    AtOnce,
    /// When their place is needed.
    Lazily,
}

/// Where others can see what happens. Nothing where not given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address for Prometheus, `/live` and `/ready`, for example `127.0.0.1:9846`.
    pub listen: Option<std::net::SocketAddr>,
    /// Directory for dcgm-exporter's `--hpc-job-mapping-dir`.
    pub hpc_job_dir: Option<PathBuf>,
}

/// What concerns Slurm.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slurm {
    /// Whether the agent drains its node when it cannot serve, and resumes what migshare drained.
    pub drain: bool,
    /// The command that drains and resumes.
    pub scontrol: PathBuf,
    /// The command that lists what runs here.
    pub squeue: PathBuf,
    /// Slurm's configuration file, where it is not the commands' own choice.
    pub conf: Option<PathBuf>,
    /// Seconds between two looks at what Slurm runs here.
    pub interval: u64,
    /// Seconds after which a Slurm command is given up.
    pub timeout: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node: String::new(),
            layout: LayoutName::default(),
            placement: Placing::default(),
            state_dir: PathBuf::from("/var/lib/migshare"),
            socket: PathBuf::from("/run/migshare/agent.sock"),
            segment_socket: PathBuf::new(),
            segments: Limits::default(),
            nvml_library: None,
            nvml_alarm: 60,
            nvml_events: true,
            proc_root: PathBuf::from("/proc"),
            reshape: Reshape::default(),
            metrics: Metrics::default(),
            slurm: Slurm::default(),
        }
    }
}

impl Default for Reshape {
    fn default() -> Reshape {
        Reshape { per_user: 60, window: 3600, give_back: GiveBack::default(), no_place: NoPlace::default() }
    }
}

impl Default for Slurm {
    fn default() -> Slurm {
        Slurm {
            drain: true,
            scontrol: PathBuf::from("scontrol"),
            squeue: PathBuf::from("squeue"),
            conf: None,
            interval: 60,
            timeout: 10,
        }
    }
}

impl Slurm {
    /// Time between two looks.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval)
    }

    /// Time after which a command is given up.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, path)
    }

    /// Reads a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let mut config: Config = toml::from_str(text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), source: Box::new(e) })?;
        if config.node.is_empty() {
            config.node = short_host_name();
        }
        if config.segment_socket.as_os_str().is_empty() {
            config.segment_socket = config.socket.with_file_name("segment.sock");
        }
        match config.fault() {
            Some((key, cause)) => Err(ConfigError::Value { path: path.to_owned(), key, cause }),
            None => Ok(config),
        }
    }

    /// The first key whose value has no meaning.
    fn fault(&self) -> Option<(&'static str, String)> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.node.is_empty() || !self.node.chars().all(allowed) {
            let cause = format!("\"{}\" is no node name: letters, digits, '-', '_' and '.'", self.node);
            return Some(("node", cause));
        }
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("socket", &self.socket),
            ("proc_root", &self.proc_root),
            ("segment_socket", &self.segment_socket),
        ] {
            if !path.is_absolute() {
                return Some((key, format!("\"{}\" is not an absolute path", path.display())));
            }
        }
        for (key, seconds) in [
            ("slurm.interval", self.slurm.interval),
            ("slurm.timeout", self.slurm.timeout),
            ("nvml_alarm", self.nvml_alarm),
        ] {
            if !(1..=86_400).contains(&seconds) {
                return Some((key, format!("{seconds} is not between 1 and 86400 seconds")));
            }
        }
        self.segments.fault()
    }
}

fn short_host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").unwrap();
        assert_eq!(config.state_dir, Path::new("/var/lib/migshare"));
        assert!(!config.node.is_empty() && !config.node.contains('.'));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let e = parse("[slurm]\ndrian = true\n").unwrap_err();
        assert!(e.contains("drian") && e.contains("agent.toml"), "{e}");
        let e = parse("layuot = \"uniform\"\n").unwrap_err();
        assert!(e.contains("layuot"), "{e}");
    }

    #[test]
    fn a_value_without_meaning_is_named_with_what_is_allowed() {
        let e = parse("layout = \"striped\"\n").unwrap_err();
        assert!(e.contains("striped") && e.contains("full-memory"), "{e}");
        let e = parse("node = \"a b\"\n").unwrap_err();
        assert!(e.contains("node: \"a b\""), "{e}");
        let e = parse("socket = \"agent.sock\"\n").unwrap_err();
        assert!(e.contains("socket: \"agent.sock\" is not an absolute path"), "{e}");
        let e = parse("[slurm]\ninterval = 0\n").unwrap_err();
        assert!(e.contains("slurm.interval: 0"), "{e}");
    }
}
