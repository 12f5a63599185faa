//! The safe wrapper that Rust programs use, nvml-wrapper, reads the node.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::node::{Node, on, own_sim, shared_object};

fn node() -> Node {
    Node::new(
        "[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = 2\nmig = true\nnuma_node = 1\ncpu_affinity = \"0-3\"",
    )
}

#[test]
fn nvml_wrapper_reads_versions_gpus_and_leaves() {
    on("wrapper::nvml_wrapper_reads_versions_gpus_and_leaves", node, |raw| {
        let nvml = Nvml::builder().lib_path(shared_object().as_os_str()).init().unwrap();
        assert_eq!(nvml.sys_driver_version().unwrap(), "550.54.15");
        assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 12040);
        assert_eq!(nvml.device_count().unwrap(), 2);
        let gpu = nvml.device_by_index(0).unwrap();
        assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
        assert_eq!((gpu.mig_mode().unwrap().current, gpu.mig_device_count().unwrap()), (1, 7));
        assert_eq!(gpu.pci_info().unwrap().bus_id, "00000000:01:00.0");
        assert_eq!(gpu.memory_info().unwrap().total, 81559 << 20);
        let handle = raw.gpu(0).unwrap();
        raw.create_full_ci(raw.create_at(handle, 19, (0, 1)).unwrap()).unwrap();
        let leaf = gpu.mig_device_by_index(0).unwrap();
        assert_eq!(leaf.attributes().unwrap().memory_size_mb, 9984);
        assert_eq!(nvml.device_by_uuid(leaf.uuid().unwrap()).unwrap().name().unwrap(), leaf.name().unwrap());
        assert!(matches!(gpu.mig_device_by_index(1), Err(NvmlError::NotFound)));
        assert!(own_sim(&["lose", "0"]).status.success());
        assert!(matches!(gpu.mig_mode(), Err(NvmlError::GpuLost)));
    });
}
