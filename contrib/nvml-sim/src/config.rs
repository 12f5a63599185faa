//! The configuration file: which GPUs the node has, and where the simulator keeps its files.
//!
//! The GPUs, driver and CUDA version of a file take effect at the next simulated boot, as hardware does. The
//! directories and `enforce_caps` are read by each process when it initialises.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::machine::GiOrder;
use crate::models::{self, Model};

/// Environment variable that names the configuration file.
pub const VARIABLE: &str = "NVML_SIM_CONFIG";
/// The configuration file where the variable is not set.
pub const DEFAULT_PATH: &str = "/etc/nvml-sim.toml";
/// Most GPUs of a node: capability minors are defined up to gpu31 (nv-caps.c).
pub const MAX_GPUS: usize = 32;

/// A configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Directory of the shared state.
    pub state: PathBuf,
    /// Directory of the proc-like tree and device nodes.
    pub root: PathBuf,
    /// Node name: seed of the GPUs' UUIDs.
    pub node: String,
    /// Driver version.
    pub driver: String,
    /// CUDA version.
    pub cuda: (u32, u32),
    /// Major number of capability device nodes.
    pub caps_major: u32,
    /// Hide MIG devices whose capability nodes a process may not open.
    pub enforce_caps: bool,
    /// One entry per GPU.
    pub gpus: Vec<GpuConfig>,
}

/// One GPU of the configuration.
#[derive(Debug, Clone)]
pub struct GpuConfig {
    /// Its model.
    pub model: &'static Model,
    /// Order of GPU instance ids.
    pub gi_order: GiOrder,
    /// MIG mode at first boot.
    pub mig: bool,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// CPUs near it.
    pub cpus: Vec<u32>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {0} cannot be read")]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error("configuration {0}: {1}")]
    Parse(PathBuf, String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default = "default_state")]
    state: PathBuf,
    #[serde(default = "default_root")]
    root: PathBuf,
    #[serde(default = "default_driver")]
    driver: String,
    #[serde(default = "default_cuda")]
    cuda: String,
    #[serde(default = "default_caps_major")]
    caps_major: u32,
    #[serde(default = "yes")]
    enforce_caps: bool,
    #[serde(default)]
    gpu: Vec<RawGpu>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGpu {
    model: String,
    #[serde(default = "one")]
    count: usize,
    #[serde(default)]
    gi_order: GiOrder,
    #[serde(default)]
    mig: bool,
    numa_node: Option<u32>,
    #[serde(default)]
    cpu_affinity: String,
}

fn default_state() -> PathBuf {
    "state".into()
}
fn default_root() -> PathBuf {
    "root".into()
}
fn default_driver() -> String {
    "550.54.15".to_owned()
}
fn default_cuda() -> String {
    "12.4".to_owned()
}
fn default_caps_major() -> u32 {
    235
}
fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}

impl Config {
    /// Reads the file that `path`, else the environment, else [`DEFAULT_PATH`] names; `%n` in it is the node name.
    pub fn locate(path: Option<&Path>) -> Result<Config, ConfigError> {
        let named = path.map(Path::to_path_buf).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let named = named.unwrap_or_else(|| DEFAULT_PATH.into());
        let node = node_name();
        let path = match named.to_str() {
            Some(text) => PathBuf::from(text.replace("%n", &node)),
            None => named,
        };
        let text = std::fs::read_to_string(&path).map_err(|e| ConfigError::Read(path.clone(), e))?;
        Config::parse(&path, &text, node)
    }

    /// Reads the text of a configuration. Relative directories are relative to the directory of `path`.
    pub fn parse(path: &Path, text: &str, node: String) -> Result<Config, ConfigError> {
        let wrong = |what: String| ConfigError::Parse(path.to_path_buf(), what);
        let raw: Raw = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let base = std::path::absolute(base).map_err(|e| ConfigError::Read(path.to_path_buf(), e))?;
        let mut gpus = Vec::new();
        for gpu in &raw.gpu {
            let known = read_gpu(gpu).map_err(wrong)?;
            gpus.extend(std::iter::repeat_n(known, gpu.count.min(MAX_GPUS + 1)));
        }
        if gpus.is_empty() || gpus.len() > MAX_GPUS {
            return Err(wrong(format!(
                "a node has 1 to {MAX_GPUS} GPUs ([[gpu]], count), not {}",
                gpus.len()
            )));
        }
        Ok(Config {
            path: path.to_path_buf(),
            state: base.join(&raw.state),
            root: base.join(&raw.root),
            node,
            cuda: read_cuda(&raw.cuda)
                .ok_or_else(|| wrong(format!("cuda = {:?} is not like 12.4", raw.cuda)))?,
            driver: Some(raw.driver.clone())
                .filter(|d| version(d).is_some())
                .ok_or_else(|| wrong(format!("driver = {:?} is not like 550.54.15", raw.driver)))?,
            caps_major: raw.caps_major,
            enforce_caps: raw.enforce_caps,
            gpus,
        })
    }

