//! Clients that mean harm, or that know no better.

use crate::rig::{Ends, LONG, Rig, skip, tied};
use migshare_proto::message::{ErrorCode, Hello, Reply, Request};
use migshare_proto::{Client, PROTOCOL, codec};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

fn connect(rig: &Rig) -> UnixStream {
    let stream = UnixStream::connect(rig.path("agent.sock")).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn hello(protocol: u32, oldest: u32) -> Vec<u8> {
    codec::encode(&Request::Hello(Hello { protocol, oldest, program: "\x1b[31mtest\n".to_owned() })).unwrap()
}

/// Sends bytes and reads until the agent hangs up or `lines` replies came.
fn say(rig: &Rig, bytes: &[u8], lines: usize) -> Vec<Reply> {
    let mut stream = connect(rig);
    // The agent may hang up before it has read all.
    let _ = stream.write_all(bytes);
    let reader = BufReader::new(stream);
    let texts = reader.lines().take(lines).map_while(Result::ok);
    texts.map(|text| codec::decode(text.as_bytes()).unwrap()).collect()
}

fn code(reply: Option<&Reply>) -> Option<ErrorCode> {
    match reply {
        Some(Reply::Error(e)) => Some(e.code),
        _ => None,
    }
}

#[test]
fn nonsense_is_answered_and_hung_up_on() {
    let mut rig = Rig::new(1);
    rig.start();
    let greeting = hello(PROTOCOL, 1);
    let cases: [&[u8]; 6] =
        [b"\n", b"{}\n", b"null\n", b"\xff\xfe\x00\n", b"{\"grant\":{\"job\":-1}}\n", b"[[[[[[[[[[[[[[[[\n"];
    for bytes in cases {
        assert_eq!(code(say(&rig, bytes, 9).last()), Some(ErrorCode::Malformed), "{bytes:?}");
        let replies = say(&rig, &[&greeting, bytes].concat(), 9);
        assert_eq!(replies.len(), 2, "hello, then the error, then the end: {replies:?}");
        assert_eq!(code(replies.last()), Some(ErrorCode::Malformed), "{bytes:?} after hello");
    }
    let deep = [vec![b'['; 60_000], b"\n".to_vec()].concat();
    assert_eq!(code(say(&rig, &deep, 9).last()), Some(ErrorCode::Malformed));
    assert_eq!(code(say(&rig, &vec![b'x'; 1 << 20], 9).last()), Some(ErrorCode::Malformed));
    rig.try_status().unwrap();
}

#[test]
fn a_request_before_hello_is_refused() {
    let mut rig = Rig::new(1);
    rig.start();
    assert_eq!(code(say(&rig, b"{\"status\":{}}\n", 9).last()), Some(ErrorCode::Malformed));
}

#[test]
fn versions_are_agreed_or_the_difference_is_named() {
    let mut rig = Rig::new(1);
    rig.start();
    let replies = say(&rig, &hello(PROTOCOL + 7, PROTOCOL), 1);
    assert!(matches!(&replies[0], Reply::Hello(h) if h.protocol == PROTOCOL), "{replies:?}");
    let replies = say(&rig, &hello(PROTOCOL + 7, PROTOCOL + 1), 9);
    assert_eq!(code(replies.last()), Some(ErrorCode::Version));
    let log = rig.log();
    assert!(log.contains("client rejected") && log.contains("version"), "{log}");
}

#[test]
fn requests_sent_in_one_go_are_answered_in_order() {
    let mut rig = Rig::new(1);
    rig.start();
    let status: &[u8] = b"{\"status\":{}}\n";
    let replies = say(&rig, &[&hello(PROTOCOL, 1), status, status, status].concat(), 4);
    assert!(matches!(
        replies.as_slice(),
        [Reply::Hello(_), Reply::Status(_), Reply::Status(_), Reply::Status(_)]
    ));
}

#[test]
fn a_user_may_look_and_not_touch() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let mut rig = Rig::new(1);
    rig.start();
    open_to_all(&rig);
    let status = as_nobody(&rig, "{\"status\":{}}");
    assert!(status.starts_with("{\"status\":"), "{status}");
    let open =
        as_nobody(&rig, "{\"open_lease\":{\"job\":{\"job\":1,\"start\":1,\"uid\":65534},\"leaves\":1}}");
    assert!(open.contains("\"permission\"") && open.contains("only root"), "{open}");
    let close = as_nobody(&rig, "{\"close_lease\":{\"job\":1,\"uid\":65534,\"start\":null}}");
    assert!(close.contains("\"permission\""), "{close}");
    assert!(rig.try_status().unwrap().leases.is_empty());
    let log = rig.log();
    let told: Vec<&str> = log.lines().filter(|l| l.contains("client rejected")).collect();
    assert!(told.len() == 1 && told[0].contains("65534") && told[0].contains("open_lease"), "{told:?}");
}

