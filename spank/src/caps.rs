//! NVIDIA's capability devices, as the driver lists them below /proc.
//!
//! Opening a MIG instance needs two device files, `/dev/nvidia-caps/nvidia-cap<minor>`: one of the GPU instance, one
//! of the compute instance (MIG User Guide, "Device Nodes and Capabilities"). Who may open which is all that stands
//! between the leaves of two jobs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

/// Major number of the capability devices: `nvidia-caps` in `<proc>/devices`. `None` on a node without them.
pub fn major(proc: &Path) -> Option<u32> {
    major_in(&fs::read_to_string(proc.join("devices")).ok()?)
}

/// Minor numbers that instances of the GPUs of this node have or may get, with those of `config` and `monitor`.
///
/// `<proc>/driver/nvidia-caps/mig-minors` lists 32 GPUs whether or not they exist; only those below
/// `<proc>/driver/nvidia/capabilities` count here.
pub fn minors(proc: &Path) -> io::Result<BTreeSet<u32>> {
    let mut here = BTreeSet::new();
    for entry in fs::read_dir(proc.join("driver/nvidia/capabilities"))? {
        here.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let list = fs::read_to_string(proc.join("driver/nvidia-caps/mig-minors"))?;
    Ok(list.lines().filter_map(|line| minor_in(line, &here)).collect())
}

/// The minor of a line such as `gpu0/gi1/ci0/access 13`, unless its GPU is not here.
fn minor_in(line: &str, here: &BTreeSet<String>) -> Option<u32> {
    let (name, minor) = line.trim().rsplit_once(' ')?;
    let owner = name.split('/').next()?;
    if owner.starts_with("gpu") && !here.contains(owner) {
        return None;
    }
    minor.parse().ok()
}

fn major_in(devices: &str) -> Option<u32> {
    let characters = devices.split("Block devices:").next()?;
    characters.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (name.trim() == "nvidia-caps").then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_is_that_of_the_character_device_of_exactly_this_name() {
        let with = "Character devices:\n  1 mem\n195 nvidia-frontend\n234 nvidia-caps-imex-channels\n235 nvidia-caps\n\n\
                    Block devices:\n  7 loop\n";
        assert_eq!(major_in(with), Some(235));
        assert_eq!(major_in("Character devices:\n234 nvidia-caps-imex-channels\n"), None);
        assert_eq!(major_in("Character devices:\n\nBlock devices:\n235 nvidia-caps\n"), None);
        assert_eq!(major_in(""), None);
    }

    #[test]
    fn minors_are_those_of_gpus_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        fs::create_dir_all(proc.join("driver/nvidia/capabilities/gpu0/mig")).unwrap();
        fs::create_dir_all(proc.join("driver/nvidia-caps")).unwrap();
        let list =
            "config 1\nmonitor 2\ngpu0/gi0/access 3\ngpu0/gi0/ci0/access 4\ngpu1/gi0/access 138\nnonsense\n";
        fs::write(proc.join("driver/nvidia-caps/mig-minors"), list).unwrap();
        assert_eq!(minors(proc).unwrap(), BTreeSet::from([1, 2, 3, 4]));
        assert!(minors(&proc.join("nowhere")).is_err());
    }
}
