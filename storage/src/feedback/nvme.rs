//! NVMe controllers below a disk: their states, and which paths a multipath disk has left.
//!
//! States are `new live resetting connecting deleting "deleting (no IO)" dead` (kernel, nvme_sysfs_show_state()); only a
//! live controller answers. A path whose ANA state is inaccessible answers nothing either (NVMe base specification 2.0,
//! section 8.1).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::backend::Peer;
use super::{Finding, Root, Source, SourceName};

/// A disk with its controllers.
#[derive(Debug)]
pub(crate) struct Disk {
    name: String,
    /// The subsystem's directory where the kernel does the multipathing, else the only controller's.
    parent: PathBuf,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    name: String,
    state: String,
    transport: String,
    address: String,
    ana: Option<String>,
}

impl Disk {
    /// The disk, if it is an NVMe one.
    pub(crate) fn find(root: &Root, disk: &str) -> Option<Self> {
        let dir = root.at(&format!("sys/class/block/{disk}")).canonicalize().ok()?;
        let parent = dir.parent()?.to_owned();
        let name = parent.file_name()?.to_str()?;
        let ours = name.starts_with("nvme-subsys") || is_controller(name);
        ours.then(|| Self { name: disk.to_owned(), parent })
    }

    /// The controllers as they are now.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let own = self.parent.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if is_controller(own) {
            return Way::read(&self.parent).into_iter().collect();
        }
        let entries = fs::read_dir(&self.parent).into_iter().flatten().flatten();
        let mut ways: Vec<Way> = entries
            .filter(|e| e.file_name().to_str().is_some_and(is_controller))
            .filter_map(|e| Way::read(&e.path()))
            .collect();
        ways.sort_by(|a, b| a.name.cmp(&b.name));
        ways
    }
}

impl Source for Disk {
    fn name(&self) -> SourceName {
        SourceName::Nvme
    }

    fn watches(&self) -> String {
        let ways: Vec<String> = self.ways().iter().map(Way::to_string).collect();
        format!("{} by {}", self.name, ways.join(", "))
    }

    fn look(&mut self, _now: Instant) -> Finding {
        judge(&self.name, &self.ways())
    }
}

fn judge(disk: &str, ways: &[Way]) -> Finding {
    let bad: Vec<String> = ways.iter().filter_map(Way::complaint).collect();
    if ways.is_empty() {
        Finding::gone(format!("{disk} has no controller left"))
    } else if bad.is_empty() {
        Finding::live()
    } else if bad.len() == ways.len() {
        Finding::gone(bad.join(", "))
    } else {
        Finding::degraded(format!("{} of {} paths to {disk}: {}", bad.len(), ways.len(), bad.join(", ")))
    }
}

