//! Processes in a ring, each sending to the next and receiving from the one before.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nccl_net_migshare::abi::NcclResult;

use crate::loaded::{Net, Ptr, VERSIONS};

const PATIENCE: Duration = Duration::from_secs(60);

/// One process of a ring, connected on both sides.
pub(crate) struct Member {
    pub(crate) net: Net,
    listener: Ptr,
    pub(crate) send: Ptr,
    pub(crate) receive: Ptr,
    pub(crate) rank: usize,
    ranks: usize,
}

pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} takes too long");
        std::thread::yield_now();
    }
}

fn variable(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

impl Member {
    /// In a member process: connects with the neighbours; handles travel through files.
    pub(crate) fn connect(version: u32, folder: &Path) -> Self {
        let (rank, ranks) = (variable("RING_RANK").unwrap(), variable("RING_SIZE").unwrap());
        let net = Net::open(version);
        let (handle, listener) = net.listen().unwrap();
        let file = |rank: usize| folder.join(format!("handle.{version}.{rank}"));
        std::fs::write(folder.join(format!("{version}.{rank}.new")), handle).unwrap();
        std::fs::rename(folder.join(format!("{version}.{rank}.new")), file(rank)).unwrap();
        let next = until("a handle", || std::fs::read(file((rank + 1) % ranks)).ok());
        let mut next: [u8; 128] = next.try_into().unwrap();
        let (mut send, mut receive): (Ptr, Ptr) = (std::ptr::null_mut(), std::ptr::null_mut());
        until("a connection", || {
            if send.is_null() {
                send = net.try_connect(&mut next).unwrap();
            }
            if receive.is_null() {
                receive = net.try_accept(listener).unwrap();
            }
            (!send.is_null() && !receive.is_null()).then_some(())
        });
        Self { net, listener, send, receive, rank, ranks }
    }

    pub(crate) fn start_send(&self, data: &[u8], memory: Ptr) -> Ptr {
        until("room to send", || {
            Some(self.net.try_send(self.send, data, memory).unwrap()).filter(|r| !r.is_null())
        })
    }

    pub(crate) fn start_receive(&self, data: &mut [u8], memory: Ptr) -> Ptr {
        until("room to receive", || {
            Some(self.net.try_receive(self.receive, data, memory).unwrap()).filter(|r| !r.is_null())
        })
    }

    /// Polls all requests in turn, as a proxy thread does; their sizes.
    pub(crate) fn finish(&self, requests: &[Ptr]) -> Vec<usize> {
        let mut sizes = vec![None; requests.len()];
        until("a request", || {
            // The last one first: requests may be tested in any order.
            for (request, size) in requests.iter().zip(&mut sizes).rev() {
                if size.is_none() {
                    *size = self.net.try_test(*request).unwrap();
                }
            }
            sizes.iter().all(Option::is_some).then_some(())
        });
        sizes.into_iter().flatten().collect()
    }

    pub(crate) fn close(self) {
        self.closed();
    }

    /// Closes the connections; the table lives on.
    pub(crate) fn closed(self) -> Net {
        self.net.close(self.send, self.receive, self.listener);
        self.net
    }
}

/// In the parent: starts the calling test once per rank; in a member: runs `body` with its folder.
pub(crate) fn ring(ranks: usize, body: impl FnOnce(PathBuf)) -> Option<Vec<Child>> {
    ring_with(ranks, &[], body)
}

/// The same with more in the members' environment.
pub(crate) fn ring_with(
    ranks: usize,
    environment: &[(&str, &str)],
    body: impl FnOnce(PathBuf),
) -> Option<Vec<Child>> {
    if let Ok(folder) = std::env::var("RING_FOLDER") {
        body(PathBuf::from(folder));
        return None;
    }
    let folder = tempfile::tempdir().unwrap().keep();
    let name = std::thread::current().name().unwrap().to_owned();
    let start = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads=1"])
            .envs(environment.iter().copied())
            .env("RING_FOLDER", &folder)
            .env("RING_RANK", rank.to_string())
            .env("RING_SIZE", ranks.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    Some((0..ranks).map(start).collect())
}

pub(crate) fn all_succeed(children: Option<Vec<Child>>) {
    for mut child in children.into_iter().flatten() {
        assert!(child.wait().unwrap().success());
    }
}

pub(crate) fn pattern(rank: usize, message: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + rank * 7 + message) as u8).collect()
}

