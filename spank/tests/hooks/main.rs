//! The hooks of a job's life, against a table for Slurm and a scripted agent on a real socket.
//!
//! The same hooks inside Slurm's own processes are the business of the cluster stories.
#![allow(clippy::unwrap_used)]

mod scripted;
mod submit;
mod table;

use migshare_proto::message::{
    CloseLease, Done, ErrorCode, ErrorReply, GrantReply, GrantStep, JobLeaves, LeaseReply, OpenLease,
    OpenSegment, Reason, Refused, ReleaseGrant, SegmentReply, Shape, Spread,
};
use migshare_proto::{GpuUuid, JobKey, Leaf, Placement, Reply, Request, StepId};
use migshare_spank::Plugin;
use migshare_spank::plugin::Context;
use migshare_spank::slurm::{Elsewhere, Item, Job, Node as Host, Partition, Step};
use scripted::Scripted;
use table::Table;
use tempfile::TempDir;

const KEY: JobKey = JobKey { job: 7, start: 1_700_000_000, uid: 1000 };

/// A node: its directory, and the words of its plugstack.conf.
struct Node(TempDir);

impl Node {
    fn new() -> Node {
        Node(tempfile::tempdir().unwrap())
    }
    fn agent(&self, replies: impl IntoIterator<Item = Reply>) -> Scripted {
        Scripted::listen(&self.0.path().join("agent.sock"), replies)
    }
    fn words(&self) -> Vec<String> {
        let dir = self.0.path().display();
        ["socket={}/agent.sock", "run={}/run", "proc={}/proc", "timeout=1"]
            .iter()
            .map(|w| w.replace("{}", &dir.to_string()))
            .collect()
    }
    fn marked(&self, dir: &str) -> bool {
        self.0.path().join("run").join(dir).join("7").exists()
    }
    fn prolog(&self, slurm: &Table) {
        let words = self.words();
        Plugin::default().job_prolog(&words.iter().map(String::as_str).collect::<Vec<_>>(), slurm);
    }
    fn epilog(&self, slurm: &Table) {
        let words = self.words();
        Plugin::default().job_epilog(&words.iter().map(String::as_str).collect::<Vec<_>>(), slurm);
    }
    /// A step up to and with `init_post_opt`.
    fn step(&self, option: Option<&str>, slurm: &Table) -> Plugin {
        let words = self.words();
        let mut plugin = Plugin::default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        plugin.init(Context::Step, &words, slurm).unwrap();
        if let Some(text) = option {
            // Slurm before 24.05 calls twice.
            plugin.option(Some(text), true, slurm).unwrap();
            plugin.option(Some(text), true, slurm).unwrap();
        }
        plugin.init_post_opt(Context::Step, slurm).unwrap();
        plugin
    }
}

fn job(gres: Option<&str>, asked: &str, batch: bool) -> Job {
    let elsewhere = Elsewhere { partitions: "main".to_owned(), nodes: 1, ..Elsewhere::default() };
    let (start, uid) = (KEY.start, KEY.uid);
    Job { start, uid, batch, gres: gres.map(str::to_owned), asked: asked.to_owned(), elsewhere }
}

fn script(job: Option<Job>) -> Table {
    let table = Table::with(&[(Item::Job, 7), (Item::Uid, 1000)]);
    *table.job.borrow_mut() = job;
    table
}

fn step(id: u32, tasks: u32, per_node: Option<&str>) -> Table {
    let items =
        [(Item::Job, 7), (Item::Uid, 1000), (Item::Step, id), (Item::LocalTasks, tasks), (Item::Task, 0)];
    let table = Table::with(&items);
    *table.step.borrow_mut() = Some(Step { per_node: per_node.map(str::to_owned), per_task: None });
    table
}

fn leaf(n: u8) -> Leaf {
    Leaf {
        gpu_uuid: GpuUuid::new("GPU-a"),
        gpu: 0,
        gpu_minor: 0,
        pci_bus_id: String::new(),
        numa: None,
        placement: Placement { start: n, size: 1 },
        generation: 1,
        profile: "1g.10gb".to_owned(),
        slices: 1,
        memory_mib: 9984,
        gi: 7 + u32::from(n),
        ci: 0,
        uuid: format!("MIG-{n}"),
        caps: vec![10 + u32::from(n), 20 + u32::from(n)],
    }
}