/// Planning is open to all: what it costs may not grow with the numbers in the message.
#[test]
fn a_plan_of_a_user_costs_no_more_than_the_node_is_large() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let mut rig = Rig::new(1);
    // As a list, four billion instances take more memory than this.
    let agent = rig.command();
    let mut limited = Command::new("prlimit");
    limited.args(["--as=2000000000", "--"]).arg(agent.get_program()).args(agent.get_args());
    rig.launch(limited);
    rig.settled();
    open_to_all(&rig);
    let gpu = rig.machine().gpus[0].uuid.clone();
    let plan =
        |targets: &[String]| as_nobody(&rig, &format!("{{\"plan\":{{\"target\":[{}]}}}}", targets.join(",")));
    let target = |layout: &str| format!("{{\"gpu\":\"{gpu}\",\"layout\":{layout}}}");
    let count = "{\"profile\":\"1g.10gb\",\"count\":4294967295}";
    let slot = "{\"slices\":1,\"placement\":{\"start\":0,\"size\":1}}";
    for text in [
        plan(&[target(&format!("{{\"counts\":[{}]}}", [count; 90].join(",")))]),
        plan(&[target(&format!("{{\"slots\":[{}]}}", [slot; 80].join(",")))]),
    ] {
        assert!(text.contains("do not fit"), "{text}");
    }
    let text = plan(&vec![target("\"uniform\""); 40]);
    assert!(text.contains("40 gpus are named"), "{text}");
    rig.try_status().unwrap();
}

#[test]
fn a_flood_of_idle_clients_of_a_user_keeps_nobody_out() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become another user");
    }
    let mut rig = Rig::new(1);
    rig.start();
    open_to_all(&rig);
    let flood = format!(
        "import socket,sys\ns=[]\nfor i in range(900):\n c=socket.socket(socket.AF_UNIX)\n c.connect({:?})\n s.append(c)\n\
         print('up',flush=True)\nsys.stdin.read()",
        rig.path("agent.sock").display().to_string()
    );
    let mut user = Command::new("python3");
    user.arg("-c").arg(flood);
    let mut user = tied(&user);
    let mut user = Ends::start(user.uid(65534).gid(65534).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut up = [0; 3];
    user.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    for job in 1..=7 {
        rig.open(job, 1).unwrap();
    }
}

#[test]
fn a_thousand_clients_at_once_are_all_served() {
    let mut rig = Rig::new(1);
    rig.start();
    let socket = rig.path("agent.sock");
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            let socket = socket.clone();
            std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                let mut client = Client::connect(&socket, "test", LONG)?;
                client.ask(&Request::Status(migshare_proto::message::StatusQuery {})).map(drop)
            })
        })
        .collect();
    for client in clients {
        client.unwrap().join().unwrap().unwrap();
    }
}

/// Lets another user walk to the socket.
fn open_to_all(rig: &Rig) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(rig.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The reply to one line of a user that is not root.
fn as_nobody(rig: &Rig, line: &str) -> String {
    let program = "import socket,sys\nc=socket.socket(socket.AF_UNIX)\nc.connect(sys.argv[1])\nf=c.makefile('rw')\n\
        f.write(sys.argv[2]+'\\n'); f.flush(); f.readline()\nf.write(sys.argv[3]+'\\n'); f.flush()\nprint(f.readline())";
    let greeting = String::from_utf8(hello(PROTOCOL, 1)).unwrap();
    let out = Command::new("python3")
        .args(["-c", program])
        .arg(rig.path("agent.sock"))
        .args([greeting.trim(), line])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}
