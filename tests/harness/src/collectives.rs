//! The libraries for ranks in a cluster's directory, where its jobs find them as installed.

use crate::artifacts::{Artifacts, make_dir, stage};
use crate::{Cluster, Result, Trouble};
use std::path::{Path, PathBuf};

/// Puts the Python package and its library where `PYTHONPATH` of the cluster's shells points.
pub fn install(cluster: &Cluster) -> Result {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../collectives/python/src/migshare");
    let package = cluster.path("lib/python/migshare");
    make_dir(&package, 0o755)?;
    let unreadable = |cause: std::io::Error| Trouble::Program(format!("{}: {cause}", sources.display()));
    for entry in sources.read_dir().map_err(unreadable)? {
        let module = entry.map_err(unreadable)?.path();
        if module.extension().is_some_and(|end| end == "py") {
            stage(&module, &package.join(module.file_name().unwrap_or_default()), 0o644)?;
        }
    }
    stage(&Artifacts::find()?.get("libmigshare.so")?, &package.join("libmigshare.so.1"), 0o755)
}

/// Puts NCCL's network plugin beside the other libraries; where it is.
pub fn install_network(cluster: &Cluster) -> Result<PathBuf> {
    let plugin = cluster.path("lib/libnccl-net-migshare.so");
    stage(&Artifacts::find()?.get("libnccl_net_migshare.so")?, &plugin, 0o755)?;
    Ok(plugin)
}
