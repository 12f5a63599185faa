//! Counters of the TCP connections to the backend: NVMe/TCP, NFS, Lustre over sockets, GlusterFS.
//!
//! For reads we are the receiver, so what tells about the way to us is what arrives out of order (the sender repeats what
//! was lost), beside our own retransmissions and the round trip. Delivery rate and congestion window describe our sending
//! and are not looked at. Connections that the kernel owns appear here as well, in the network namespace where they were
//! made.

mod diag;

use std::collections::HashMap;
use std::time::Instant;

use super::backend::Peer;
use super::trend::Best;
use super::{Finding, Source, SourceName};
use diag::Connection;

/// More than one packet of a hundred lost or out of order is congestion; below so many packets nothing is concluded.
const LOST_PERCENT: u64 = 1;
const FEWEST_PACKETS: u64 = 100;
/// A segment that was sent so many times without an answer.
const BACKED_OFF: u8 = 2;

/// The connections to some peers.
#[derive(Debug)]
pub(crate) struct Connections {
    peers: Vec<Peer>,
    before: HashMap<u64, Connection>,
    best: Best,
}

impl Connections {
    /// All connections to these peers, whoever owns them.
    pub(crate) fn to(peers: Vec<Peer>) -> Self {
        Self { peers, before: HashMap::new(), best: Best::default() }
    }

    fn judge(&mut self, now: Instant, open: &[Connection]) -> Finding {
        let mut packets = 0;
        let mut lost = 0;
        for connection in open {
            let Some(before) = self.before.get(&connection.cookie) else { continue };
            packets += connection.packets().saturating_sub(before.packets());
            lost += connection.lost().saturating_sub(before.lost());
        }
        self.before = open.iter().map(|c| (c.cookie, c.clone())).collect();
        let stuck = open.iter().filter(|c| c.backoff >= BACKED_OFF).count();
        // The fastest connection: an idle one keeps the round trip that it had when it was last used.
        let round_trip = open.iter().filter(|c| c.rtt_us > 0).map(|c| c.rtt_us.into()).min();
        let slow = round_trip.and_then(|now_us| Some((now_us, self.best.exceeded(now, now_us)?)));
        if stuck > 0 {
            Finding::degraded(format!("{stuck} of {} TCP connections wait for an answer", open.len()))
        } else if packets >= FEWEST_PACKETS && lost * 100 > packets * LOST_PERCENT {
            Finding::degraded(format!("{lost} of {packets} TCP packets were lost or out of order"))
        } else if let Some((now_us, best)) = slow {
            Finding::degraded(format!("the TCP round trip is {now_us} us, {best} us at best lately"))
        } else {
            Finding::live()
        }
    }
}

impl Source for Connections {
    fn name(&self) -> SourceName {
        SourceName::Tcp
    }

    fn watches(&self) -> String {
        let peers: Vec<String> = self
            .peers
            .iter()
            .map(|p| p.port.map_or_else(|| p.address.to_string(), |n| format!("{} port {n}", p.address)))
            .collect();
        format!("TCP connections to {}", peers.join(", "))
    }

    fn look(&mut self, now: Instant) -> Finding {
        match diag::connections(&self.peers) {
            Ok(open) => self.judge(now, &open),
            // No INET_DIAG in this kernel: nothing is known.
            Err(_) => Finding::live(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::BackendState;
    use super::*;

    fn connection(packets: u32, out_of_order: u32) -> Connection {
        let quiet = Connection { cookie: 7, rtt_us: 500, ..Connection::default() };
        Connection { segments_in: packets, out_of_order, ..quiet }
    }

    #[test]
    fn losses_are_told_by_interval_and_forgotten_when_they_end() {
        let mut watched = Connections::to(Vec::new());
        let now = Instant::now();
        assert_eq!(watched.judge(now, &[connection(1000, 900)]), Finding::live());
        assert_eq!(watched.judge(now, &[connection(2000, 905)]), Finding::live());
        let lossy = watched.judge(now, &[connection(3000, 1005)]);
        assert_eq!(lossy.signal.as_deref(), Some("100 of 1000 TCP packets were lost or out of order"));
        assert_eq!(watched.judge(now, &[connection(4000, 1005)]), Finding::live());
        assert_eq!(watched.judge(now, &[connection(4010, 1010)]), Finding::live());
    }

    #[test]
    fn a_connection_that_gets_no_answer_and_a_long_round_trip_degrade_the_backend() {
        let mut watched = Connections::to(Vec::new());
        let now = Instant::now();
        watched.judge(now, &[connection(0, 0)]);
        let stuck = Connection { backoff: 3, ..connection(0, 0) };
        assert_eq!(watched.judge(now, &[stuck]).state, BackendState::Degraded);
        let slow = Connection { rtt_us: 9000, ..connection(0, 0) };
        let later = now + Duration::from_secs(1);
        assert!(watched.judge(later, &[slow]).signal.is_some_and(|s| s.contains("500 us at best")));
    }
}