fn lease(n: u8) -> Reply {
    Reply::Lease(LeaseReply { leaves: (0..n).map(leaf).collect(), caps_major: Some(235) })
}

fn granted(n: u8, tasks: &[&[u32]]) -> Reply {
    let tasks = tasks.iter().map(|t| t.to_vec()).collect();
    Reply::Granted(GrantReply { leaves: (0..n).map(leaf).collect(), tasks, caps_major: Some(235), shared: 0 })
}

fn refused(reason: Reason, text: &str) -> Reply {
    Reply::Refused(Refused::new(reason, text))
}

fn done() -> Reply {
    Reply::Done(Done { found: true })
}

fn open(leaves: u32, spread: Spread) -> Request {
    Request::OpenLease(OpenLease { job: KEY, leaves, shape: Shape { spread, ..Shape::default() } })
}

fn grant(step: u32, leaves: u32, tasks: u32) -> Request {
    let holder = std::process::id();
    Request::Grant(GrantStep { job: KEY, step: StepId(step), leaves, tasks, shape: Shape::default(), holder })
}

fn close() -> Request {
    Request::CloseLease(CloseLease { job: 7, uid: KEY.uid, start: Some(KEY.start) })
}

#[test]
fn a_job_that_did_not_ask_never_opens_the_socket_and_leaves_no_file() {
    let node = Node::new();
    let agent = node.agent([]);
    node.prolog(&script(Some(job(Some("gpu:a100:1(IDX:0)"), "gres:gpu:1", false))));
    let slurm = step(0, 2, Some("gres:gpu:1"));
    slurm.env.borrow_mut().insert("CUDA_VISIBLE_DEVICES".to_owned(), "0".to_owned());
    let mut plugin = node.step(None, &slurm);
    plugin.task_init_privileged(&slurm).unwrap();
    plugin.task_init(&slurm).unwrap();
    plugin.exit(&slurm);
    node.epilog(&script(None));
    assert_eq!(agent.asked(), []);
    assert_eq!(slurm.env.borrow().len(), 1);
    assert!(!node.0.path().join("run").exists());
}

#[test]
fn the_prolog_opens_what_slurmctld_counted_and_the_epilog_closes_it() {
    let node = Node::new();
    let agent = node.agent([lease(3), done()]);
    let slurm = script(Some(job(Some("mig(CNT:3)"), "gres:mig:3", false)));
    *slurm.job_option.borrow_mut() = Some("14,pack".to_owned());
    node.prolog(&slurm);
    assert!(node.marked("jobs"));
    node.epilog(&script(None));
    assert!(!node.marked("jobs") && !node.marked("ended"));
    assert_eq!(agent.asked(), [open(3, Spread::Pack), close()]);
    assert_eq!(slurm.errors(), [""; 0]);
}

#[test]
fn an_agent_that_is_away_drains_the_node_and_requeues_a_batch_job_only() {
    for (batch, more) in [(true, &["requeue 7"][..]), (false, &[])] {
        let node = Node::new();
        let slurm = script(Some(job(Some("mig(CNT:3)"), "gres/mig:3", batch)));
        node.prolog(&slurm);
        let done = slurm.done.borrow();
        assert!(done[0].starts_with("drain n1: migshare: agent away: no agent answers at "), "{done:?}");
        assert_eq!(done[1..], *more);
    }
}

#[test]
fn a_refusal_drains_only_where_slurmctld_counts_leaves_that_are_not_there() {
    for (reason, drains) in [
        (Reason::NoLeaves, true),
        (Reason::Unavailable, true),
        (Reason::LeaseDiffers, false),
        (Reason::RateLimited, false),
        (Reason::Fragmented, false),
        (Reason::BadRequest, false),
    ] {
        let node = Node::new();
        let _agent = node.agent([refused(reason, "0 of 7 are free")]);
        let slurm = script(Some(job(Some("mig(CNT:3)"), "gres:mig:3", false)));
        node.prolog(&slurm);
        let wanted = if drains { vec!["drain n1: migshare: 0 of 7 are free"] } else { vec![] };
        assert_eq!(*slurm.done.borrow(), wanted, "{reason:?}");
    }
}

fn cluster(slurm: &Table, nodes: &[&str]) {
    let host = |name: &&str| Host { name: (*name).to_owned(), features: Vec::new(), leaves: 7 };
    *slurm.nodes.borrow_mut() = nodes.iter().map(host).collect();
    let (name, nodes) = ("main".to_owned(), "n[1-3]".to_owned());
    *slurm.partitions.borrow_mut() = vec![Partition { name, nodes, default: true }];
}

