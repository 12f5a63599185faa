//! Where the programs under test lie, and how they get into a cluster's directory.
//!
//! They are copied there because a job's user may not be able to walk to the build directory: a clone below
//! root's home, for example.

use crate::{Result, Trouble};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The build directory of the running profile, `target/debug` for example.
#[derive(Debug, Clone)]
pub struct Artifacts(PathBuf);

impl Artifacts {
    /// Found from the running test or example, which lies one folder below.
    pub fn find() -> Result<Artifacts> {
        let exe = std::env::current_exe().map_err(|cause| file("the running program", cause))?;
        let profile =
            exe.ancestors().nth(2).ok_or_else(|| Trouble::Program("no build directory".to_owned()))?;
        Ok(Artifacts(profile.to_owned()))
    }

    /// A built program or library.
    pub fn get(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(Trouble::Program(format!("{} is not built: run `make build` first", path.display())))
    }

    /// A file of the Python packages that `contrib/scripts/install-needs.sh` installs, `pynvml.py` for example.
    pub fn python_file(&self, name: &str) -> Result<PathBuf> {
        let lib = self.venv().join("lib");
        let entries = std::fs::read_dir(&lib).map_err(|cause| file(&lib.display().to_string(), cause))?;
        entries
            .flatten()
            .map(|python| python.path().join("site-packages").join(name))
            .find(|found| found.exists())
            .ok_or_else(|| Trouble::Program(format!("no {name} below {}: run `make needs`", lib.display())))
    }

    /// The Python that has these packages.
    pub fn python(&self) -> PathBuf {
        self.venv().join("bin/python")
    }

    fn venv(&self) -> PathBuf {
        self.0.with_file_name("venv")
    }

    /// The folder for what the demo leaves to look at.
    pub fn demo(&self) -> Result<PathBuf> {
        let dir = self.0.with_file_name("demo");
        make_dir(&dir, 0o755)?;
        Ok(dir)
    }

    /// Where the logs of a failed story are kept.
    pub fn logs_of(&self, story: &str) -> PathBuf {
        self.0.join("story-logs").join(story)
    }
}

/// Copies a file into the cluster and gives it a mode.
pub fn stage(from: &Path, to: &Path, mode: u32) -> Result {
    std::fs::copy(from, to)
        .and_then(|_| std::fs::set_permissions(to, std::fs::Permissions::from_mode(mode)))
        .map_err(|cause| file(&format!("{} to {}", from.display(), to.display()), cause))
}

/// Makes a directory with a mode that the umask does not change.
pub fn make_dir(path: &Path, mode: u32) -> Result {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(|cause| file(&path.display().to_string(), cause))
}

/// Writes a file that everybody may read.
pub fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|cause| file(&path.display().to_string(), cause))
}

/// Gives a file a mode.
pub fn set_mode(path: &Path, mode: u32) -> Result {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|cause| file(&path.display().to_string(), cause))
}

/// The error for a file.
pub(crate) fn file(what: &str, cause: std::io::Error) -> Trouble {
    Trouble::File { what: what.to_owned(), cause }
}
