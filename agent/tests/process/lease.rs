//! Leases and grants over the socket.

use crate::rig::{Holder, Rig, key};
use migshare_proto::message::{JobLeaves, Reason, Reply, Request};
use migshare_proto::status::LeafState;
use migshare_proto::{ClientError, StepId};
use std::collections::BTreeSet;

fn refused(answer: Result<impl std::fmt::Debug, ClientError>) -> Reason {
    match answer {
        Err(ClientError::Refused(r)) => r.reason,
        other => panic!("{other:?} where a refusal was expected"),
    }
}

#[test]
fn a_job_gets_leaves_grants_draw_on_them_and_all_of_it_ends() {
    let mut rig = Rig::new(2);
    rig.start();
    let holder = Holder::new();
    let lease = rig.open(7, 9).unwrap();
    assert_eq!(lease.caps_major, Some(235));
    let uuids: BTreeSet<&str> = lease.leaves.iter().map(|l| l.uuid.as_str()).collect();
    assert_eq!(uuids.len(), 9);
    assert!(lease.leaves.iter().all(|l| l.caps.len() == 2 && l.uuid.starts_with("MIG-")));
    assert_eq!(rig.open(7, 9).unwrap(), lease, "asked again, the same lease");
    let first = rig.grant(7, 0, 4, holder.pid()).unwrap();
    let second = rig.grant(7, 1, 5, holder.pid()).unwrap();
    assert_eq!((first.shared, second.shared), (0, 0));
    let granted: BTreeSet<&str> =
        first.leaves.iter().chain(&second.leaves).map(|l| l.uuid.as_str()).collect();
    assert_eq!(granted, uuids, "two steps share nothing and use all");
    let Reply::Lease(all) = rig.ask(Request::JobLeaves(JobLeaves { job: key(7) })).unwrap() else {
        panic!("no lease");
    };
    assert_eq!(all, lease);
    let status = rig.try_status().unwrap();
    assert_eq!(status.leases[0].grants.len(), 2);
    let leased = status.gpus.iter().flat_map(|g| &g.leaves).filter(|l| l.state == LeafState::Leased);
    assert!(leased.clone().count() == 9 && leased.clone().all(|l| l.job.map(|j| j.job) == Some(7)));
    assert!(leased.clone().any(|l| l.steps == [StepId(0)]));
    assert!(rig.release(7, 0).unwrap() && !rig.release(7, 0).unwrap());
    assert!(rig.close(7).unwrap() && !rig.close(7).unwrap());
    let status = rig.settled();
    assert!(status.leases.is_empty());
    assert!(rig.stop().success());
    assert!(!rig.path("agent.sock").exists());
}

#[test]
fn a_refusal_says_why() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(1, 5).unwrap();
    assert_eq!(refused(rig.open(2, 3)), Reason::NoLeaves);
    assert_eq!(refused(rig.open(1, 4)), Reason::LeaseDiffers);
    assert_eq!(refused(rig.grant(3, 0, 1, std::process::id())), Reason::NoLease);
    assert_eq!(refused(rig.grant(1, 0, 6, std::process::id())), Reason::BeyondLease);
    assert!(rig.log().contains("refused"), "each refusal is an event in the log");
}

#[test]
fn a_grant_ends_with_the_process_that_holds_it() {
    let mut rig = Rig::new(1);
    rig.start();
    let holder = Holder::new();
    rig.open(7, 2).unwrap();
    rig.grant(7, 0, 2, holder.pid()).unwrap();
    drop(holder);
    let status = rig.until("end of the grant", |s| s.leases[0].grants.is_empty());
    assert_eq!(status.leases.len(), 1, "the lease goes on");
}

#[test]
fn a_grant_whose_holder_died_while_the_agent_was_down_ends() {
    let mut rig = Rig::new(1);
    rig.start();
    let (dead, alive) = (Holder::new(), Holder::new());
    rig.open(7, 4).unwrap();
    rig.grant(7, 0, 2, dead.pid()).unwrap();
    rig.grant(7, 1, 2, alive.pid()).unwrap();
    rig.kill();
    drop(dead);
    rig.start();
    let status = rig.until("end of the grant", |s| s.leases[0].grants.len() == 1);
    assert_eq!(status.leases[0].grants[0].step, StepId(1));
}
