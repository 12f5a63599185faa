//! What carries a file system: from the mount table and sysfs alone, because a question to
//! the file system itself (statfs) may hang.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::{Source, lustre, nvme, rdma, tcp};
use crate::mounts::{Mount, Root, mount_of};

/// What the backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A local file system on these disks (names as in /sys/class/block).
    Block(Vec<String>),
    /// A Lustre file system of this name.
    Lustre(String),
    /// A file system reached over TCP at these peers.
    Tcp(Vec<Peer>),
    /// Something that says nothing of its way.
    Other,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Address.
    pub address: IpAddr,
    /// Port; any when unknown.
    pub port: Option<u16>,
}

/// Loop devices and stacked devices may stand on each other this deep.
const DEPTH: u32 = 8;

impl Kind {
    /// What a mount is carried by.
    pub fn of(root: &Root, mount: &Mount) -> Self {
        match mount.kind.as_str() {
            "lustre" => match mount.source.rsplit_once(":/") {
                Some((_, path)) => Self::Lustre(path.split('/').next().unwrap_or(path).to_owned()),
                None => Self::Other,
            },
            "nfs" | "nfs4" => Self::tcp(option(mount, "addr"), option(mount, "port").or(Some("2049"))),
            "fuse.glusterfs" | "fuse.sshfs" | "ceph" | "cifs" | "smb3" => {
                let host = option(mount, "addr").or_else(|| mount.source.split(':').next());
                Self::tcp(host, None)
            }
            _ => {
                let mut disks = Vec::new();
                disks_below(root, &mount.device, DEPTH, &mut disks);
                if disks.is_empty() { Self::Other } else { Self::Block(disks) }
            }
        }
    }

    /// Names are not resolved: that may take for ever where the network is what is broken.
    fn tcp(address: Option<&str>, port: Option<&str>) -> Self {
        match address.and_then(|a| a.parse().ok()) {
            Some(address) => Self::Tcp(vec![Peer { address, port: port.and_then(|p| p.parse().ok()) }]),
            None => Self::Other,
        }
    }

    /// Everything that tells about this kind.
    pub(crate) fn sources(&self, root: &Root) -> Vec<Box<dyn Source>> {
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let (peers, rdma) = match self {
            Self::Block(disks) => {
                let disks: Vec<_> = disks.iter().filter_map(|d| nvme::Disk::find(root, d)).collect();
                let ways: Vec<_> = disks.iter().flat_map(nvme::Disk::ways).collect();
                for disk in disks {
                    sources.push(Box::new(disk));
                }
                (ways.iter().filter_map(nvme::Way::tcp_peer).collect(), ways.iter().any(nvme::Way::is_rdma))
            }
            Self::Lustre(name) => {
                let client = lustre::Client::find(root, name);
                let (peers, rdma) = client.as_ref().map(lustre::Client::ways).unwrap_or_default();
                if let Some(client) = client {
                    sources.push(Box::new(client));
                }
                (peers, rdma)
            }
            Self::Tcp(peers) => (peers.clone(), false),
            Self::Other => (Vec::new(), false),
        };
        if !peers.is_empty() {
            sources.push(Box::new(tcp::Connections::to(peers)));
        }
        if rdma && let Some(ports) = rdma::Ports::find(root) {
            sources.push(Box::new(ports));
        }
        sources
    }
}

fn option<'a>(mount: &'a Mount, name: &str) -> Option<&'a str> {
    mount.options.split(',').find_map(|o| o.strip_prefix(name)?.strip_prefix('='))
}

/// Whole disks that carry a block device, through partitions, device mapper, md and loop devices.
fn disks_below(root: &Root, number: &str, depth: u32, found: &mut Vec<String>) {
    let Ok(mut dir) = root.at(&format!("sys/dev/block/{number}")).canonicalize() else { return };
    if depth == 0 {
        return;
    }
    if dir.join("partition").exists() {
        dir.pop();
    }
    let below = fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten();
    let below: Vec<_> = below.filter_map(|e| fs::read_to_string(e.path().join("dev")).ok()).collect();
    for number in &below {
        disks_below(root, number.trim(), depth - 1, found);
    }
    if let Ok(file) = fs::read_to_string(dir.join("loop/backing_file"))
        && let Ok(Some(mount)) = mount_of(root, Path::new(file.trim_end()))
    {
        disks_below(root, &mount.device, depth - 1, found);
    } else if below.is_empty()
        && let Some(name) = dir.file_name().and_then(|n| n.to_str())
        && !found.iter().any(|f| f == name)
    {
        found.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Kind {
        Kind::of(&Root("/nowhere".into()), &line.parse().unwrap())
    }

    #[test]
    fn network_file_systems_are_known_by_type_and_source() {
        let lustre = "9 1 0:50 / /lustre rw - lustre 172.20.20.1@o2ib:172.20.20.2@o2ib:/lustrefs/sub rw";
        assert_eq!(kind(lustre), Kind::Lustre("lustrefs".into()));
        let nfs = "9 1 0:51 / /nfs rw - nfs4 srv:/x rw,vers=4.2,proto=tcp,addr=10.1.2.3";
        let peer = Peer { address: "10.1.2.3".parse().unwrap(), port: Some(2049) };
        assert_eq!(kind(nfs), Kind::Tcp(vec![peer]));
        let gluster = "9 1 0:52 / /g rw - fuse.glusterfs 10.213.7.2:/gv0 rw,user_id=0";
        let peer = Peer { address: "10.213.7.2".parse().unwrap(), port: None };
        assert_eq!(kind(gluster), Kind::Tcp(vec![peer]));
        assert_eq!(kind("9 1 0:53 / /g rw - fuse.glusterfs name:/gv0 rw"), Kind::Other);
        assert_eq!(kind("9 1 0:54 / /t rw - tmpfs tmpfs rw"), Kind::Other);
    }

    #[test]
    fn a_partition_on_device_mapper_leads_to_its_disks() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        let make = |path: &str, text: &str| {
            let path = root.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        make("sys/devices/nvme1n1/nvme1n1p2/partition", "2\n");
        make("sys/devices/nvme1n1/nvme1n1p2/dev", "259:2\n");
        make("sys/devices/dm-0/dev", "253:0\n");
        let link = |to: &str, name: &str| {
            let name = root.at(name);
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(root.at(to), name).unwrap();
        };
        link("sys/devices/dm-0", "sys/dev/block/253:0");
        link("sys/devices/nvme1n1/nvme1n1p2", "sys/dev/block/259:2");
        link("sys/devices/nvme1n1/nvme1n1p2", "sys/devices/dm-0/slaves/nvme1n1p2");
        let mut found = Vec::new();
        disks_below(&root, "253:0", DEPTH, &mut found);
        assert_eq!(found, ["nvme1n1"]);
        found.clear();
        // A device that stands on itself ends.
        link("sys/devices/dm-0", "sys/devices/dm-0/slaves/dm-0");
        disks_below(&root, "253:0", DEPTH, &mut found);
        assert_eq!(found, ["nvme1n1"]);
    }
}