#[test]
fn a_batch_job_without_a_place_goes_elsewhere_where_the_site_wants_that_and_there_is_an_elsewhere() {
    let comment = "migshare: queued again, away from n1: 0:8 is held by job 6";
    let goes =
        |excluded: &str| vec!["requeue 7".to_owned(), format!("keep 7 away from {excluded}: {comment}")];
    let any = Elsewhere { partitions: "main".to_owned(), nodes: 1, ..Elsewhere::default() };
    let cases = [
        (true, true, any.clone(), goes("n1")),
        (true, true, Elsewhere { excluded: "n3".to_owned(), ..any.clone() }, goes("n3,n1")),
        (true, true, Elsewhere { excluded: "n[2-3]".to_owned(), ..any.clone() }, vec![]),
        (true, true, Elsewhere { required: "n[1-2]".to_owned(), ..any.clone() }, vec![]),
        (true, true, Elsewhere { nodes: 3, ..any.clone() }, vec![]),
        (true, true, Elsewhere { partitions: "other".to_owned(), ..any.clone() }, vec![]),
        (true, false, any.clone(), vec![]),
        (false, true, any.clone(), vec![]),
    ];
    for (wanted, batch, elsewhere, done) in cases {
        let node = Node::new();
        let no = Refused { requeue: wanted, ..Refused::new(Reason::Fragmented, "0:8 is held by job 6") };
        let _agent = node.agent([Reply::Refused(no)]);
        let slurm = script(Some(Job { elsewhere, ..job(Some("mig(CNT:7)"), "gres:mig:7", batch) }));
        *slurm.job_option.borrow_mut() = Some("size=7g".to_owned());
        cluster(&slurm, &["n1", "n2", "n3"]);
        node.prolog(&slurm);
        assert_eq!(*slurm.done.borrow(), done);
        assert!(slurm.errors()[0].contains("0:8 is held by job 6"), "{:?}", slurm.errors());
    }
}

/// A batch job of three nodes at most, of which n1 refuses it; what was done about it, and what was said.
fn refused_beside_others(rivals: &[&str], is_pending: bool) -> (Vec<String>, Vec<String>) {
    let node = Node::new();
    let no = Refused { requeue: true, ..Refused::new(Reason::Fragmented, "no place") };
    let _agent = node.agent([Reply::Refused(no)]);
    let slurm = script(Some(job(Some("mig(CNT:7)"), "gres:mig:7", true)));
    *slurm.job_option.borrow_mut() = Some("size=7g".to_owned());
    *slurm.rivals.borrow_mut() = rivals.iter().map(|list| (*list).to_owned()).collect();
    slurm.is_pending.set(is_pending);
    cluster(&slurm, &["n1", "n2", "n3"]);
    node.prolog(&slurm);
    let done = slurm.done.borrow().iter().map(|d| d.split(": ").next().unwrap().to_owned()).collect();
    (done, slurm.errors())
}

#[test]
fn nodes_that_refuse_a_job_at_the_same_moment_are_all_avoided() {
    let (done, _) = refused_beside_others(&["n3"], false);
    assert_eq!(done, ["requeue 7", "keep 7 away from n1", "keep 7 away from n3,n1"]);
    let (done, said) = refused_beside_others(&[], true);
    assert_eq!((done, said.len()), (vec!["keep 7 away from n1".to_owned()], 1), "{said:?}");
    // The others leave it nowhere else to go: it comes back here rather than to nowhere.
    let (done, said) = refused_beside_others(&["n[2-3]"], false);
    assert_eq!(done, ["requeue 7", "keep 7 away from n1"]);
    assert!(
        said.last().unwrap().contains("not kept away from n1: partition main has 0 other nodes"),
        "{said:?}"
    );
}

#[test]
fn a_lease_that_its_epilog_could_not_close_is_closed_by_the_next_prolog() {
    let node = Node::new();
    let had = script(Some(job(Some("mig(CNT:3)"), "gres:mig:3", false)));
    node.prolog(&had);
    node.epilog(&script(None));
    assert!(!node.marked("jobs") && node.marked("ended"));
    let agent = node.agent([done(), lease(3)]);
    had.done.borrow_mut().clear();
    node.prolog(&had);
    assert_eq!(agent.asked(), [close(), open(3, Spread::Default)]);
    assert!(node.marked("jobs") && !node.marked("ended"));
    assert_eq!(*had.done.borrow(), [""; 0]);
}