    /// What an administrator should know about this configuration: drivers too old, values that were inferred.
    pub fn remarks(&self) -> Vec<String> {
        let mut models: Vec<&Model> = self.gpus.iter().map(|g| g.model).collect();
        models.dedup_by_key(|m| &m.alias);
        let old = |m: &&&Model| version(&self.driver) < version(&m.min_driver);
        let old = models.iter().filter(old).map(|m| {
            format!("driver {} is older than {}, the first for {}", self.driver, m.min_driver, m.product)
        });
        let inferred =
            models.iter().flat_map(|m| m.inferred.iter().map(move |i| format!("{}: {i}", m.alias)));
        old.chain(inferred).collect()
    }
}

fn read_gpu(raw: &RawGpu) -> Result<GpuConfig, String> {
    let model = models::find(&raw.model).ok_or_else(|| {
        let known: Vec<&str> = models::all().iter().map(|m| m.alias.as_str()).collect();
        format!("model {:?} is not known; known are {} and their full names", raw.model, known.join(", "))
    })?;
    let cpus = read_cpus(&raw.cpu_affinity)
        .ok_or_else(|| format!("cpu_affinity = {:?} is not like 0-3,8", raw.cpu_affinity))?;
    Ok(GpuConfig { model, gi_order: raw.gi_order, mig: raw.mig, numa_node: raw.numa_node, cpus })
}

/// A CPU list as in sysfs: `0-3,8`; empty means none.
fn read_cpus(text: &str) -> Option<Vec<u32>> {
    const MAX_CPU: u32 = 4095;
    let mut cpus = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

fn read_cuda(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
        .filter(|&(major, minor): &(u32, u32)| major < 1000 && minor < 100)
}

fn version(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// What `%n` stands for: the name that slurmd gave this node, else the short host name.
pub fn node_name() -> String {
    let slurm = std::env::var("SLURMD_NODENAME").ok().filter(|name| !name.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = slurm.or_else(host).unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/lab/sim.toml"), text, "n1".into()).map_err(|e| e.to_string())
    }

    #[test]
    fn directories_are_relative_to_the_file() {
        let config = parse("state = \"s\"\nroot = \"/r\"\n[[gpu]]\nmodel = \"a30\"\ncount = 2").unwrap();
        assert_eq!(config.state, Path::new("/etc/lab/s"));
        assert_eq!(config.root, Path::new("/r"));
        assert_eq!(config.gpus.len(), 2);
    }

    #[test]
    fn cpu_lists_are_read_as_sysfs_writes_them() {
        assert_eq!(read_cpus("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(read_cpus(""), Some(vec![]));
        for bad in ["3-1", "x", "0-99999999", "-1"] {
            assert_eq!(read_cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn bad_files_are_refused_by_name_of_the_field() {
        for (text, says) in [
            ("", "1 to 32 GPUs"),
            ("[[gpu]]\nmodel = \"T4\"", "h100-sxm-80"),
            ("[[gpu]]\nmodel = \"a30\"\ncount = 33", "1 to 32 GPUs"),
            ("[[gpu]]\nmodel = \"a30\"\ngi_order = \"random\"", "gi_order"),
            ("[[gpu]]\nmodel = \"a30\"\ncpu_affinity = \"a\"", "cpu_affinity"),
            ("cuda = \"twelve\"\n[[gpu]]\nmodel = \"a30\"", "cuda"),
            ("driver = \"new\"\n[[gpu]]\nmodel = \"a30\"", "driver"),
            ("colour = 1\n[[gpu]]\nmodel = \"a30\"", "colour"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(says) && error.contains("/etc/lab/sim.toml"), "{text}: {error}");
        }
    }

    #[test]
    fn an_old_driver_and_inferred_values_are_remarked() {
        let remarks = parse("driver = \"550.54.15\"\n[[gpu]]\nmodel = \"b200\"").unwrap().remarks();
        assert!(remarks.iter().any(|r| r.contains("older than 570.133")), "{remarks:?}");
        assert!(remarks.iter().any(|r| r.contains("placements: inferred")), "{remarks:?}");
        let remarks = parse("[[gpu]]\nmodel = \"a100-40\"").unwrap().remarks();
        assert!(remarks.is_empty(), "{remarks:?}");
    }
}
