//! Port numbers for a cluster: a block that no other cluster on this machine uses.
//!
//! Blocks lie below the kernel's ephemeral range, so that no srun's own listening port falls into one. A block
//! is claimed by an abstract socket of its name, which the kernel frees with the process, however that ends.

use crate::{Result, Trouble};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const FIRST: u16 = 20_000;
const BLOCK: u16 = 20;
const BLOCKS: u16 = 500;

/// A claimed block of ports; free again when dropped.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    _claim: UnixDatagram,
}

impl Ports {
    /// Claims a block whose ports are all free now.
    pub fn claim() -> Result<Ports> {
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        (0..BLOCKS)
            .map(|i| FIRST + (start + i) % BLOCKS * BLOCK)
            .find_map(try_claim)
            .ok_or_else(|| Trouble::Program("no free block of ports".to_owned()))
    }

    /// A number for the first job of a cluster with these ports: clusters that run beside each other have different
    /// job ids, as the control groups of all of them lie in one kernel.
    pub fn first_job(&self) -> u32 {
        u32::from(self.base) * 100
    }

    /// The n-th port of the block.
    ///
    /// # Panics
    /// When the block has no n-th port: a cluster is smaller than that.
    pub fn get(&self, n: u16) -> u16 {
        assert!(n < BLOCK, "a cluster has {BLOCK} ports at most");
        self.base + n
    }
}

fn try_claim(base: u16) -> Option<Ports> {
    let name = SocketAddr::from_abstract_name(format!("migshare-harness-ports-{base}")).ok()?;
    let claim = UnixDatagram::bind_addr(&name).ok()?;
    let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    (base..base + BLOCK).all(free).then_some(Ports { base, _claim: claim })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_have_no_port_in_common() {
        let (a, b) = (Ports::claim().unwrap(), Ports::claim().unwrap());
        assert!(a.base.abs_diff(b.base) >= BLOCK);
    }
}
