//! Connections and their counters by netlink (sock_diag(7)), which needs no rights. Byte positions are those of
//! `struct inet_diag_req_v2`, `inet_diag_msg` (linux/inet_diag.h) and `tcp_info` (linux/tcp.h); older kernels send a shorter
//! `tcp_info`, whose missing counters read as 0.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::Peer;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;
/// All states but LISTEN (10), CLOSE (7) and TIME_WAIT (6).
const STATES: u32 = 0xfff & !(1 << 10 | 1 << 7 | 1 << 6);
const NLMSG_HEADER: usize = 16;
const DIAG_MESSAGE: usize = 72;

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    /// The kernel's name for the socket.
    pub(super) cookie: u64,
    /// The other end.
    pub(super) peer: Option<(IpAddr, u16)>,
    /// Doublings of the retransmission timer since the last answer.
    pub(super) backoff: u8,
    /// Smoothed round trip in microseconds.
    pub(super) rtt_us: u32,
    /// Segments sent again, ever.
    pub(super) retransmitted: u32,
    pub(super) segments_out: u32,
    pub(super) segments_in: u32,
    /// Segments that came out of order, ever.
    pub(super) out_of_order: u32,
}

impl Connection {
    pub(super) fn packets(&self) -> u64 {
        u64::from(self.segments_out) + u64::from(self.segments_in)
    }

    pub(super) fn lost(&self) -> u64 {
        u64::from(self.retransmitted) + u64::from(self.out_of_order)
    }
}

/// The open connections to some peers.
///
/// # Errors
/// When the kernel has no sock_diag.
pub(super) fn connections(peers: &[Peer]) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for peer in peers {
        for connection in dump(peer.address.is_ipv6(), peer.port.unwrap_or(0))? {
            let (address, port) = connection.peer.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
            let same = address == peer.address && peer.port.is_none_or(|p| p == port);
            if same && !found.contains(&connection) {
                found.push(connection);
            }
        }
    }
    Ok(found)
}

fn dump(v6: bool, port: u16) -> io::Result<Vec<Connection>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::INET_DIAG))?;
    sendto(&socket, &request(v6, port), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let (len, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if len == 0 || parse(&buffer[..len], &mut found)? {
            return Ok(found);
        }
    }
}

fn request(v6: bool, port: u16) -> [u8; NLMSG_HEADER + 56] {
    let mut message = [0; NLMSG_HEADER + 56];
    let len = message.len() as u32;
    message[0..4].copy_from_slice(&len.to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    message[16] = family.as_raw() as u8;
    message[17] = IPPROTO_TCP;
    message[18] = 1 << (INET_DIAG_INFO - 1);
    message[20..24].copy_from_slice(&STATES.to_ne_bytes());
    message[26..28].copy_from_slice(&port.to_be_bytes());
    message
}

/// Takes the connections out of one datagram; true when it was the last one.
fn parse(mut datagram: &[u8], found: &mut Vec<Connection>) -> io::Result<bool> {
    while datagram.len() >= NLMSG_HEADER {
        let (len, kind) = (u32_at(datagram, 0) as usize, u16_at(datagram, 4));
        let Some(message) = datagram.get(NLMSG_HEADER..len) else { return Ok(true) };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                return Err(io::Error::from_raw_os_error(u32_at(message, 0).wrapping_neg().cast_signed()));
            }
            SOCK_DIAG_BY_FAMILY => found.extend(connection(message)),
            _ => {}
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

fn connection(message: &[u8]) -> Option<Connection> {
    let mut attributes = message.get(DIAG_MESSAGE..)?;
    let address = match message[0] {
        v6 if u16::from(v6) == AddressFamily::INET6.as_raw() => {
            let v6 = Ipv6Addr::from(<[u8; 16]>::try_from(&message[24..40]).ok()?);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
        }
        _ => IpAddr::V4(Ipv4Addr::new(message[24], message[25], message[26], message[27])),
    };
    let port = u16::from_be_bytes([message[6], message[7]]);
    let mut connection = Connection {
        cookie: u64::from(u32_at(message, 44)) | u64::from(u32_at(message, 48)) << 32,
        peer: Some((address, port)),
        ..Connection::default()
    };
    while attributes.len() >= 4 {
        let (len, kind) = (u16_at(attributes, 0) as usize, u16_at(attributes, 2));
        let Some(value) = attributes.get(4..len) else { break };
        if kind == INET_DIAG_INFO {
            connection.backoff = value.get(4).copied().unwrap_or(0);
            connection.rtt_us = u32_at(value, 68);
            connection.retransmitted = u32_at(value, 100);
            connection.segments_out = u32_at(value, 136);
            connection.segments_in = u32_at(value, 140);
            connection.out_of_order = u32_at(value, 224);
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(connection)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    found.map_or(0, u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    found.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_of_this_machine_is_found_with_its_counters() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let to = listener.local_addr().unwrap();
            let peer = Peer { address: to.ip(), port: Some(to.port()) };
            let Ok(before) = connections(&[peer]) else {
                println!("SKIP: no INET_DIAG in this kernel");
                return;
            };
            assert_eq!(before, [], "a listener is no connection");
            let mut client = TcpStream::connect(to).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(&[1; 100_000]).unwrap();
            client.read_exact(&mut [0; 100_000]).unwrap();
            let found = connections(&[peer]).unwrap();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].segments_in > 0 && found[0].rtt_us > 0, "{found:?}");
            assert_eq!(found[0].backoff, 0);
            let any_port = Peer { port: None, ..peer };
            assert!(connections(&[any_port]).unwrap().iter().any(|c| c.cookie == found[0].cookie));
        }
    }

    #[test]
    fn cut_and_senseless_messages_are_read_without_harm() {
        let mut whole = vec![0_u8; NLMSG_HEADER + DIAG_MESSAGE + 8];
        let len = whole.len() as u32;
        whole[0..4].copy_from_slice(&len.to_ne_bytes());
        whole[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        whole[NLMSG_HEADER + DIAG_MESSAGE..][..4].copy_from_slice(&[8, 0, 2, 0]);
        for cut in 0..=whole.len() {
            let mut found = Vec::new();
            let _ = parse(&whole[..cut], &mut found);
            assert_eq!(found.len(), usize::from(cut == whole.len()));
        }
        let mut zero = whole;
        zero[NLMSG_HEADER + DIAG_MESSAGE..][..4].fill(0);
        assert!(parse(&zero, &mut Vec::new()).is_ok());
        assert!(parse(&[0; 64], &mut Vec::new()).unwrap_or(true));
    }
}
