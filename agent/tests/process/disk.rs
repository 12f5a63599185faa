//! A full disk and a read-only one: new leases are refused with the reason, what runs goes on.

use crate::rig::{Rig, key, skip};
use migshare_proto::ClientError;
use migshare_proto::message::{ErrorCode, JobLeaves, Request};
use std::path::PathBuf;
use std::process::Command;

/// A small file system for the agent's state directory.
struct Disk(PathBuf);

impl Disk {
    /// None where it cannot be mounted.
    fn mount(rig: &Rig) -> Option<Disk> {
        let at = rig.path("state");
        std::fs::create_dir_all(&at).unwrap();
        let mounted =
            run("mount", &["-t", "tmpfs", "-o", "size=256k,mode=700", "migshare-test", at.to_str().unwrap()]);
        mounted.then_some(Disk(at))
    }

    fn remount(&self, how: &str) {
        assert!(run("mount", &["-o", &format!("remount,{how}"), self.0.to_str().unwrap()]));
    }

    /// Takes all space that is left.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        while std::io::Write::write_all(&mut file, &[0]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an agent that still runs may have it open.
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|s| s.success())
}

fn journal_error<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Option<String> {
    match answer {
        Err(ClientError::Broken(e)) if e.code == ErrorCode::Journal => Some(e.text),
        _ => None,
    }
}

/// Opens leases until the journal takes no more.
fn lease_until_refused(rig: &Rig) -> String {
    for job in 100..10_000 {
        if let Some(text) = journal_error(rig.open(job, 1)) {
            return text;
        }
        if let Some(text) = journal_error(rig.close(job)) {
            return text;
        }
    }
    panic!("the disk never was full");
}

#[test]
fn on_a_full_disk_new_leases_are_refused_and_jobs_go_on_until_there_is_space() {
    let mut rig = Rig::new(1);
    let Some(disk) = Disk::mount(&rig) else { return skip("cannot mount a tmpfs: not root") };
    rig.start();
    let lease = rig.open(1, 3).unwrap();
    disk.fill();
    let text = lease_until_refused(&rig);
    assert!(text.contains("No space left"), "{text}");
    assert!(journal_error(rig.open(9, 1)).is_some());
    assert_eq!(rig.open(1, 3).unwrap(), lease, "a job that runs keeps its leaves");
    rig.ask(Request::JobLeaves(JobLeaves { job: key(1) })).unwrap();
    let status = rig.try_status().unwrap();
    assert!(status.problems.iter().any(|p| p.contains("journal cannot be written")), "{:?}", status.problems);
    disk.free();
    rig.until("repair", |s| s.problems.is_empty());
    rig.open(9, 1).unwrap();
    rig.kill();
    rig.start();
    assert_eq!(rig.open(1, 3).unwrap(), lease, "nothing was lost on the way");
    rig.kill();
}

#[test]
fn an_agent_that_starts_on_a_read_only_disk_knows_the_leases_and_refuses_new_ones() {
    let mut rig = Rig::new(1);
    let Some(disk) = Disk::mount(&rig) else { return skip("cannot mount a tmpfs: not root") };
    rig.start();
    let lease = rig.open(1, 3).unwrap();
    rig.kill();
    disk.remount("ro");
    rig.launch(rig.command());
    rig.until("the picture", |s| s.leases.len() == 1 && !s.gpus.is_empty());
    assert_eq!(rig.open(1, 3).unwrap(), lease);
    assert!(journal_error(rig.open(2, 1)).is_some());
    disk.remount("rw");
    rig.settled();
    rig.open(2, 1).unwrap();
    rig.kill();
}
