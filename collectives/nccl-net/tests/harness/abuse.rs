//! What a peer may do to a connection: receives that are too short, closes in flight, deaths at the worst moment, garbage in the
//! segment. The other side is told, and what it was told has arrived has arrived.

use std::os::fd::AsRawFd;
use std::path::Path;

use migshare_collectives::flow::CELL;
use migshare_collectives::segment::Layout;
use nccl_net_migshare::abi::NcclResult;

use crate::loaded::{Net, VERSIONS};
use crate::ring::{Member, all_succeed, pattern, ring, ring_with, until};

const NONE: *mut libc::c_void = std::ptr::null_mut();

#[test]
fn a_short_message_for_a_shorter_receive_is_refused_and_the_next_one_arrives() {
    all_succeed(ring(2, |folder| {
        for version in VERSIONS {
            let member = Member::connect(version, &folder);
            let (first, second) = (pattern(member.rank, 0, 5000), pattern(member.rank, 1, 64));
            let (mut short, mut none, mut into) = ([0; 100], [9; 1], [0; 64]);
            let refused =
                [member.start_receive(&mut short, NONE), member.start_receive(&mut none[..0], NONE)];
            let next = member.start_receive(&mut into, NONE);
            let sends = [&first, &second, &second].map(|data| member.start_send(data, NONE));
            for request in refused {
                let error = until("a refusal", || member.net.try_test(request).err());
                assert_eq!(error, NcclResult::InvalidUsage, "version {version}");
            }
            assert_eq!(member.finish(&[&[next], &sends[..]].concat()), [64, 5000, 64, 64]);
            assert!(into[..] == pattern(1 - member.rank, 1, 64) && none == [9]);
            assert!(
                short.iter().all(|byte| *byte == 0) || short[..] == pattern(1 - member.rank, 0, 5000)[..100]
            );
            member.close();
        }
    }));
}

#[test]
fn requests_without_bytes_arrive_among_others() {
    all_succeed(ring(2, |folder| {
        for version in VERSIONS {
            let member = Member::connect(version, &folder);
            let mut into = [[7; 8]; 3];
            let [empty, full, last] = &mut into;
            let receives = [
                member.start_receive(&mut empty[..0], NONE),
                member.start_receive(full, NONE),
                member.start_receive(last, NONE),
            ];
            let sends = [&[][..], &[5; 8], &[]].map(|data| member.start_send(data, NONE));
            assert_eq!(member.finish(&[receives, sends].concat()), [0, 8, 0, 0, 8, 0], "version {version}");
            assert_eq!(into, [[7; 8], [5; 8], [7; 8]]);
            member.close();
        }
    }));
}

/// One closes with messages of its own under way: each side has what arrived whole before, or an error.
#[test]
fn a_close_with_messages_under_way_ends_both_sides() {
    all_succeed(ring(2, |folder| {
        for (number, version) in VERSIONS.into_iter().enumerate() {
            let member = Member::connect(version, &folder);
            let mut hello = [0; 1];
            member.finish(&[member.start_receive(&mut hello, NONE), member.start_send(&[1], NONE)]);
            let mut out = pattern(member.rank, number, 8 << 20);
            // Announced with its address, so that the other may have it at once, or more than the ring holds.
            let by_one_copy = number.is_multiple_of(2);
            let memory = if by_one_copy { member.net.register_host(member.send, &mut out) } else { NONE };
            let (rank, mut into) = (member.rank, vec![0; 8 << 20]);
            let requests = [member.start_receive(&mut into, NONE), member.start_send(&out, memory)];
            let ends =
                |net: &Net| requests.map(|request| until("the end", || net.try_test(request).transpose()));
            let ends = if rank == 0 {
                ends(&member.closed())
            } else {
                let ends = ends(&member.net);
                member.close();
                ends
            };
            for end in ends {
                let whole = by_one_copy && end == Ok(8 << 20);
                assert!(
                    whole || end == Err(NcclResult::RemoteError),
                    "version {version}, rank {rank}: {end:?}"
                );
            }
            assert!(ends[0].is_err() || into == pattern(1 - rank, number, 8 << 20), "version {version}");
        }
    }));
}

/// Ends this process when the peer can know of the message, and tells by a file which process that was.
fn die(folder: &Path) -> ! {
    std::fs::write(folder.join("dying"), std::process::id().to_string()).unwrap();
    // SAFETY: a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!()
}

/// Waits until the process that said so is dead.
fn until_dead(folder: &Path) {
    let pid = until("a number", || {
        std::fs::read_to_string(folder.join("dying")).ok().filter(|text| !text.is_empty())
    });
    until("a death", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (status.is_empty() || status.contains(") Z")).then_some(())
    });
}

#[test]
fn a_peer_killed_between_the_announcement_and_the_reading_of_a_message_is_lost() {
    // Some of which the relay has staged a part, and one that it may have staged as a whole.
    for len in [1 << 20, 300_001, 200_000] {
        let Some(mut children) = ring(2, |folder| {
            let member = Member::connect(10, &folder);
            let mut out = pattern(1, 3, len);
            if member.rank == 1 {
                let memory = member.net.register_host(member.send, &mut out);
                member.start_send(&out, memory);
                die(&folder);
            }
            until_dead(&folder);
            let mut into = vec![0; len];
            let request = member.start_receive(&mut into, NONE);
            match until("the end", || member.net.try_test(request).transpose()) {
                Err(error) => assert_eq!(error, NcclResult::RemoteError),
                Ok(size) => assert!(size == len && into == out && len < 1 << 18, "{size} of {len}"),
            }
            member.close();
        }) else {
            return;
        };
        children[1].wait().unwrap();
        assert!(children[0].wait().unwrap().success(), "{len}");
    }
}