#[test]
fn each_task_gets_its_leaves_and_the_grant_ends_with_the_step() {
    let node = Node::new();
    let agent = node.agent([lease(4), granted(4, &[&[0, 1], &[2, 3]]), done()]);
    node.prolog(&script(Some(job(Some("mig(CNT:4)"), "gres:mig:4", false))));
    let slurm = step(0, 2, Some("gres:mig:4"));
    let mut plugin = node.step(None, &slurm);
    for (task, leaves) in [(0, "MIG-0,MIG-1"), (1, "MIG-2,MIG-3")] {
        slurm.items.borrow_mut().insert(Item::Task, task);
        plugin.task_init_privileged(&slurm).unwrap();
        plugin.task_init(&slurm).unwrap();
        assert_eq!(slurm.env.borrow()["CUDA_VISIBLE_DEVICES"], leaves);
        assert_eq!(slurm.env.borrow()["MIGSHARE_RANK"], task.to_string());
        assert_eq!(slurm.env.borrow()["NVIDIA_VISIBLE_DEVICES"], "MIG-0,MIG-1,MIG-2,MIG-3");
    }
    plugin.exit(&slurm);
    let release = Request::Release(ReleaseGrant { job: KEY, step: StepId(0) });
    assert_eq!(agent.asked(), [open(4, Spread::Default), grant(0, 4, 2), release]);
}

#[test]
fn a_step_opens_the_lease_that_no_prolog_opened() {
    let node = Node::new();
    let agent = node.agent([refused(Reason::NoLease, "no lease"), lease(2), granted(2, &[&[0, 1]])]);
    let slurm = step(0, 1, Some("gres/mig:2"));
    *slurm.job.borrow_mut() = Some(job(Some("mig(CNT:2)"), "gres/mig:2", false));
    node.step(Some("(null)"), &slurm).task_init_privileged(&slurm).unwrap();
    assert_eq!(agent.asked(), [grant(0, 2, 1), open(2, Spread::Default), grant(0, 2, 1)]);
    assert!(node.marked("jobs"), "for the epilog");
}

#[test]
fn a_step_that_wants_larger_instances_than_its_job_holds_is_refused() {
    for (option, fits) in [("size=1g", true), ("mem=1M", true), ("size=2g", false), ("mem=900G", false)] {
        let node = Node::new();
        let _agent = node.agent([lease(2), granted(2, &[&[0, 1]])]);
        node.prolog(&script(Some(job(Some("mig(CNT:2)"), "gres:mig:2", false))));
        let slurm = step(0, 1, Some("gres:mig:2"));
        let said = node.step(Some(option), &slurm).task_init_privileged(&slurm);
        assert_eq!(said.is_ok(), fits, "{option}");
    }
}

#[test]
fn a_step_learns_what_an_unreachable_slurmctld_kept_from_the_prolog() {
    let node = Node::new();
    let agent = node.agent([granted(2, &[&[0, 1]])]);
    node.prolog(&script(None));
    let slurm = step(0, 1, Some("gres:mig:2"));
    *slurm.job.borrow_mut() = Some(job(Some("mig(CNT:2)"), "gres:mig:2", false));
    node.step(None, &slurm).task_init_privileged(&slurm).unwrap();
    assert_eq!(agent.asked(), [grant(0, 2, 1)]);
}

#[test]
fn a_step_without_leaves_asks_for_none_and_inherits_none() {
    let node = Node::new();
    let agent = node.agent([lease(4)]);
    node.prolog(&script(Some(job(Some("mig(CNT:4)"), "gres:mig:4", true))));
    for per_node in [None, Some("gres:gpu:1")] {
        let slurm = step(0, 1, per_node);
        for name in ["CUDA_VISIBLE_DEVICES", "MIGSHARE_LEAVES", "MIGSHARE_RANK"] {
            slurm.env.borrow_mut().insert(name.to_owned(), "MIG-0".to_owned());
        }
        let mut plugin = node.step(Some("4"), &slurm);
        plugin.task_init(&slurm).unwrap();
        plugin.exit(&slurm);
        assert!(slurm.env.borrow().is_empty(), "{:?}", slurm.env.borrow());
    }
    assert_eq!(agent.asked(), [open(4, Spread::Default)]);
}

