//! An admin's commands, through the real command line.

use crate::rig::Rig;
use migshare_agent::journal::Journal;
use migshare_proto::admin::PlanReply;
use migshare_proto::status::{GpuState, GpuStatus, LeafState, Status};
use std::process::{Command, Stdio};

/// Runs `migshare`; exit code, stdout, stderr.
fn migshare(rig: &Rig, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
    let out = command.arg("--socket").arg(rig.path("agent.sock")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

/// Places and profiles on a GPU.
fn cut(rig: &Rig, gpu: usize) -> Vec<String> {
    let leaves = &rig.try_status().unwrap().gpus[gpu].leaves;
    leaves.iter().map(|l| format!("{} {}", l.placement, l.profile)).collect()
}

/// One that broke and was taken out. Its index then means nothing to NVML, but it is what the admin knows.
/// `migshare explain 900 | head -3`.
#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly_and_a_full_disk_does_not() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(812, 1).unwrap();
    let commands: [&[&str]; 5] = [
        &["status"],
        &["--json", "status"],
        &["explain", "812"],
        &["plan", "full-memory"],
        &["manual", "bash"],
    ];
    for words in commands {
        let run = |out: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_migshare"));
            command
                .arg("--socket")
                .arg(rig.path("agent.sock"))
                .args(words)
                .stdout(out)
                .stderr(Stdio::piped());
            let done = command.spawn().unwrap().wait_with_output().unwrap();
            (done.status.code(), String::from_utf8(done.stderr).unwrap())
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(writer.into()), (Some(141), String::new()), "{words:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, said) = run(full.into());
        assert!(
            code == Some(1) && said.contains("migshare: cannot print: No space left"),
            "{words:?}: {said}"
        );
    }
}

/// What one job does takes no other job's story away, and what is lost all the same is not denied.
#[test]
fn a_job_is_explained_as_long_as_it_holds_leaves() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(701, 2).unwrap();
    rig.open(900, 1).unwrap();
    for step in 0..300 {
        rig.grant(900, step, 1, std::process::id()).unwrap();
        rig.release(900, step).unwrap();
    }
    let opened = migshare(&rig, &["explain", "701"]).1;
    assert!(opened.contains("lease opened: asked for 2 leaves, spread"), "{opened}");
    let busy = migshare(&rig, &["explain", "900"]).1;
    assert!(
        busy.contains("lease opened: asked for 1 leaves") && busy.contains("569 earlier decisions"),
        "{busy}"
    );
    assert!(busy.contains("grant of step 299 ended") && busy.lines().count() < 40, "{busy}");
    rig.kill();
    let (mut journal, replay) = Journal::open(&rig.path("state")).unwrap();
    journal.compact(&replay.records, &[]).unwrap();
    drop(journal);
    rig.start();
    let opened = migshare(&rig, &["explain", "701"]).1;
    assert!(
        opened.contains("lease opened: 2 leaves: ") && !opened.contains("asked for no leaves"),
        "{opened}"
    );
}

#[test]
fn a_gpu_that_is_gone_is_named_by_its_uuid_or_by_the_index_that_it_had() {
    for by_uuid in [false, true] {
        let mut rig = Rig::new(2);
        rig.start();
        rig.stop();
        let gone = rig.machine().gpus[1].uuid.clone();
        rig.change(|m| m.gpus.truncate(1));
        rig.launch(rig.command());
        let status = rig.until("the one that is left", |s| s.usable == 7 && s.gpus.len() == 2);
        assert_eq!((status.gpus[1].state, status.gpus[1].index), (GpuState::Missing, 1));
        let (code, text, _) = migshare(&rig, &["status"]);
        assert_eq!(code, 5);
        assert!(text.contains(&format!("GPU 1  {gone}  missing")), "{text}");
        let name = if by_uuid { gone.as_str() } else { "1" };
        for command in ["cordon", "uncordon", "forget"] {
            let (code, text, e) = migshare(&rig, &[command, name]);
            assert_eq!((code, text.lines().next()), (0, Some("done")), "{command}: {e}");
        }
        let status = rig.settled();
        assert_eq!((status.gpus.len(), status.counted), (1, 7));
        // "All" never meant one that is gone.
        assert_eq!(migshare(&rig, &["apply", "full-memory"]).0, 0);
    }
}

/// Indices move up where a GPU is gone.
#[test]
fn an_index_that_two_gpus_have_is_refused_with_both_their_uuids() {
    let mut rig = Rig::new(2);
    rig.start();
    rig.stop();
    let gone = rig.machine().gpus[0].uuid.clone();
    rig.change(|m| drop(m.gpus.remove(0)));
    rig.launch(rig.command());
    rig.until("the one that is left", |s| s.usable == 7 && s.gpus.len() == 2);
    let (code, _, e) = migshare(&rig, &["forget", "0"]);
    assert_eq!(code, 1);
    assert!(e.contains(&format!("{gone}, which is missing")) && e.contains("by its UUID"), "{e}");
    assert_eq!(migshare(&rig, &["forget", &gone]).0, 0);
    rig.settled();
}