/// `nvme3`, not `nvme3n1` or `nvme3c0n1`.
fn is_controller(name: &str) -> bool {
    name.strip_prefix("nvme").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

impl Way {
    fn read(dir: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(dir.join(name)).map(|t| t.trim().to_owned());
        let ana = fs::read_dir(dir).into_iter().flatten().flatten();
        Some(Self {
            name: dir.file_name()?.to_str()?.to_owned(),
            state: text("state").ok()?,
            transport: text("transport").unwrap_or_default(),
            address: text("address").unwrap_or_default(),
            ana: ana.filter_map(|e| fs::read_to_string(e.path().join("ana_state")).ok()).next(),
        })
    }

    fn complaint(&self) -> Option<String> {
        let ana = self.ana.as_deref().map_or("optimized", str::trim);
        if self.state != "live" {
            Some(format!("{self} is {}", self.state))
        } else if !matches!(ana, "optimized" | "non-optimized") {
            Some(format!("{self} is live but {ana} (ANA)"))
        } else {
            None
        }
    }

    fn part(&self, name: &str) -> Option<&str> {
        self.address.split(',').find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
    }

    /// The other end, where the transport is TCP.
    pub(crate) fn tcp_peer(&self) -> Option<Peer> {
        let address = self.part("traddr")?.parse().ok()?;
        (self.transport == "tcp")
            .then(|| Peer { address, port: self.part("trsvcid").and_then(|p| p.parse().ok()) })
    }

    /// Whether the transport is RDMA.
    pub(crate) fn is_rdma(&self) -> bool {
        self.transport == "rdma"
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}", self.name, self.transport)?;
        match (self.part("traddr"), self.part("trsvcid")) {
            (Some(address), Some(port)) => write!(f, " {address} port {port})"),
            (Some(address), None) => write!(f, " {address})"),
            _ => write!(f, " {})", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BackendState;
    use super::*;

    fn controller(dir: &Path, state: &str, ana: &str) {
        fs::create_dir_all(dir.join("nvme1c1n1")).unwrap();
        let address = "traddr=127.0.0.1,trsvcid=4420,src_addr=127.0.0.1\n";
        for (name, text) in
            [("state", state), ("transport", "tcp\n"), ("address", address), ("nvme1c1n1/ana_state", ana)]
        {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    /// A multipath disk with two controllers, as kernel 6.1 shows it.
    fn multipath(dir: &Path) -> (Root, [PathBuf; 2]) {
        let root = Root(dir.to_owned());
        let subsystem = root.at("sys/devices/virtual/nvme-subsystem/nvme-subsys1");
        fs::create_dir_all(subsystem.join("nvme1n1")).unwrap();
        fs::create_dir_all(root.at("sys/class/block")).unwrap();
        std::os::unix::fs::symlink(subsystem.join("nvme1n1"), root.at("sys/class/block/nvme1n1")).unwrap();
        let controllers = ["nvme1", "nvme2"].map(|name| {
            let real = root.at("sys/devices/virtual/nvme-fabrics/ctl").join(name);
            controller(&real, "live\n", "optimized\n");
            std::os::unix::fs::symlink(&real, subsystem.join(name)).unwrap();
            real
        });
        (root, controllers)
    }

    #[test]
    fn a_disk_is_gone_when_no_path_is_left_and_degraded_when_some_are() {
        let dir = tempfile::tempdir().unwrap();
        let (root, [one, two]) = multipath(dir.path());
        let mut disk = Disk::find(&root, "nvme1n1").unwrap();
        let mut look = || disk.look(Instant::now());
        assert_eq!(look(), Finding::live());
        fs::write(one.join("state"), "connecting\n").unwrap();
        let finding = look();
        assert_eq!(finding.state, BackendState::Degraded);
        assert_eq!(
            finding.signal.as_deref(),
            Some("1 of 2 paths to nvme1n1: nvme1 (tcp 127.0.0.1 port 4420) is connecting")
        );
        fs::write(two.join("nvme1c1n1/ana_state"), "inaccessible\n").unwrap();
        let finding = look();
        assert_eq!(finding.state, BackendState::Gone);
        assert!(finding.signal.is_some_and(|s| s.contains("inaccessible (ANA)")));
        fs::write(one.join("state"), "live\n").unwrap();
        assert_eq!(look().state, BackendState::Degraded);
        let subsystem = root.at("sys/devices/virtual/nvme-subsystem/nvme-subsys1");
        for name in ["nvme1", "nvme2"] {
            fs::remove_file(subsystem.join(name)).unwrap();
        }
        assert_eq!(look(), Finding::gone("nvme1n1 has no controller left".into()));
    }

    #[test]
    fn the_peers_of_a_disk_are_found_for_the_counters_of_their_connections() {
        let dir = tempfile::tempdir().unwrap();
        let (root, _) = multipath(dir.path());
        let disk = Disk::find(&root, "nvme1n1").unwrap();
        let peer = disk.ways()[0].tcp_peer();
        assert_eq!(peer, Some(Peer { address: "127.0.0.1".parse().unwrap(), port: Some(4420) }));
        assert!(Disk::find(&root, "sda").is_none());
    }
}
