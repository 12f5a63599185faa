//! The files by which the driver shows MIG capabilities, under a directory of choice instead of `/`.
//!
//! ```text
//!   <root>/proc/devices                                        majors of nvidia and nvidia-caps
//!   <root>/proc/driver/nvidia-caps/mig-minors                  every capability and its minor
//!   <root>/proc/driver/nvidia/capabilities/mig/{config,monitor}
//!   <root>/proc/driver/nvidia/capabilities/gpu<minor>/mig/gi<I>[/ci<C>]/access
//!   <root>/dev/nvidia-caps/nvidia-cap<M>, /dev/nvidia<minor>, /dev/nvidiactl    (root only; no driver behind them)
//! ```
//! Every file is put in place by rename and its text follows from its path, so what stands is right; only which
//! files stand changes. Nodes of destroyed instances stay until they are needed again, as nvidia-modprobe leaves
//! them. A process may see a MIG device where it may open both nodes; opening one that may be opened ends in ENXIO.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::files::directory;
use crate::machine::{Machine, capability_minors};

/// Major of `/dev/nvidia<minor>` (Documentation/admin-guide/devices.txt).
const NVIDIA_MAJOR: u32 = 195;
/// Minor of `/dev/nvidiactl`.
const CONTROL_MINOR: u32 = 255;
const CONFIG_MINOR: u32 = 1;
const MONITOR_MINOR: u32 = 2;
/// GPUs, GPU instances and compute instances that nv-caps.c reserves minors for.
const GPUS: u32 = 32;
const INSTANCES: u32 = 15;

type Failure = (PathBuf, io::Error);

/// Makes the tree show `machine`.
pub fn show(machine: &Machine, root: &Path) -> Result<(), Failure> {
    let marker = root.join("generation");
    let shown = machine.generation.to_string();
    if fs::read_to_string(&marker).is_ok_and(|text| text == shown) {
        return Ok(());
    }
    let tree = Tree { root, caps_major: machine.caps_major };
    tree.constants()?;
    tree.instances(machine)?;
    tree.replace(&marker, &shown)
}

/// Whether this process may open the capability nodes of a MIG device.
pub fn may_open(root: &Path, minor: u32, gi: u32, ci: u32) -> bool {
    let (access, compute) = capability_minors(minor, gi);
    let opens = |cap: u32| opens(&node(root, cap));
    opens(access) && compute.get(ci as usize).is_some_and(|&cap| opens(cap))
}

/// Whether device nodes work under `root`: false where a mount forbids them, none where there are none.
pub fn nodes_usable(root: &Path) -> Option<bool> {
    let monitor = node(root, MONITOR_MINOR);
    monitor.exists().then(|| opens(&monitor))
}

/// Whether this process may open a node. Nothing drives it: ENXIO comes after every check of permission.
fn opens(node: &Path) -> bool {
    match fs::File::open(node) {
        Ok(_) => true,
        Err(e) => matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::ENXIO | Errno::ENODEV)),
    }
}

/// Path of a capability's device node.
pub fn node(root: &Path, cap: u32) -> PathBuf {
    root.join("dev/nvidia-caps").join(format!("nvidia-cap{cap}"))
}

struct Tree<'a> {
    root: &'a Path,
    caps_major: u32,
}