#[test]
fn a_plan_shows_moves_and_what_waits_and_changes_nothing() {
    let mut rig = Rig::new(2);
    rig.start();
    let lease = rig.open(812, 14).unwrap();
    rig.open(813, 1).unwrap_err();
    let before = rig.machine();
    let (code, text, _) = migshare(&rig, &["plan", "gpu=1", "layout=full-memory"]);
    assert_eq!(code, 0);
    assert!(text.contains("1g.20gb") && text.contains("job 812"), "{text}");
    rig.close(812).unwrap();
    let lease = rig.open(812, 2).unwrap_or(lease);
    let (_, json, _) = migshare(&rig, &["plan", "2g.20gb:3", "--json"]);
    let plan: PlanReply = serde_json::from_str(&json).unwrap();
    let held = |gpu, place| lease.leaves.iter().any(|l| l.gpu == gpu && l.placement.overlaps(place));
    assert!(!plan.moves.is_empty() && plan.moves.iter().all(|m| !held(m.gpu, m.placement)), "{plan:?}");
    let known = plan.moves.iter().all(|m| m.expected_ms.is_some() == m.make);
    assert!(known, "instances were made since the agent's start, none was destroyed: {plan:?}");
    assert_eq!(rig.machine().gpus, before.gpus);
}

#[test]
fn an_applied_layout_takes_idle_places_at_once_and_the_others_as_jobs_end() {
    let mut rig = Rig::new(1);
    rig.start();
    let lease = rig.open(812, 3).unwrap();
    let (code, text, e) = migshare(&rig, &["apply", "gpu=0", "layout=2g.20gb:3"]);
    assert_eq!(code, 6, "a part waits for the job: {text}{e}");
    assert!(text.contains("done: made 2g.20gb") && text.contains("812"), "{text}");
    let order = rig.try_status().unwrap().gpus[0].order.clone().unwrap();
    assert_eq!((order.now, order.layout.matches("2g@").count()), (0, 3), "{order:?}");
    assert!(!order.waits.is_empty() && order.waits.iter().all(|w| w.contains("job 812")), "{order:?}");
    let text = migshare(&rig, &["status"]).1;
    assert!(text.contains("ordered, ") && text.contains(&order.waits[0]), "{text}");
    assert_eq!(rig.open(812, 3).unwrap(), lease, "the job keeps its leaves");
    assert_eq!(cut(&rig, 0).iter().filter(|c| c.ends_with("2g.20gb")).count(), 2);
    rig.close(812).unwrap();
    let wide = |g: &GpuStatus| g.leaves.iter().filter(|l| l.profile == "2g.20gb").count() == 3;
    let three = |s: &Status| s.gpus.first().is_some_and(wide);
    rig.until("the third", three);
    rig.kill();
    rig.launch(rig.command());
    rig.until("the same after a restart", three);
    assert_eq!(rig.try_status().unwrap().gpus[0].order.as_ref().unwrap().waits, [""; 0]);
    let (code, json, _) = migshare(&rig, &["--json", "apply", "configured"]);
    let said: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &said["ordered"]), (0, &true.into()));
    let done = said["done"].as_array().unwrap();
    let made = done.iter().filter(|m| m["make"] == true).count();
    assert_eq!((made, done.len()), (7, 10), "three 2g go, seven leaves come: {json}");
    rig.settled();
    assert_eq!(rig.try_status().unwrap().gpus[0].order, None);
}

