//! What is decided is told, with its reason: to people, to programs, and to the systemd journal.

use crate::rig::{Rig, has, skip};
use serde_json::Value;
use std::process::Command;

const JOURNALD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/programs/journald.py");

/// Opens a lease, and asks for more than there is.
fn decide(rig: &mut Rig) {
    rig.settled();
    rig.open(812, 5).unwrap();
    rig.open(813, 5).unwrap_err();
}

/// Entries of a log of JSON lines; a last one that is being written is left out.
fn entries(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Waits until an entry has all of these fields.
fn wait_for(rig: &mut Rig, log: &str, wanted: &[(&str, &str)]) {
    let path = rig.path(log);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let has = |entry: &Value| {
        wanted.iter().all(|(name, part)| entry.get(name).is_some_and(|value| text(value).contains(part)))
    };
    rig.until(&format!("{wanted:?}"), |_| {
        entries(&std::fs::read_to_string(&path).unwrap_or_default()).iter().any(has)
    });
}

#[test]
fn under_systemd_each_decision_is_an_entry_with_fields() {
    let namespace = Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|s| s.success());
    if !namespace || !has("setpriv") {
        return skip("no mount name space of its own");
    }
    let mut rig = Rig::new(1);
    let service = rig.command();
    let mut journald = Command::new("unshare");
    journald.args(["--mount", "--propagation", "private", "python3", JOURNALD]).arg(rig.path("entries"));
    journald.arg(service.get_program()).args(service.get_args());
    rig.launch(journald);
    decide(&mut rig);
    // The variables of the environment begin in the same way, hence the names in two parts.
    let field = |name: &str| format!("MIGSHARE_{name}");
    let [job, charged, reason, text] = ["JOB", "CHARGED", "REASON", "TEXT"].map(field);
    let opened =
        [("MESSAGE", "lease opened"), (&*job, "812"), (&*charged, "5"), ("SYSLOG_IDENTIFIER", "migshared")];
    wait_for(&mut rig, "entries", &opened);
    let refused = [
        ("MESSAGE", "refused"),
        (&*job, "813"),
        (&*reason, "no_leaves"),
        (&*text, "leaves"),
        ("PRIORITY", "4"),
    ];
    wait_for(&mut rig, "entries", &refused);
}

#[test]
fn on_request_each_decision_is_an_object_and_a_file_has_no_colours() {
    let mut rig = Rig::new(1);
    let mut command = rig.command();
    command.args(["--log", "json"]);
    rig.launch(command);
    decide(&mut rig);
    wait_for(&mut rig, "log", &[("message", "lease opened"), ("job", "812"), ("level", "INFO")]);
    wait_for(&mut rig, "log", &[("message", "refused"), ("job", "813"), ("reason", "no_leaves")]);
    rig.kill();
    std::fs::remove_file(rig.path("log")).unwrap();
    rig.start();
    let path = rig.path("log");
    rig.until("a line", |_| std::fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")));
    assert!(!rig.log().contains('\u{1b}'), "{}", rig.log());
}
