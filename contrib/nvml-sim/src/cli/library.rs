//! `lib-dir`: the library under the names by which NVML is loaded.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Names under which consumers look for NVML.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// The library as cargo builds it.
const BUILT: &str = "libnvidia_ml.so";

/// Makes `dir` with links to the library.
pub(crate) fn link(dir: &Path, library: Option<PathBuf>) -> anyhow::Result<()> {
    let library = library.map_or_else(beside, Ok)?;
    let library = library.canonicalize().with_context(|| format!("library {}", library.display()))?;
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for name in NAMES {
        let fresh = dir.join(format!(".{name}.new"));
        // A leftover of a killed run may be in the way.
        let _ = std::fs::remove_file(&fresh);
        std::os::unix::fs::symlink(&library, &fresh).with_context(|| fresh.display().to_string())?;
        std::fs::rename(&fresh, dir.join(name)).with_context(|| dir.join(name).display().to_string())?;
    }
    println!("{}", dir.display());
    Ok(())
}

/// The library beside this program or, installed, in `../lib/migshare`.
fn beside() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("path of this program")?;
    let folder = program.parent().context("folder of this program")?;
    let places = [folder.join(BUILT), folder.join("../lib/migshare").join(NAMES[0])];
    let found = places.iter().find(|path| path.exists()).cloned();
    found.with_context(|| {
        format!("no {} and no {}; name it by --library", places[0].display(), places[1].display())
    })
}
