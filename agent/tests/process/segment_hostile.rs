//! Clients of the second socket that mean harm, or that know no better.

use crate::rig::{Ends, LONG, Rig, skip, tied, until};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

fn connect(rig: &Rig) -> UnixStream {
    let stream = UnixStream::connect(rig.path("segment.sock")).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// What the agent answers to these bytes before it hangs up.
fn say(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = connect(rig);
    // The agent may hang up before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn everybody_may_connect_and_nobody_may_ask_for_anything_else() {
    let mut rig = Rig::new(1);
    rig.start();
    let mode = std::fs::metadata(rig.path("segment.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let cases: [(&[u8], &str); 8] = [
        (b"\n", "not the segment request"),
        (b"{}\n", "not the segment request"),
        (b"\xff\x00\n", "not the segment request"),
        (b"{\"status\":{}}\n", "not the segment request"),
        (b"{\"hello\":{\"protocol\":1,\"oldest\":1,\"program\":\"x\"}}\n", "not the segment request"),
        (b"{\"segment\":{\"v\":2}}\n", "version 1"),
        (b"{\"segment\":{\"v\":1}}\n", "in no job step"),
        (&[b'['; 300], "not the segment request"),
    ];
    for (bytes, part) in cases {
        let answer = say(&rig, bytes);
        assert!(answer.starts_with("{\"refused\":") && answer.contains(part), "{bytes:?}: {answer}");
    }
    assert_eq!(say(&rig, &vec![b'x'; 1 << 20]).matches('\n').count(), 1);
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut stream = connect(&rig);
    for byte in b"{\"segment\":{\"v\":1}}\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("in no job step"), "{answer}");
}

#[test]
fn thousands_of_silent_strangers_keep_no_rank_waiting() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 2);
    std::fs::set_permissions(rig.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let flood = "import resource,socket,sys\nresource.setrlimit(resource.RLIMIT_NOFILE,(4096,4096))\ns=[]\n\
                 for i in range(3000):\n c=socket.socket(socket.AF_UNIX)\n c.connect(sys.argv[1])\n s.append(c)\n\
                 print('up',flush=True)\nsys.stdin.read()";
    let mut floods: Vec<_> = [65534, 65533, 65532]
        .map(|user| {
            let mut command = Command::new("python3");
            command.args(["-c", flood]).arg(rig.path("segment.sock"));
            let mut command = tied(&command);
            Ends::start(command.uid(user).gid(user).stdin(Stdio::piped()).stdout(Stdio::piped()))
        })
        .into();
    for flood in &mut floods {
        flood.stdout.as_mut().unwrap().read_exact(&mut [0; 2]).unwrap();
    }
    for rank in 0..2 {
        assert_eq!(step.rank(rank, "fetch"), "job 7 step 0 bytes 268435456");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", rig.agent_pid())).unwrap().count();
    assert!(open < 500, "the agent holds {open} files for 9000 strangers");
}

#[test]
fn ranks_that_ask_all_at_once_are_all_served() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 16);
    for round in 0..8 {
        for rank in 0..16 {
            assert_eq!(step.rank(rank, "child"), "job 7 step 0 bytes 268435456", "round {round}");
        }
    }
    // The last rank may have its copy before the agent has closed its own.
    until("one segment, however often it was asked for", || rig.memfds() == 1);
}
