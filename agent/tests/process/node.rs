//! The process and its surroundings: one agent per directory, bad configurations, the service manager, the command line.

use crate::rig::Rig;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

#[test]
fn a_second_agent_on_the_same_directory_ends_with_the_reason() {
    let mut rig = Rig::new(1);
    rig.start();
    let out = rig.command().env("NVML_SIM_CONFIG", rig.path("sim.toml")).output().unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("another migshared runs with this state_dir"), "{text}");
    rig.try_status().unwrap();
}

#[test]
fn a_bad_configuration_ends_the_start_and_names_the_key() {
    let rig = Rig::new(1).with("colour = \"red\"\n");
    let out = rig.command().output().unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("colour") && text.contains("agent.toml"), "{text}");
}

#[test]
fn a_damaged_journal_ends_the_start_with_the_line_and_the_way_out() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.kill();
    let path = rig.path("state/journal");
    let mut bytes = std::fs::read(&path).unwrap();
    let third = bytes.split_inclusive(|b| *b == b'\n').take(2).map(<[u8]>::len).sum::<usize>();
    bytes[third + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let out = rig.command().output().unwrap();
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.contains("line 3") && text.contains("Move the file away"), "{text}");
}

#[test]
fn the_service_manager_hears_ready_alive_and_stopping() {
    let mut rig = Rig::new(1);
    let socket = UnixDatagram::bind(rig.path("notify")).unwrap();
    socket.set_read_timeout(Some(crate::rig::LONG)).unwrap();
    let mut command = rig.command();
    command.env("NOTIFY_SOCKET", rig.path("notify")).env("WATCHDOG_USEC", "200000");
    rig.launch(command);
    let hear = || {
        let mut buffer = [0; 512];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    let hear_until = |wanted: &str| while hear() != wanted {};
    hear_until("READY=1");
    hear_until("WATCHDOG=1");
    rig.until("an answer", |_| true);
    assert!(rig.stop().success());
    hear_until("STOPPING=1");
}

#[test]
fn the_command_line_shows_the_node_and_its_exit_code_says_how_it_is() {
    let mut rig = Rig::new(1);
    let migshare = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
        let out = command.arg("--socket").arg(rig.path("agent.sock")).args(args).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    assert_eq!(migshare(&["status"]).0, 4, "nobody answers");
    rig.start();
    let migshare = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
        let out = command.arg("--socket").arg(rig.path("agent.sock")).args(args).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap())
    };
    rig.open(4711, 2).unwrap();
    let (code, text) = migshare(&["status"]);
    assert_eq!(code, 0);
    assert!(
        text.contains("7 of 7 leaves usable") && text.contains("4711") && !text.contains('\x1b'),
        "{text}"
    );
    let (code, text) = migshare(&["status", "--json"]);
    let status: migshare_proto::status::Status = serde_json::from_str(&text).unwrap();
    assert_eq!((code, status), (0, rig.try_status().unwrap()));
    assert_eq!(migshare(&["frobnicate"]).0, 2);
}