#[test]
fn thirty_two_requests_in_flight_of_all_sizes_arrive_in_order() {
    all_succeed(ring(3, |folder| {
        for version in VERSIONS {
            let member = Member::connect(version, &folder);
            let before = (member.rank + member.ranks - 1) % member.ranks;
            // Zero bytes, odd lengths, and beyond the ring.
            let length = |i: usize| [0, 1, 63, 4096, 70_001, 1 << 20][i % 6];
            let mut out: Vec<_> = (0..32).map(|i| pattern(member.rank, i, length(i))).collect();
            let mut into: Vec<_> = (0..32).map(|i| vec![0; length(i) + 100]).collect();
            let memory: Vec<_> =
                out.iter_mut().map(|data| member.net.register_host(member.send, data)).collect();
            let receives: Vec<_> =
                into.iter_mut().map(|data| member.start_receive(data, std::ptr::null_mut())).collect();
            let mut spare = [0; 8];
            let full = member.net.try_receive(member.receive, &mut spare, std::ptr::null_mut());
            assert!(full.unwrap().is_null(), "a request beyond 32 has to come again");
            let sends: Vec<_> =
                out.iter().zip(&memory).map(|(data, m)| member.start_send(data, *m)).collect();
            let sizes = member.finish(&[receives, sends].concat());
            for i in 0..32 {
                assert_eq!((sizes[i], sizes[i + 32]), (length(i), length(i)));
                assert!(
                    into[i][..length(i)] == pattern(before, i, length(i)),
                    "version {version}, message {i}"
                );
            }
            member.net.flush(member.receive);
            memory.into_iter().for_each(|m| member.net.deregister(member.send, m));
            member.close();
        }
    }));
}

#[test]
fn unregistered_memory_is_carried_too() {
    all_succeed(ring(2, |folder| {
        let member = Member::connect(10, &folder);
        let out = pattern(member.rank, 0, 3 << 20);
        let mut into = vec![0; 3 << 20];
        let none = std::ptr::null_mut();
        let requests = [member.start_receive(&mut into, none), member.start_send(&out, none)];
        member.finish(&requests);
        assert!(into == pattern(1 - member.rank, 0, 3 << 20));
        member.close();
    }));
}

#[test]
fn a_connection_closed_in_flight_ends_the_requests_of_the_peer() {
    all_succeed(ring(2, |folder| {
        let member = Member::connect(8, &folder);
        let (mut into, none) = ([0; 64], std::ptr::null_mut());
        // Both sides are connected when both have heard of each other.
        let hello = [member.start_receive(&mut into, none), member.start_send(&[1], none)];
        member.finish(&hello);
        let request = member.start_receive(&mut into, std::ptr::null_mut());
        if member.rank == 0 {
            return member.close();
        }
        let error = until("the end", || member.net.try_test(request).err());
        assert_eq!(error, NcclResult::RemoteError);
        member.close();
    }));
}

/// Three in a ring, of whom the last sends itself a signal that silences it: the first receives from it, the second sends to it more than
/// the ring holds, and both are told.
fn one_falls_silent(signal: libc::c_int, environment: &[(&str, &str)]) {
    let Some(mut children) = ring_with(3, environment, |folder| {
        let member = Member::connect(12, &folder);
        if member.rank == 2 {
            // SAFETY: a signal to this process.
            unsafe { libc::kill(libc::getpid(), signal) };
        }
        let (mut into, none) = ([0; 64], std::ptr::null_mut());
        let out = vec![1; 8 << 20];
        let request = if member.rank == 0 {
            member.start_receive(&mut into, none)
        } else {
            member.start_send(&out, none)
        };
        assert_eq!(until("the end", || member.net.try_test(request).err()), NcclResult::RemoteError);
        member.close();
    }) else {
        return;
    };
    assert!(children[0].wait().unwrap().success());
    assert!(children[1].wait().unwrap().success());
    children[2].kill().unwrap();
    children[2].wait().unwrap();
}

#[test]
fn a_killed_peer_ends_the_requests_of_its_neighbours() {
    one_falls_silent(libc::SIGKILL, &[]);
}