#[test]
fn leaves_per_task_are_counted_for_the_tasks_on_this_node() {
    let node = Node::new();
    let agent = node.agent([lease(6), granted(6, &[&[0, 1], &[2, 3], &[4, 5]])]);
    node.prolog(&script(Some(job(Some("mig(CNT:6)"), "gres/mig:2", false))));
    let slurm = step(1, 3, None);
    *slurm.step.borrow_mut() = Some(Step { per_node: None, per_task: Some("cpu=1,gres/mig=2".to_owned()) });
    node.step(None, &slurm);
    assert_eq!(agent.asked()[1], grant(1, 6, 3));
}

#[test]
fn special_steps_see_all_leaves_of_their_job_without_a_grant() {
    for special in [StepId::BATCH, StepId::INTERACTIVE, StepId::EXTERN] {
        let node = Node::new();
        let agent = node.agent([lease(3), lease(3)]);
        node.prolog(&script(Some(job(Some("mig(CNT:3)"), "gres:mig:3", true))));
        let slurm = step(special.0, 1, None);
        let mut plugin = node.step(None, &slurm);
        plugin.task_init(&slurm).unwrap();
        plugin.exit(&slurm);
        assert_eq!(slurm.env.borrow()["CUDA_VISIBLE_DEVICES"], "MIG-0,MIG-1,MIG-2");
        let want = [open(3, Spread::Default), Request::JobLeaves(JobLeaves { job: KEY })];
        assert_eq!(agent.asked(), want);
    }
}

fn segment(step: u32, leaves: u32, bytes: Option<u64>) -> Request {
    let holder = std::process::id();
    Request::OpenSegment(OpenSegment { job: KEY, step: StepId(step), leaves, bytes, holder })
}

#[test]
fn a_step_with_a_segment_is_told_where_to_fetch_it() {
    let promised = || Reply::Segment(SegmentReply { bytes: Some(1 << 20), note: None });
    for (option, bytes) in [(None, None), (Some("pack,segment=1M"), Some(1 << 20))] {
        let node = Node::new();
        let agent = node.agent([lease(2), granted(2, &[&[0], &[1]]), promised()]);
        node.prolog(&script(Some(job(Some("mig(CNT:2)"), "gres/mig:2", false))));
        let slurm = step(0, 2, Some("gres:mig:2"));
        node.step(option, &slurm).task_init(&slurm).unwrap();
        assert_eq!(agent.asked().last(), Some(&segment(0, 2, bytes)));
        let socket = node.0.path().join("segment.sock").display().to_string();
        assert_eq!(slurm.env.borrow()["MIGSHARE_SEGMENT_SOCKET"], socket);
    }
}

#[test]
fn launchers_in_a_batch_script_have_a_segment_and_adopted_logins_have_none() {
    for (special, wanted) in [(StepId::BATCH, true), (StepId::INTERACTIVE, true), (StepId::EXTERN, false)] {
        let node = Node::new();
        let answer = Reply::Segment(SegmentReply { bytes: Some(1 << 20), note: None });
        let agent = node.agent([lease(3), lease(3), answer]);
        node.prolog(&script(Some(job(Some("mig(CNT:3)"), "gres:mig:3", true))));
        let slurm = step(special.0, 1, None);
        node.step(None, &slurm).task_init(&slurm).unwrap();
        assert_eq!(agent.asked().contains(&segment(special.0, 3, None)), wanted, "{special}");
        assert_eq!(slurm.env.borrow().contains_key("MIGSHARE_SEGMENT_SOCKET"), wanted, "{special}");
    }
}

#[test]
fn a_step_that_wants_no_segment_does_not_ask_and_one_that_gets_none_fails_only_where_it_asked() {
    let no = || refused(Reason::NoSegment, "a segment of 1T is more than the 8G that a step may have");
    for (option, asks, fails) in
        [("2,segment=off", false, false), ("2", true, false), ("2,segment=1T", true, true)]
    {
        let node = Node::new();
        let agent = node.agent([lease(2), granted(2, &[&[0], &[1]]), no()]);
        node.prolog(&script(Some(job(Some("mig(CNT:2)"), "gres/mig:2", false))));
        let slurm = step(0, 2, Some("gres:mig:2"));
        let mut plugin = node.step(Some(option), &slurm);
        let asked = agent.asked().iter().any(|r| matches!(r, Request::OpenSegment(_)));
        assert_eq!(asked, asks, "{option}");
        let end = plugin.task_init_privileged(&slurm);
        assert_eq!(end.is_err(), fails, "{option}");
        assert!(end.err().is_none_or(|e| e.contains("refused: a segment of 1T")), "{option}");
    }
}

