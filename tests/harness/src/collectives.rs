//! The libraries for ranks in a cluster's directory, where its jobs find them as installed.

use crate::artifacts::{Artifacts, make_dir, stage};
use crate::{Cluster, Result};
use std::path::{Path, PathBuf};

/// The modules of the package.
const MODULES: &[&str] = &["__init__.py", "_buffer.py", "_comm.py", "_library.py", "torch.py"];

/// Puts the Python package and its library where `PYTHONPATH` of the cluster's shells points.
pub fn install(cluster: &Cluster) -> Result {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../collectives/python/src/migshare");
    let package = cluster.path("lib/python/migshare");
    make_dir(&package, 0o755)?;
    for module in MODULES {
        stage(&sources.join(module), &package.join(module), 0o644)?;
    }
    stage(&Artifacts::find()?.get("libmigshare.so")?, &package.join("libmigshare.so.1"), 0o755)
}

/// Puts NCCL's network plugin beside the other libraries; where it is.
pub fn install_network(cluster: &Cluster) -> Result<PathBuf> {
    let plugin = cluster.path("lib/libnccl-net-migshare.so");
    stage(&Artifacts::find()?.get("libnccl_net_migshare.so")?, &plugin, 0o755)?;
    Ok(plugin)
}