#[test]
fn now_means_all_or_nothing() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(812, 1).unwrap();
    let before = cut(&rig, 0);
    let (code, _, e) = migshare(&rig, &["apply", "--now", "gpu=0", "layout=7g.80gb:1"]);
    assert_eq!(code, 3);
    assert!(e.contains("nothing was changed") && e.contains("812"), "{e}");
    assert_eq!(cut(&rig, 0), before);
    let (code, text, _) = migshare(&rig, &["apply", "--dry-run", "gpu=0", "layout=2g.20gb:3"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(cut(&rig, 0), before);
}

#[test]
fn targets_come_from_files_too() {
    let mut rig = Rig::new(2);
    rig.start();
    std::fs::write(
        rig.path("mine"),
        "# the first gpu for small jobs\ngpu=0 layout=uniform\ngpu=1 layout=3g@0:4+3g@4:4\n",
    )
    .unwrap();
    let parted = "version: v1\nmig-configs:\n  mixed:\n    - devices: [1]\n      mig-enabled: true\n      mig-devices:\n        1g.10gb: 2\n        2g.20gb: 1\n        3g.40gb: 1\n";
    std::fs::write(rig.path("parted.yaml"), parted).unwrap();
    let (code, text, e) = migshare(&rig, &["apply", rig.path("mine").to_str().unwrap()]);
    assert_eq!(code, 0, "{text}{e}");
    assert_eq!(cut(&rig, 1), ["0:4 3g.40gb", "4:4 3g.40gb"]);
    let (code, text, e) = migshare(&rig, &["apply", &format!("{}#mixed", rig.path("parted.yaml").display())]);
    assert_eq!(code, 0, "{text}{e}");
    let mut profiles: Vec<String> =
        cut(&rig, 1).iter().map(|c| c.split(' ').nth(1).unwrap().to_owned()).collect();
    profiles.sort();
    assert_eq!(profiles, ["1g.10gb", "1g.10gb", "2g.20gb", "3g.40gb"]);
    let (code, _, e) = migshare(&rig, &["plan", "gpu=0", "layout=1g.99gb:1"]);
    assert_eq!(code, 3, "{e}");
    assert!(e.contains("1g.99gb") && e.contains("1g.10gb"), "names what there is: {e}");
    let (code, _, e) = migshare(&rig, &["plan", "nonesuch"]);
    assert!(code == 1 && e.contains("no layout"), "{e}");
}

#[test]
fn a_cordoned_gpu_gets_no_new_job_and_keeps_the_one_it_has() {
    let mut rig = Rig::new(2);
    rig.start();
    rig.open(1, 7).unwrap();
    let gpu =
        rig.try_status().unwrap().gpus.iter().position(|g| g.leaves.iter().any(|l| l.job.is_some())).unwrap();
    let name = gpu.to_string();
    let (code, text, _) = migshare(&rig, &["cordon", &name, "--note", "new fan"]);
    assert!(code == 0 && text.contains("7 of the 14 leaves") && text.contains("drained"), "{text}");
    let (code, text, _) = migshare(&rig, &["status"]);
    assert!(code == 5 && text.contains("cordoned: new fan"), "{text}");
    let state = rig.try_status().unwrap().gpus[gpu].clone();
    assert_eq!((state.state, state.cordon.as_deref()), (GpuState::Cordoned, Some("new fan")));
    assert_eq!(rig.try_status().unwrap().leases.len(), 1);
    rig.kill();
    rig.launch(rig.command());
    rig.until("the cordon after a restart", |s| s.problems.iter().any(|p| p.contains("new fan")));
    // Slurm started the one before it could know, the other long after.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (job, start, fits) in [(2, now, true), (3, now + 60, false)] {
        let job = migshare_proto::JobKey { job, start, uid: 1000 };
        let open = migshare_proto::message::OpenLease { job, leaves: 4, shape: Default::default() };
        assert_eq!(rig.ask(migshare_proto::Request::OpenLease(open)).is_ok(), fits, "start {start}");
    }
    assert_eq!(migshare(&rig, &["uncordon", &format!("gpu={name}")]).0, 0);
    rig.close(2).unwrap();
    rig.settled();
    assert_eq!(migshare(&rig, &["uncordon", &name]).1, "nothing to change\n");
    assert_eq!(migshare(&rig, &["cordon", "9"]).0, 1);
}

#[test]
fn a_quarantined_place_is_kept_out_of_use_until_it_is_released() {
    let mut rig = Rig::new(1);
    rig.start();
    assert_eq!(migshare(&rig, &["quarantine", "0", "3:1", "--note", "ecc errors"]).0, 0);
    let status = rig.try_status().unwrap();
    let leaf = status.gpus[0].leaves.iter().find(|l| l.placement.start == 3).unwrap();
    assert_eq!(leaf.state, LeafState::Quarantined);
    assert!(rig.open(1, 7).is_err());
    assert_eq!(rig.open(1, 6).unwrap().leaves.iter().filter(|l| l.placement.start == 3).count(), 0);
    assert_eq!(migshare(&rig, &["release", "0", "3:1"]).0, 0);
    rig.settled();
    rig.open(2, 1).unwrap();
}

#[test]
fn nothing_takes_a_jobs_leaves_without_force_and_the_refusal_says_whose() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(812, 2).unwrap();
    let (code, _, e) = migshare(&rig, &["evict", "812"]);
    assert_eq!(code, 3);
    assert!(e.contains("job 812 of user 1000") && e.contains("--force"), "{e}");
    let (code, text, _) = migshare(&rig, &["evict", "812", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &said["refused"]["reason"]), (3, &"needs_force".into()));
    assert_eq!(rig.try_status().unwrap().leases.len(), 1);
    assert_eq!(migshare(&rig, &["evict", "812", "--force"]).0, 0);
    assert!(rig.try_status().unwrap().leases.is_empty());
}

