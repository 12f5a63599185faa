//! What is shipped beside the agent: the systemd unit, the example configuration, alerts and the dashboard agree with it.

use crate::rig::{has, skip};
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

/// Words of a text that begin like our metrics, without the endings that Prometheus adds to histograms.
fn metrics_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|w| w.starts_with("migshare_"));
    let base = |w: &str| {
        ["_bucket", "_count", "_sum"].iter().find_map(|end| w.strip_suffix(end)).unwrap_or(w).to_owned()
    };
    words.map(base).collect()
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
    for (what, file) in [("check config", "migshare.yml"), ("test rules", "migshare-alerts.test.yml")] {
        let mut promtool = Command::new("promtool");
        promtool.args(what.split(' ')).arg(contrib("prometheus").join(file));
        let out = promtool.output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        assert!(out.status.success(), "{what}: {}", String::from_utf8_lossy(&text));
    }
}
