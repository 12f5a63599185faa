//! States and counters of InfiniBand and RoCE ports (/sys/class/infiniband; kernel, Documentation/ABI/stable/sysfs-class-
//! infiniband; the meaning of `hw_counters` is in NVIDIA's "Understanding mlx5 Linux counters").
//!
//! Which port leads to the backend is the routing's business and is not asked: all ports that are active at the mount
//! count.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Finding, Root, Source, SourceName};

/// Packets that came marked as having met congestion. For reads we are the receiver, which notices it.
const MARKED: &[&str] = &["hw_counters/np_ecn_marked_roce_packets", "hw_counters/np_cnp_sent"];
/// Packets that were lost, in words of the receiver and of the sender.
const LOST: &[&str] = &[
    "hw_counters/out_of_sequence",
    "hw_counters/packet_seq_err",
    "hw_counters/local_ack_timeout_err",
    "hw_counters/rnr_nak_retry_err",
];
const PACKETS: &str = "counters/port_rcv_packets";
/// More than one packet of a hundred is congestion; below so many packets nothing is concluded.
const PERCENT: u64 = 1;
const FEWEST_PACKETS: u64 = 1000;

/// The ports that were active when the backend was mounted.
#[derive(Debug)]
pub(crate) struct Ports(Vec<Port>);

#[derive(Debug)]
struct Port {
    name: String,
    dir: PathBuf,
    before: Option<Counters>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    packets: u64,
    marked: u64,
    lost: u64,
}

impl Ports {
    /// The active ports of this machine, if there are any.
    pub(crate) fn find(root: &Root) -> Option<Self> {
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let mut ports: Vec<Port> = entries(&root.at("sys/class/infiniband"))
            .flat_map(|device| entries(&device.join("ports")).collect::<Vec<_>>())
            .filter(|dir| is_active(dir))
            .filter_map(|dir| Some(Port { name: port_name(&dir)?, dir, before: None }))
            .collect();
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        (!ports.is_empty()).then_some(Self(ports))
    }
}

/// `4: ACTIVE`
fn is_active(dir: &Path) -> bool {
    fs::read_to_string(dir.join("state")).is_ok_and(|s| s.trim_end().ends_with(": ACTIVE"))
}

/// `mlx5_0/1`
fn port_name(dir: &Path) -> Option<String> {
    let port = dir.file_name()?.to_str()?;
    Some(format!("{}/{port}", dir.parent()?.parent()?.file_name()?.to_str()?))
}

impl Port {
    fn counters(&self) -> Counters {
        let one = |name: &str| {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            text.trim().parse::<u64>().unwrap_or(0)
        };
        let sum = |names: &[&str]| names.iter().map(|n| one(n)).fold(0, u64::saturating_add);
        Counters { packets: one(PACKETS), marked: sum(MARKED), lost: sum(LOST) }
    }

    fn look(&mut self) -> Option<String> {
        if !is_active(&self.dir) {
            return Some(format!("RDMA port {} is not active", self.name));
        }
        let now = self.counters();
        let before = self.before.replace(now)?;
        let packets = now.packets.saturating_sub(before.packets);
        let many = |count: u64| packets >= FEWEST_PACKETS && count * 100 > packets * PERCENT;
        let (marked, lost) = (now.marked.saturating_sub(before.marked), now.lost.saturating_sub(before.lost));
        if many(marked) {
            Some(format!("RDMA port {}: {marked} of {packets} packets met congestion", self.name))
        } else if many(lost) {
            Some(format!("RDMA port {}: {lost} of {packets} packets were lost", self.name))
        } else {
            None
        }
    }
}

impl Source for Ports {
    fn name(&self) -> SourceName {
        SourceName::Rdma
    }

    fn watches(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|p| p.name.as_str()).collect();
        format!("RDMA ports {}", names.join(", "))
    }

    fn look(&mut self, _now: Instant) -> Finding {
        let said: Vec<String> = self.0.iter_mut().filter_map(Port::look).collect();
        if self.0.iter().all(|p| !is_active(&p.dir)) {
            Finding::gone(said.join(", "))
        } else if said.is_empty() {
            Finding::live()
        } else {
            Finding::degraded(said.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::BackendState;
    use super::*;

    fn set(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn ports_are_judged_by_state_and_by_counters_of_the_last_interval() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root(dir.path().to_owned());
        assert!(Ports::find(&root).is_none());
        let [one, two] =
            ["mlx5_0/ports/1", "mlx5_1/ports/1"].map(|name| root.at("sys/class/infiniband").join(name));
        for port in [&one, &two] {
            set(port, "state", "4: ACTIVE\n");
            set(port, "counters/port_rcv_packets", "1000000\n");
            set(port, "hw_counters/np_ecn_marked_roce_packets", "77\n");
        }
        let mut ports = Ports::find(&root).unwrap();
        assert_eq!(ports.watches(), "RDMA ports mlx5_0/1, mlx5_1/1");
        let mut look = || ports.look(Instant::now());
        assert_eq!(look(), Finding::live(), "counters of before the mount say nothing");
        set(&one, "counters/port_rcv_packets", "1010000\n");
        set(&one, "hw_counters/np_ecn_marked_roce_packets", "1077\n");
        let marked = look();
        assert_eq!(
            marked.signal.as_deref(),
            Some("RDMA port mlx5_0/1: 1000 of 10000 packets met congestion")
        );
        set(&one, "counters/port_rcv_packets", "1020000\n");
        assert_eq!(look(), Finding::live());
        set(&one, "state", "1: DOWN\n");
        assert_eq!(look().state, BackendState::Degraded);
        set(&two, "state", "1: DOWN\n");
        assert_eq!(look().state, BackendState::Gone);
        set(&two, "state", "4: ACTIVE\n");
        assert_eq!(look().state, BackendState::Degraded);
    }
}
