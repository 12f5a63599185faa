//! Minor numbers of the capability device files, as the kernel module publishes them under /proc.
//!
//! A process may use an instance when it can open `/dev/nvidia-caps/nvidia-cap<minor>` of its GPU instance and of its compute
//! instance. The paths count GPUs by the minor of `/dev/nvidia<minor>`, not by NVML's index (open-gpu-kernel-modules, nv-caps.c).

use std::path::{Path, PathBuf};

/// The /proc tree of the driver.
#[derive(Debug, Clone)]
pub(crate) struct Capabilities {
    proc_root: PathBuf,
}

impl Capabilities {
    pub(crate) fn new(proc_root: &Path) -> Capabilities {
        Capabilities { proc_root: proc_root.to_owned() }
    }

    /// The minor that guards a GPU instance.
    pub(crate) fn gpu_instance(&self, gpu_minor: u32, gi: u32) -> Option<u32> {
        self.minor(gpu_minor, &format!("gi{gi}/access"))
    }

    /// The minor that guards a compute instance.
    pub(crate) fn compute_instance(&self, gpu_minor: u32, gi: u32, ci: u32) -> Option<u32> {
        self.minor(gpu_minor, &format!("gi{gi}/ci{ci}/access"))
    }

    /// Major number of the capability device files.
    pub(crate) fn major(&self) -> Option<u32> {
        let devices = std::fs::read_to_string(self.proc_root.join("devices")).ok()?;
        devices.lines().find_map(|line| line.trim().strip_suffix(" nvidia-caps")?.trim().parse().ok())
    }

    /// The file of the capability itself, else the driver's table of all of them.
    fn minor(&self, gpu_minor: u32, name: &str) -> Option<u32> {
        let own = format!("driver/nvidia/capabilities/gpu{gpu_minor}/mig/{name}");
        let table = "driver/nvidia-caps/mig-minors";
        let read = |path: &str| std::fs::read_to_string(self.proc_root.join(path)).ok();
        read(&own)
            .and_then(|text| field(&text, "DeviceFileMinor:"))
            .or_else(|| field(&read(table)?, &format!("gpu{gpu_minor}/{name} ")))
    }
}

/// The number behind `key` on the line that starts with it.
fn field(text: &str, key: &str) -> Option<u32> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_own_file_of_a_capability_is_believed_first() {
        let dir = tree(&[
            (
                "driver/nvidia/capabilities/gpu1/mig/gi9/access",
                "DeviceFileMinor: 219\nDeviceFileMode: 256\nDeviceFileModify: 1\n",
            ),
            (
                "driver/nvidia-caps/mig-minors",
                "config 1\nmonitor 2\ngpu1/gi9/access 7\ngpu1/gi9/ci0/access 220\n",
            ),
        ]);
        let caps = Capabilities::new(dir.path());
        assert_eq!(caps.gpu_instance(1, 9), Some(219));
        assert_eq!(caps.compute_instance(1, 9, 0), Some(220), "from the table");
        assert_eq!(caps.gpu_instance(0, 9), None);
    }

    #[test]
    fn the_major_number_is_read_from_devices() {
        let dir =
            tree(&[("devices", "Character devices:\n195 nvidia\n235 nvidia-caps\n236 nvidia-caps-imex\n")]);
        assert_eq!(Capabilities::new(dir.path()).major(), Some(235));
        assert_eq!(Capabilities::new(tree(&[]).path()).major(), None);
    }
}