impl Tree<'_> {
    /// What does not depend on the instances.
    fn constants(&self) -> Result<(), Failure> {
        let devices = format!(
            "Character devices:\n  1 mem\n{NVIDIA_MAJOR} nvidia\n{} nvidia-caps\n\nBlock devices:\n",
            self.caps_major
        );
        self.ensure(&self.root.join("proc/devices"), &devices)?;
        self.ensure(&self.root.join("proc/driver/nvidia-caps/mig-minors"), &mig_minors())?;
        let mig = self.capabilities().join("mig");
        self.capability(&mig.join("config"), CONFIG_MINOR, 0o400)?;
        self.capability(&mig.join("monitor"), MONITOR_MINOR, 0o444)?;
        self.device(&self.root.join("dev/nvidiactl"), (NVIDIA_MAJOR, CONTROL_MINOR), 0o666)
    }

    fn instances(&self, machine: &Machine) -> Result<(), Failure> {
        let mut wanted = BTreeSet::from([self.capabilities().join("mig")]);
        for gpu in &machine.gpus {
            let device = self.root.join("dev").join(format!("nvidia{}", gpu.minor));
            self.device(&device, (NVIDIA_MAJOR, gpu.minor), 0o666)?;
            let mig = self.capabilities().join(format!("gpu{}", gpu.minor)).join("mig");
            directory(&mig).map_err(|e| (mig.clone(), e))?;
            wanted.insert(self.capabilities().join(format!("gpu{}", gpu.minor)));
            for gi in &gpu.instances {
                let dir = mig.join(format!("gi{}", gi.id));
                let (access, compute) = capability_minors(gpu.minor, gi.id);
                self.capability(&dir.join("access"), access, 0o444)?;
                wanted.insert(dir.clone());
                wanted.insert(dir.join("access"));
                for (ci, cap) in gi.compute.iter().filter_map(|ci| Some((ci, compute.get(ci.id as usize)?))) {
                    let dir = dir.join(format!("ci{}", ci.id));
                    self.capability(&dir.join("access"), *cap, 0o444)?;
                    wanted.insert(dir);
                }
            }
        }
        self.sweep(&self.capabilities(), &wanted)?;
        for gpu in &machine.gpus {
            let mig = self.capabilities().join(format!("gpu{}", gpu.minor)).join("mig");
            self.sweep(&mig, &wanted)?;
            for gi in &gpu.instances {
                self.sweep(&mig.join(format!("gi{}", gi.id)), &wanted)?;
            }
        }
        Ok(())
    }

    /// Removes what stands in `dir` and is not wanted.
    fn sweep(&self, dir: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), Failure> {
        let failed = |e| (dir.to_path_buf(), e);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !wanted.contains(&path) {
                fs::remove_dir_all(&path).map_err(|e| (path, e))?;
            }
        }
        Ok(())
    }

    /// A capability's file and node.
    fn capability(&self, file: &Path, minor: u32, mode: u32) -> Result<(), Failure> {
        // The driver prints the mode in decimal.
        let text = format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n");
        self.device(&node(self.root, minor), (self.caps_major, minor), mode)?;
        if file.exists() { Ok(()) } else { self.replace(file, &text) }
    }

    /// A character device; nothing where this process may not make one.
    fn device(&self, path: &Path, (major, minor): (u32, u32), mode: u32) -> Result<(), Failure> {
        let failed = |e: io::Error| (path.to_path_buf(), e);
        if let Some(dir) = path.parent() {
            directory(dir).map_err(failed)?;
        }
        let id = makedev(u64::from(major), u64::from(minor));
        match fs::symlink_metadata(path) {
            Ok(there) if there.rdev() == id => return Ok(()),
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        match mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), id) {
            Ok(()) => fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed),
            Err(Errno::EPERM) => Ok(()),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    fn ensure(&self, path: &Path, text: &str) -> Result<(), Failure> {
        if fs::read_to_string(path).is_ok_and(|now| now == text) { Ok(()) } else { self.replace(path, text) }
    }

    fn replace(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let failed = |e| (path.to_path_buf(), e);
        if let Some(dir) = path.parent() {
            directory(dir).map_err(failed)?;
        }
        let fresh = self.root.join("new");
        fs::write(&fresh, text).map_err(failed)?;
        fs::set_permissions(&fresh, PermissionsExt::from_mode(0o444)).map_err(failed)?;
        fs::rename(&fresh, path).map_err(failed)
    }

    fn capabilities(&self) -> PathBuf {
        self.root.join("proc/driver/nvidia/capabilities")
    }
}

/// The text of `mig-minors`.
fn mig_minors() -> String {
    let mut text = format!("config {CONFIG_MINOR}\nmonitor {MONITOR_MINOR}\n");
    for gpu in 0..GPUS {
        for gi in 0..INSTANCES {
            let (access, compute) = capability_minors(gpu, gi);
            text += &format!("gpu{gpu}/gi{gi}/access {access}\n");
            for (ci, cap) in compute.iter().enumerate() {
                text += &format!("gpu{gpu}/gi{gi}/ci{ci}/access {cap}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minor_is_that_of_the_driver() {
        let text = mig_minors();
        assert!(text.ends_with("gpu31/gi14/ci7/access 4322\n"));
        assert!(text.starts_with("config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\n"));
        assert!(text.contains("\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n"));
        assert!(text.contains("\ngpu0/gi13/ci0/access 121\n"));
    }
}