#[test]
fn an_exclusive_job_that_did_not_ask_opens_no_lease_until_a_step_asks() {
    let node = Node::new();
    let agent =
        node.agent([refused(Reason::NoLease, "no lease"), lease(7), granted(2, &[&[0, 1]]), done(), done()]);
    node.prolog(&script(Some(job(Some("mig(CNT:7)"), "", true))));
    let batch = step(StepId::BATCH.0, 1, None);
    node.step(None, &batch).task_init(&batch).unwrap();
    assert!(batch.env.borrow().is_empty());
    assert_eq!(agent.asked(), []);
    let asking = step(0, 1, Some("gres:mig:2"));
    node.step(None, &asking).exit(&asking);
    node.epilog(&script(None));
    assert_eq!(agent.asked().last(), Some(&close()));

    let quiet = Node::new();
    let agent = quiet.agent([]);
    quiet.prolog(&script(Some(job(Some("mig(CNT:7)"), "", true))));
    quiet.epilog(&script(None));
    assert_eq!(agent.asked(), []);
    assert!(!quiet.marked("jobs") && !quiet.marked("ended"));
}

#[test]
fn refused_away_and_broken_are_three_texts_told_once_and_only_where_they_fail_the_job() {
    let broken = Reply::Error(ErrorReply { code: ErrorCode::Journal, text: "disk full".to_owned() });
    let answers = [
        (
            Some(refused(Reason::FewerLeavesThanTasks, "ask for --gres=mig:3")),
            "refused: ask for --gres=mig:3",
        ),
        (Some(broken), "agent broken on n1: agent: disk full"),
        (None, "agent away on n1: no agent answers at "),
    ];
    for (answer, text) in answers {
        let node = Node::new();
        let _agent = answer.map(|reply| node.agent([reply]));
        let slurm = step(0, 3, Some("gres:mig:2"));
        *slurm.job.borrow_mut() = Some(job(Some("mig(CNT:2)"), "gres:mig:2", false));
        let mut plugin = node.step(Some("pack"), &slurm);
        let said = plugin.task_init_privileged(&slurm).unwrap_err();
        assert!(said.starts_with(text), "{said}");
        slurm.items.borrow_mut().insert(Item::Task, 1);
        assert_eq!(plugin.task_init_privileged(&slurm), Err(String::new()));
        plugin.exit(&slurm);
    }
}

#[test]
fn a_forged_option_fails_the_step_and_not_the_node() {
    let node = Node::new();
    let slurm = step(0, 1, Some("gres:mig:2"));
    let said = node.step(Some("3;rm -rf"), &slurm).task_init_privileged(&slurm).unwrap_err();
    assert!(said.starts_with("--mig-share=3;rm -rf: "), "{said}");
}

#[test]
fn a_bad_plugstack_line_stops_commands_and_slurmd_but_only_fails_a_step() {
    for context in [Context::Command, Context::Slurmd] {
        let said = Plugin::default().init(context, &["sokcet=/x"], &Table::default()).unwrap_err();
        assert!(said.contains("\"sokcet=/x\""), "{said}");
    }
    let (mut plugin, slurm) = (Plugin::default(), step(0, 1, None));
    plugin.init(Context::Step, &["sokcet=/x"], &slurm).unwrap();
    plugin.init_post_opt(Context::Step, &slurm).unwrap();
    assert!(plugin.task_init_privileged(&slurm).unwrap_err().contains("\"sokcet=/x\""));
}

#[test]
fn each_component_of_a_heterogeneous_job_asks_for_itself() {
    let slurm = Table::default();
    let mut plugin = Plugin::default();
    plugin.option(Some("3"), false, &slurm).unwrap();
    plugin.init_post_opt(Context::Command, &slurm).unwrap();
    assert_eq!(slurm.options.take()["gres"], "mig:3");
    plugin.init_post_opt(Context::Command, &slurm).unwrap();
    assert!(slurm.options.take().is_empty());
}
