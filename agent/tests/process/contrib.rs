//! What is shipped beside the agent: the systemd unit, the example configuration, alerts and the dashboard agree with it.

use crate::rig::{Rig, has, skip};
use migshare_agent::config::Config;
use migshare_agent::metrics::table::TABLE;
use std::path::{Path, PathBuf};
use std::process::Command;

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib").join(name)
}

#[test]
fn the_example_configuration_is_the_default() {
    let text = std::fs::read_to_string(contrib("systemd/agent.toml")).unwrap();
    let path = Path::new("agent.toml");
    assert_eq!(Config::parse(&text, path).unwrap(), Config::parse("", path).unwrap());
    let uncommented: String = text
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| l.contains(" = ")).unwrap_or(l).to_owned() + "\n")
        .collect();
    Config::parse(&uncommented, path).unwrap();
}

#[test]
fn the_unit_is_hardened() {
    if !has("systemd-analyze") {
        return skip("systemd-analyze is not installed");
    }
    let mut command = Command::new("systemd-analyze");
    let out = command
        .args(["security", "--offline=true", "--threshold=30"])
        .arg(contrib("systemd/migshared.service"))
        .output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

/// The unit's capabilities as setpriv names them, and as /proc/PID/status shows them.
const CAPABILITIES: [(&str, u64); 2] = [("sys_admin", 1 << 21), ("mknod", 1 << 27)];

#[test]
fn the_agent_works_with_the_capabilities_of_the_unit_alone() {
    if !nix::unistd::geteuid().is_root() || !has("setpriv") {
        return skip("only root can give capabilities up");
    }
    let unit = std::fs::read_to_string(contrib("systemd/migshared.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let named: Vec<String> =
        line.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    assert_eq!(named, CAPABILITIES.map(|(name, _)| name));
    let mut rig = Rig::new(1);
    let agent = rig.command();
    let mut bound = Command::new("setpriv");
    bound.args(["--inh-caps=-all", "--no-new-privs"]);
    bound.arg(format!("--bounding-set=-all,+{}", named.join(",+")));
    bound.arg(agent.get_program()).args(agent.get_args());
    rig.launch(bound);
    rig.settled();
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.agent_pid())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let all: u64 = CAPABILITIES.iter().map(|(_, bit)| bit).sum();
    assert_eq!(u64::from_str_radix(effective, 16).unwrap(), all);
    // What it does for a job: lease, grant, memory for the ranks, and the end of it.
    let mut step = rig.step(7, 1);
    rig.open(7, 2).unwrap();
    rig.grant(7, 0, 2, step.pid()).unwrap();
    assert_eq!(step.rank(0, "fetch"), "job 7 step 0 bytes 268435456");
    rig.close(7).unwrap();
    rig.settled();
}

/// Words of a text that begin like our metrics, without the endings that Prometheus adds to histograms.
fn metrics_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|w| w.starts_with("migshare_"));
    words.map(|w| w.strip_suffix("_bucket").unwrap_or(w).to_owned()).collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    for file in ["grafana/migshare.json", "prometheus/migshare-alerts.yml"] {
        let used = metrics_in(&std::fs::read_to_string(contrib(file)).unwrap());
        assert!(!used.is_empty());
        for name in used {
            assert!(TABLE.iter().any(|row| row.name == name), "{file} uses {name}");
        }
    }
}

#[test]
fn promtool_accepts_the_alerts() {
    if !has("promtool") {
        return skip("promtool is not installed");
    }
    let out = Command::new("promtool")
        .args(["check", "config"])
        .arg(contrib("prometheus/migshare.yml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}
