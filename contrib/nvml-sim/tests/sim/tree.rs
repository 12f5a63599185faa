//! The capability files and nodes follow the instances.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::node::{Node, on, own_root, skip};

/// Files below the capabilities of a GPU, with the minors they name.
fn shown(root: &Path, gpu: u32) -> BTreeSet<(String, u32)> {
    let base = root.join(format!("proc/driver/nvidia/capabilities/gpu{gpu}/mig"));
    let mut found = BTreeSet::new();
    let mut open = vec![base.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let (first, rest) = text.split_once('\n').unwrap();
            assert_eq!(rest, "DeviceFileMode: 292\nDeviceFileModify: 1\n");
            let minor = first.strip_prefix("DeviceFileMinor: ").unwrap().parse().unwrap();
            found.insert((path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned(), minor));
        }
    }
    found
}

fn set<const N: usize>(files: [(&str, u32); N]) -> BTreeSet<(String, u32)> {
    files.map(|(file, minor)| (file.to_owned(), minor)).into()
}

fn node() -> Node {
    Node::new("[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true")
}

#[test]
fn files_come_and_go_with_instances() {
    on("tree::files_come_and_go_with_instances", node, |nvml| {
        let root = own_root();
        let gpu = nvml.gpu(1).unwrap();
        assert_eq!(shown(&root, 1), set([]));
        // Start 6 is GPU instance 13: 3 + 135 * 1 + 9 * 13 = 255.
        let gi = nvml.create_at(gpu, 19, (6, 1)).unwrap();
        assert_eq!(shown(&root, 1), set([("gi13/access", 255)]));
        let ci = nvml.create_full_ci(gi).unwrap();
        assert_eq!(shown(&root, 1), set([("gi13/access", 255), ("gi13/ci0/access", 256)]));
        assert_eq!(shown(&root, 0), set([]));
        nvml.destroy_ci(ci).unwrap();
        assert_eq!(shown(&root, 1), set([("gi13/access", 255)]));
        nvml.destroy(gi).unwrap();
        assert_eq!(shown(&root, 1), set([]));
    });
}

#[test]
fn minors_follow_the_minor_of_the_gpu_and_not_its_index() {
    let node = node();
    node.sim(&["reset", "0", "--minor", "7"]);
    assert!(!node.path("root/proc/driver/nvidia/capabilities/gpu0").exists());
    assert!(node.path("root/proc/driver/nvidia/capabilities/gpu7/mig").exists());
    assert!(!node.try_sim(&["reset", "0", "--minor", "1"]).status.success(), "two GPUs with one minor");
}

#[test]
fn majors_and_minors_are_where_programs_look_for_them() {
    let node = Node::with("caps_major = 511", "[[gpu]]\nmodel = \"a30\"");
    node.sim(&["init"]);
    let devices = std::fs::read_to_string(node.path("root/proc/devices")).unwrap();
    assert!(devices.lines().any(|line| line == "511 nvidia-caps"), "{devices}");
    let minors = std::fs::read_to_string(node.path("root/proc/driver/nvidia-caps/mig-minors")).unwrap();
    assert_eq!(minors.lines().count(), 2 + 32 * 15 * 9);
}

#[test]
fn nodes_have_the_majors_minors_and_modes_of_the_driver() {
    if !nix::unistd::geteuid().is_root() {
        return skip("device nodes need root");
    }
    on("tree::nodes_have_the_majors_minors_and_modes_of_the_driver", node, |nvml| {
        let gi = nvml.create_at(nvml.gpu(0).unwrap(), 19, (0, 1)).unwrap();
        nvml.create_full_ci(gi).unwrap();
        let look = |name: &str| {
            let m = std::fs::metadata(own_root().join("dev").join(name)).unwrap();
            assert!(m.file_type().is_char_device(), "{name}");
            (nix::sys::stat::major(m.rdev()), nix::sys::stat::minor(m.rdev()), m.mode() & 0o777)
        };
        assert_eq!(look("nvidia-caps/nvidia-cap1"), (235, 1, 0o400));
        assert_eq!(look("nvidia-caps/nvidia-cap2"), (235, 2, 0o444));
        assert_eq!(look("nvidia-caps/nvidia-cap66"), (235, 66, 0o444));
        assert_eq!(look("nvidia-caps/nvidia-cap67"), (235, 67, 0o444));
        assert_eq!(look("nvidia0"), (195, 0, 0o666));
        assert_eq!(look("nvidiactl"), (195, 255, 0o666));
    });
}

#[test]
fn files_that_a_dead_writer_left_behind_are_put_right() {
    let node = node();
    node.sim(&["init"]);
    // As a writer killed between state and files leaves it: an older generation, a stray instance.
    let stray = node.path("root/proc/driver/nvidia/capabilities/gpu0/mig/gi9");
    std::fs::create_dir(&stray).unwrap();
    std::fs::write(node.path("root/generation.old"), "0").unwrap();
    std::fs::rename(node.path("root/generation.old"), node.path("root/generation")).unwrap();
    node.sim(&["status"]);
    assert!(!stray.exists());
}