#[test]
fn a_script_is_told_of_every_failure() {
    let mut rig = Rig::new(1);
    let error = |rig: &Rig, args: &[&str]| {
        let (code, text, _) = migshare(rig, &[&["--json"], args].concat());
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        (code, said["error"]["kind"].as_str().unwrap().to_owned(), said["error"]["text"].to_string())
    };
    let (code, kind, text) = error(&rig, &["status"]);
    assert!((code, kind.as_str()) == (4, "away") && text.contains("agent.sock"), "{code} {kind} {text}");
    rig.start();
    std::fs::write(rig.path("bad.yaml"), "version: v9\nmig-configs: {}\n").unwrap();
    let file = rig.path("bad.yaml").display().to_string();
    for (args, part) in [
        (vec!["cordon", "9"], "no gpu 9"),
        (vec!["plan", "nonesuch"], "no layout"),
        (vec!["plan", &file], "v9"),
        (vec!["quarantine", "0", "x"], "no place"),
        (vec!["health", "--config", "/nonexistent"], "/nonexistent"),
    ] {
        let (code, kind, text) = error(&rig, &args);
        assert!(
            (code, kind.as_str()) == (1, "failed") && text.contains(part),
            "{args:?}: {code} {kind} {text}"
        );
    }
}

#[test]
fn the_story_of_a_job_is_told_also_after_a_restart() {
    let mut rig = Rig::new(1);
    rig.start();
    rig.open(1, 6).unwrap();
    assert!(rig.open(812, 3).is_err());
    rig.close(1).unwrap();
    rig.open(812, 3).unwrap();
    rig.grant(812, 0, 3, std::process::id()).unwrap();
    rig.close(812).unwrap();
    rig.kill();
    rig.start();
    let (code, text, _) = migshare(&rig, &["explain", "812"]);
    assert_eq!(code, 0);
    let story: serde_json::Value =
        serde_json::from_str(&migshare(&rig, &["--json", "explain", "812"]).1).unwrap();
    assert_eq!(story["events"][0]["reason"], "no_leaves");
    let lines: Vec<&str> = text.lines().collect();
    for (line, wanted) in lines.iter().zip([
        "[no_leaves]",
        "lease opened: asked for 3 leaves",
        "step 0 granted",
        "ended by the job's epilog",
    ]) {
        assert!(line.contains(wanted), "{wanted} in\n{text}");
    }
    assert_eq!(lines.len(), 4, "{text}");
    assert!(migshare(&rig, &["explain", "4"]).1.contains("nothing is known"));
}

#[test]
fn completions_and_manual_pages_are_made_from_the_command_line_itself() {
    let rig = Rig::new(1);
    for shell in ["bash", "zsh", "fish"] {
        let (code, text, _) = migshare(&rig, &["manual", shell]);
        assert!(code == 0 && text.contains("cordon"), "{shell}");
    }
    let dir = rig.path("man");
    assert_eq!(migshare(&rig, &["manual", "man", "--dir", dir.to_str().unwrap()]).0, 0);
    assert!(std::fs::read_to_string(dir.join("migshare-apply.1")).unwrap().contains("mig\\-parted"));
    assert!(std::fs::read_to_string(dir.join("migshared.8")).unwrap().contains("\\-\\-check"));
}

/// Each command by its name, with arguments that make sense on a node with one GPU.
const COMMANDS: [(&str, &[&str]); 11] = [
    ("status", &[]),
    ("explain", &["812"]),
    ("plan", &["full-memory"]),
    ("apply", &["--dry-run", "full-memory"]),
    ("cordon", &["gpu=0"]),
    ("uncordon", &["gpu=0"]),
    ("quarantine", &["gpu=0", "0:1"]),
    ("release", &["gpu=0", "0:1"]),
    ("evict", &["812"]),
    ("forget", &["gpu=0"]),
    ("health", &[]),
];

#[test]
fn every_command_teaches_and_speaks_json_also_when_it_is_refused() {
    let mut rig = Rig::new(1);
    rig.start();
    let (_, help, _) = migshare(&rig, &["--help"]);
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names: Vec<&str> =
        listed.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").collect();
    assert_eq!(names, COMMANDS.map(|(name, _)| name));
    let config = rig.path("agent.toml");
    for (name, args) in COMMANDS {
        let (code, text, _) = migshare(&rig, &[name, "--help"]);
        assert!(code == 0 && text.contains("Usage: migshare"), "{name}: {text}");
        let mut args = [&["--json", name], args].concat();
        if name == "health" {
            args.extend(["--config", config.to_str().unwrap()]);
        }
        let (code, text, e) = migshare(&rig, &args);
        assert_ne!(code, 2, "{name}: {e}");
        let said: serde_json::Result<serde_json::Value> = serde_json::from_str(&text);
        assert!(said.is_ok_and(|v| v.is_object()), "{name}: {text}{e}");
    }
}
