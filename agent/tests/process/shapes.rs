//! Instances larger than a leaf: their price, the ways in which they are refused, and how their leaves come back.

use crate::rig::{Rig, key};
use migshare_proto::message::{Need, OpenLease, Reason, Refused, Reply, Request, Shape};
use migshare_proto::{ClientError, Leaf, codec};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;

const QUIET: &str = "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\n";

fn ask(job: u32, leaves: u32, need: Need) -> Request {
    let shape = Shape { need: Some(need), ..Shape::default() };
    Request::OpenLease(OpenLease { job: key(job), leaves, shape })
}

fn open(rig: &Rig, job: u32, leaves: u32, need: Need) -> Result<Vec<Leaf>, Refused> {
    match rig.ask(ask(job, leaves, need)) {
        Ok(Reply::Lease(lease)) => Ok(lease.leaves),
        Err(ClientError::Refused(refused)) => Err(refused),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_large_instance_is_charged_by_its_worst_place_and_given_back_when_the_job_ends() {
    let mut rig = Rig::new(1);
    rig.start();
    let leaves = open(&rig, 7, 4, Need::Slices(3)).unwrap();
    assert_eq!(leaves.len(), 1);
    assert_eq!((leaves[0].profile.as_str(), leaves[0].slices), ("3g.40gb", 3));
    let granted = rig.grant(7, 0, 4, std::process::id());
    assert!(granted.is_err(), "four tasks on one instance: {granted:?}");
    assert_eq!(rig.try_status().unwrap().leases[0].leaves, 4, "as Slurm counts it");
    assert_eq!(rig.open(8, 3).unwrap().leaves.len(), 3, "what Slurm believes to be free is free");
    let no = open(&rig, 9, 2, Need::MemoryMib(15_000)).unwrap_err();
    assert_eq!((no.reason, no.requeue), (Reason::Fragmented, false));
    assert!(no.text.contains("held by job 7") && no.text.contains("held by job 8"), "{}", no.text);
    rig.close(7).unwrap();
    rig.close(8).unwrap();
    rig.settled();
}

#[test]
fn a_size_that_the_count_does_not_pay_for_is_refused_with_the_price() {
    let mut rig = Rig::new(1);
    rig.start();
    let no = open(&rig, 7, 3, Need::MemoryMib(30_000)).unwrap_err();
    assert_eq!(no.reason, Reason::WrongPrice);
    assert!(no.text.contains("3g.40gb") && no.text.contains("mig:4"), "{}", no.text);
    assert_eq!(open(&rig, 7, 7, Need::MemoryMib(1 << 20)).unwrap_err().reason, Reason::NoSuchSize);
}

#[test]
fn a_lazy_node_keeps_a_shape_until_its_place_is_needed() {
    let mut rig = Rig::new(1).with(&format!("{QUIET}[reshape]\ngive_back = \"lazily\"\n"));
    rig.start();
    let kinds =
        |rig: &Rig| rig.try_status().unwrap().gpus[0].leaves.iter().map(|l| l.profile.clone()).collect();
    open(&rig, 7, 4, Need::Slices(3)).unwrap();
    rig.close(7).unwrap();
    let kept: Vec<String> = kinds(&rig);
    assert!(kept.contains(&"3g.40gb".to_owned()), "{kept:?}");
    assert_eq!(rig.open(8, 7).unwrap().leaves.len(), 7);
    let cut: Vec<String> = kinds(&rig);
    assert!(cut.iter().all(|profile| profile == "1g.10gb"), "{cut:?}");
}

#[test]
fn the_limit_on_changes_of_shape_is_kept_over_a_restart_and_a_compaction() {
    let mut rig = Rig::new(1).with(&format!("{QUIET}[reshape]\nper_user = 1\n"));
    rig.start();
    open(&rig, 7, 2, Need::Slices(2)).unwrap();
    rig.close(7).unwrap();
    // Until its leaves are cut again another job may have the large instance as it is.
    rig.settled();
    let limited = |rig: &Rig| {
        let no = open(rig, 8, 2, Need::Slices(2)).unwrap_err();
        assert_eq!(no.reason, Reason::RateLimited);
        assert!(no.text.contains("user 1000") && no.text.contains("limit"), "{}", no.text);
    };
    limited(&rig);
    rig.kill();
    rig.start();
    limited(&rig);
    // Refusals are told in the journal: so many that it is compacted, and the record of the change is not among the last.
    let journal = rig.path("state/journal");
    let length = || std::fs::metadata(&journal).unwrap().len();
    let mut before = length();
    while length() >= before {
        before = length();
        limited(&rig);
    }
    rig.kill();
    rig.start();
    limited(&rig);
}

/// Asks as a client of protocol version 1 does.
fn as_version_1(rig: &Rig, request: &Request) -> Reply {
    let mut stream = UnixStream::connect(rig.path("agent.sock")).unwrap();
    stream.write_all(b"{\"hello\":{\"protocol\":1,\"oldest\":1,\"program\":\"spank 0.1.0\"}}\n").unwrap();
    stream.write_all(&codec::encode(request).unwrap()).unwrap();
    let mut lines = BufReader::new(stream);
    let greeting: Reply = codec::read(&mut lines).unwrap();
    assert!(matches!(greeting, Reply::Hello(hello) if hello.protocol == 1));
    codec::read(&mut lines).unwrap()
}

/// A plugin of version 1 drains its node when it is told `not_serving`, and would not read a reason that it does not know.
#[test]
fn a_client_of_version_1_is_told_in_its_words() {
    let mut rig = Rig::new(1).with(&format!("{QUIET}[reshape]\nper_user = 0\n"));
    rig.start();
    let Reply::Refused(no) = as_version_1(&rig, &ask(7, 2, Need::Slices(2))) else { panic!() };
    assert_eq!(no.reason, Reason::BadRequest);
    rig.open(8, 1).unwrap();
    let Reply::Refused(no) = as_version_1(&rig, &ask(7, 7, Need::Slices(7))) else { panic!() };
    assert_eq!(no.reason, Reason::NoLeaves);
}
