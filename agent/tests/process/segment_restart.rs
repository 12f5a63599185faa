//! A segment outlives the agent: the next one finds the memory with a service manager or with the ranks.

use crate::rig::{Ends, Rig, skip, tied, until};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

const MANAGER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/programs/manager.py");

#[test]
fn a_new_agent_gives_out_the_memory_that_the_ranks_have() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 2);
    step.rank(0, "fetch");
    step.rank(0, "put before");
    rig.kill();
    rig.start();
    step.rank(1, "fetch");
    assert_eq!(step.rank(1, "get 6"), "before");
    step.rank(1, "put behind");
    assert_eq!(step.rank(0, "get 6"), "behind");
    assert!(rig.stop().success());
    rig.start();
    step.rank(1, "forget");
    step.rank(1, "fetch");
    assert_eq!(step.rank(1, "get 6"), "behind", "also after an orderly end");
}

#[test]
fn a_mapping_alone_is_enough_to_find_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root may open what another process has mapped");
    }
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 2);
    step.rank(0, "fetch");
    step.rank(0, "put mapped");
    step.rank(0, "drop-fd");
    rig.kill();
    rig.start();
    step.rank(1, "fetch");
    assert_eq!(step.rank(1, "get 6"), "mapped");
}

#[test]
fn a_step_that_ended_while_no_agent_ran_has_none_any_more() {
    let mut rig = Rig::new(1);
    rig.start();
    let (mut gone, mut stays) = (rig.step(7, 1), rig.step(8, 1));
    gone.rank(0, "fetch");
    stays.rank(0, "fetch");
    rig.kill();
    drop(gone);
    rig.start();
    assert_eq!(rig.memfds(), 1);
    let list = std::fs::read_to_string(rig.path("state/segments.json")).unwrap();
    assert!(!list.contains("\"job\":7,") && list.contains("\"job\":8,"), "{list}");
}

#[test]
fn a_step_that_has_not_asked_yet_is_remembered_too() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 1);
    rig.kill();
    rig.start();
    assert_eq!(step.rank(0, "fetch"), "job 7 step 0 bytes 268435456");
}

#[test]
fn a_file_of_the_same_name_is_not_taken_for_it() {
    let mut rig = Rig::new(1);
    rig.start();
    let mut step = rig.step(7, 1);
    step.rank(0, "fetch");
    step.rank(0, "put real");
    rig.kill();
    let forge = "import os,sys\nfd=os.memfd_create('migshare-segment-7.0',os.MFD_ALLOW_SEALING)\nos.ftruncate(fd,256<<20)\n\
                 import fcntl\nfcntl.fcntl(fd,1033,7)\nos.write(fd,b'fake')\nprint('up',flush=True)\nsys.stdin.read()";
    let mut forger = Command::new("python3");
    forger.args(["-c", forge]);
    let mut forger = Ends::start(tied(&forger).stdin(Stdio::piped()).stdout(Stdio::piped()));
    std::io::Read::read_exact(forger.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
    step.rank(0, "forget");
    rig.start();
    step.rank(0, "fetch");
    assert_eq!(step.rank(0, "get 4"), "\0\0\0\0", "nobody had the real one any more");
}

#[test]
fn a_service_manager_keeps_what_no_rank_holds() {
    let mut rig = Rig::new(1);
    let notify = rig.path("notify");
    let service = rig.command();
    let mut manager = Command::new("python3");
    manager.arg(MANAGER).arg(&notify).arg(service.get_program()).args(service.get_args());
    let path = rig.path("notify.kept");
    rig.launch(manager);
    rig.settled();
    let mut step = rig.step(7, 1);
    step.rank(0, "fetch");
    step.rank(0, "put kept");
    step.rank(0, "forget");
    let kept = move || std::fs::read_to_string(&path).unwrap_or_default();
    until("kept", || kept() == "migshare-segment-7.0");
    let before = rig.log().matches("ready").count();
    UnixDatagram::unbound().unwrap().send_to(b"RESTART=1", &notify).unwrap();
    until("started again", || rig.log().matches("ready").count() > before);
    rig.settled();
    step.rank(0, "fetch");
    assert_eq!(step.rank(0, "get 4"), "kept");
    drop(step);
    until("given up", || kept().is_empty());
}