#[test]
fn a_stopped_peer_ends_the_requests_of_its_neighbours_when_their_time_is_over() {
    one_falls_silent(libc::SIGSTOP, &[("MIGSHARE_NET_TIMEOUT_MS", "500")]);
}

/// Around a block, the relay and a long message of many blocks.
const LONG: [usize; 6] = [65_536, 65_537, 262_143, 262_145, 1 << 20, (3 << 20) + 5];

#[test]
fn long_messages_arrive_whole_whoever_moves_their_blocks() {
    all_succeed(ring(2, |folder| {
        let member = Member::connect(8, &folder);
        let (count, length) = (24, |i: usize| LONG[(i * 5 + i / 6) % LONG.len()]);
        let mut out: Vec<_> = (0..count).map(|i| pattern(member.rank, i, length(i))).collect();
        let memory: Vec<_> = out.iter_mut().map(|data| member.net.register_host(member.send, data)).collect();
        for round in 0..6 {
            let mut into: Vec<_> = (0..count).map(|i| vec![0; length(i)]).collect();
            let receives: Vec<_> =
                into.iter_mut().map(|data| member.start_receive(data, std::ptr::null_mut())).collect();
            let sends: Vec<_> =
                out.iter().zip(&memory).map(|(data, m)| member.start_send(data, *m)).collect();
            // Both at once, then one that stages while the other only reads, and one that reads all by itself.
            let parts = match (round + member.rank) % 3 {
                0 => vec![[receives, sends].concat()],
                1 => vec![sends, receives],
                _ => vec![receives, sends],
            };
            parts.iter().for_each(|part| drop(member.finish(part)));
            for (i, data) in into.iter().enumerate() {
                assert!(*data == pattern(1 - member.rank, i, length(i)), "round {round}, message {i}");
            }
        }
        memory.into_iter().for_each(|m| member.net.deregister(member.send, m));
        member.close();
    }));
}

#[test]
fn a_long_message_for_a_short_receive_is_refused_and_the_next_one_arrives() {
    all_succeed(ring(2, |folder| {
        let member = Member::connect(6, &folder);
        let mut out = pattern(member.rank, 0, 1 << 20);
        let memory = member.net.register_host(member.send, &mut out);
        let (mut short, mut into) = (vec![0; (1 << 20) - 1], vec![0; 1 << 20]);
        let none = std::ptr::null_mut();
        let refused = member.start_receive(&mut short, none);
        let next = member.start_receive(&mut into, none);
        let sends = [member.start_send(&out, memory), member.start_send(&out, memory)];
        let error = until("a refusal", || member.net.try_test(refused).err());
        assert_eq!(error, NcclResult::InvalidUsage);
        member.finish(&[&[next], &sends[..]].concat());
        assert!(into == pattern(1 - member.rank, 0, 1 << 20) && short.iter().all(|byte| *byte == 0));
        member.close();
    }));
}

#[test]
fn what_arrived_from_a_peer_that_was_killed_while_it_staged_is_right() {
    const MESSAGES: usize = 12;
    for _ in 0..5 {
        let Some(mut children) = ring(2, |folder| {
            let member = Member::connect(10, &folder);
            let mut out: Vec<_> = (0..MESSAGES).map(|i| pattern(1, i, 1 << 20)).collect();
            if member.rank == 1 {
                let memory: Vec<_> =
                    out.iter_mut().map(|data| member.net.register_host(member.send, data)).collect();
                let sends: Vec<_> =
                    out.iter().zip(memory).map(|(data, m)| member.start_send(data, m)).collect();
                // Somewhere in the stream, elsewhere each time.
                let polls = std::process::id() % 40;
                let _ = (0..polls).find_map(|_| member.net.try_test(sends[MESSAGES - 1]).unwrap());
                // SAFETY: a signal to this process.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            let mut into = vec![0; 1 << 20];
            for (i, sent) in out.iter().enumerate() {
                let request = member.start_receive(&mut into, std::ptr::null_mut());
                let end = until("the end", || member.net.try_test(request).transpose());
                if let Err(error) = end {
                    assert_eq!(error, NcclResult::RemoteError);
                    break;
                }
                assert!(into == *sent, "message {i}");
            }
            member.close();
        }) else {
            return;
        };
        children[1].wait().unwrap();
        assert!(children[0].wait().unwrap().success());
    }
}
