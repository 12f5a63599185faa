//! The agent as the systemd unit confines it: its capabilities, its filter of system calls, a file system that is read-only but for its own
//! directories. The unit's own text says what is carried out, without systemd. What a real one makes of the unit is in `systemd`.

use crate::rig::{Rig, has, skip};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd/migshared.service");
const CONFINED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/programs/confined.py");

/// CAP_SYS_ADMIN and CAP_MKNOD, as in the unit.
const CAPABILITIES: u64 = 1 << 21 | 1 << 27;

#[test]
fn the_unit_is_rated_as_hardened() {
    if !has("systemd-analyze") {
        return skip("systemd-analyze is not installed");
    }
    let mut command = Command::new("systemd-analyze");
    let out = command.args(["security", "--offline=true", "--threshold=30", UNIT]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

/// A field of the agent's status in /proc.
fn field(rig: &Rig, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.agent_pid())).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

/// A command as the unit confines it; none where this machine has not what that takes.
fn confined(rig: &Rig, command: &Command) -> Option<Command> {
    let namespace =
        || Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success());
    if !nix::unistd::geteuid().is_root()
        || !["setpriv", "python3", "systemd-analyze", "unshare"].iter().all(|program| has(program))
        || !namespace()
    {
        return None;
    }
    let mut confined = Command::new("unshare");
    confined.args(["--mount", "python3", CONFINED, UNIT]).arg(rig.dir.path());
    confined.arg(command.get_program()).args(command.get_args());
    Some(confined)
}

/// A node whose agent asks a Slurm controller by programs that it starts, which are confined with it.
fn node() -> Rig {
    let rig = Rig::new(1);
    let scontrol: PathBuf = rig.path("scontrol");
    std::fs::write(&scontrol, "#!/bin/sh\necho 'NodeName=n1 State=IDLE'\n").unwrap();
    std::fs::set_permissions(&scontrol, std::fs::Permissions::from_mode(0o755)).unwrap();
    let lines = format!("[slurm]\nscontrol = \"{}\"\nsqueue = \"/bin/true\"\n", scontrol.display());
    rig.with(&format!("{lines}[metrics]\nlisten = \"127.0.0.1:0\"\n"))
}

#[test]
fn the_agent_does_all_its_work_as_the_unit_confines_it() {
    let mut rig = node();
    let Some(command) = confined(&rig, &rig.command()) else {
        return skip(
            "it takes root, mount namespaces, setpriv, python3 and systemd-analyze to confine a process",
        );
    };
    rig.launch(command);
    rig.settled();
    assert_eq!(u64::from_str_radix(&field(&rig, "CapEff:"), 16).unwrap(), CAPABILITIES);
    assert_eq!((field(&rig, "NoNewPrivs:"), field(&rig, "Seccomp:")), ("1".to_owned(), "2".to_owned()));
    // What it does for a job: lease, grant, memory for the ranks, and the end of it.
    let mut step = rig.step(7, 1);
    rig.open(7, 2).unwrap();
    rig.grant(7, 0, 2, step.pid()).unwrap();
    assert_eq!(step.rank(0, "fetch"), "job 7 step 0 bytes 268435456");
    rig.close(7).unwrap();
    rig.settled();
    assert_eq!(rig.stop().code(), Some(0));
    let log = rig.log();
    assert!(!log.contains("Operation not permitted") && !log.contains("Read-only file system"), "{log}");
}

#[test]
fn what_confines_the_agent_does_confine() {
    let rig = Rig::new(1);
    let escapes = [
        ("echo x > /etc/migshare-was-here", "Read-only file system"),
        ("unshare --net true", "Operation not permitted"),
        ("mount -t tmpfs none /mnt", "permission denied"),
        ("chown 1 .", "Operation not permitted"),
        ("python3 -c 'import socket; socket.socket(socket.AF_PACKET)'", "Address family not supported"),
    ];
    for (escape, error) in escapes {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", escape]);
        let Some(mut command) = confined(&rig, &command) else {
            return skip(
                "it takes root, mount namespaces, setpriv, python3 and systemd-analyze to confine a process",
            );
        };
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && said.contains(error), "{escape}: {said}");
    }
}