/// The first requests of two connections have the same place in theirs.
#[test]
fn requests_of_two_connections_are_not_mixed_up() {
    all_succeed(ring(2, |folder| {
        let members = [8, 10].map(|version| Member::connect(version, &folder));
        let mut into = [[0; 16]; 2];
        let [first, second] = &mut into;
        let early = members[0].start_receive(first, NONE);
        let late = members[1].start_receive(second, NONE);
        let out = [5, 6].map(|message| pattern(members[0].rank, message, 16));
        // What is sent on the second connection ends nothing on the first.
        assert_eq!(members[1].finish(&[members[1].start_send(&out[1], NONE), late]), [16, 16]);
        assert_eq!(members[0].net.try_test(early), Ok(None));
        let mut go = [0; 1];
        members[1].finish(&[members[1].start_send(&[1], NONE), members[1].start_receive(&mut go, NONE)]);
        assert_eq!(members[0].finish(&[members[0].start_send(&out[0], NONE), early]), [16, 16]);
        for (message, found) in [5, 6].into_iter().zip(into) {
            assert!(found[..] == pattern(1 - members[0].rank, message, 16));
        }
        members.into_iter().for_each(Member::close);
    }));
}

/// The segment of a connection of this process, as words.
struct Words {
    at: *mut u64,
    /// Control words, and headers of messages: where no byte is payload.
    places: Vec<usize>,
}

impl Words {
    /// Of the first segment that this process has open.
    fn find() -> Self {
        const BYTES: usize = 64 << 20;
        let file = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .flatten()
            .filter(|entry| {
                std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("memfd:"))
            })
            .find_map(|entry| std::fs::File::options().read(true).write(true).open(entry.path()).ok())
            .expect("a segment");
        assert_eq!(file.metadata().unwrap().len(), BYTES as u64);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh shared mapping of the whole file.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        let layout = Layout::new(BYTES as u64, 2).unwrap();
        let lines = (0..2).flat_map(|rank| (0..8).map(move |index| layout.line(0, rank, index)));
        let pairs = [(0, 1), (1, 0)];
        let heads = pairs.iter().flat_map(|(source, target)| {
            let (ring, relay) =
                (layout.ring_lines(0, *source, *target), layout.relay_lines(0, *source, *target));
            [ring.0, ring.1, relay.0, relay.1]
        });
        let headers = pairs.iter().flat_map(|(source, target)| {
            (0..24).flat_map(move |cell| {
                (0..5).map(move |word| layout.ring(0, *source, *target) + cell * CELL + word * 8)
            })
        });
        Self { at: at.cast(), places: lines.chain(heads).chain(headers).map(|place| place / 8).collect() }
    }

    fn write(&self, index: usize, value: u64) {
        // SAFETY: inside the mapping; that others write there at the same time is the test.
        unsafe { self.at.add(self.places[index % self.places.len()]).write_volatile(value) }
    }
}

/// Sends empty and long messages, which are all headers in the ring, until one fails; what arrives has to be right.
fn exchange(member: &Member, mut between: impl FnMut(usize)) -> Result<(), NcclResult> {
    let length = |message: usize| if message.is_multiple_of(3) { 0 } else { 70_000 + message * 1001 };
    for message in 0..120 {
        let mut out = pattern(member.rank, message, length(message));
        let mut into = vec![0; length(message)];
        let memory = member.net.register_host(member.send, &mut out);
        let receive = member.net.try_receive(member.receive, &mut into, NONE)?;
        let send = member.net.try_send(member.send, &out, memory)?;
        between(message);
        for (request, len) in [(receive, into.len()), (send, out.len())] {
            assert_eq!(until("a request", || member.net.try_test(request).transpose())?, len);
        }
        assert!(into == pattern(1 - member.rank, message, length(message)), "message {message}");
        member.net.deregister(member.send, memory);
    }
    Ok(())
}

#[test]
fn garbage_in_the_segment_of_a_connection_never_hangs_crashes_or_gives_wrong_messages() {
    let Some(children) = ring_with(2, &[("MIGSHARE_NET_TIMEOUT_MS", "700")], |folder| {
        let mut state = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("seed {state}");
        let mut below = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for round in 0..10 {
            let folder = folder.join(round.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let member = Member::connect(12, &folder);
            let words = Words::find();
            let ended = exchange(&member, |message| {
                if member.rank == 0 && message > 3 {
                    for _ in 0..1 << below(4) {
                        let garbage = [u64::MAX, 0, below(u64::MAX), below(1 << 20)];
                        words.write(below(1 << 30) as usize, garbage[below(4) as usize]);
                    }
                }
            });
            assert!(matches!(ended, Ok(()) | Err(NcclResult::RemoteError)), "round {round}: {ended:?}");
            member.close();
        }
    }) else {
        return;
    };
    all_succeed(Some(children));
}
