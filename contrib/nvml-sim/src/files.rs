//! Directories that every user can enter, whatever the umask of the process that makes them.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes a directory and those above it that are missing, each with mode 0755.
pub fn directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        directory(above)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, PermissionsExt::from_mode(0o755)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}
