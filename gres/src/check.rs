//! Compares what is installed with what a node needs, and names each difference.

use crate::conf::Line;
use crate::installed::Installed;
use crate::inventory::Inventory;
use crate::render::{PLUGIN, SOCKET};
use migshare_proto::{hostlist, prices};
use serde::Serialize;
use std::fs;
use std::path::Path;

/// How bad a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Leaves cannot be used, or not safely, until it is gone.
    Wrong,
    /// It works, and could be better.
    Advice,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How bad it is.
    pub weight: Weight,
    /// `file` or `file:line`.
    pub at: String,
    /// What is there, what should be, and why.
    pub text: String,
}

/// All differences; none where everything is in place. `socket` is where the agent listens, if that is known.
pub fn check(inventory: &Inventory, installed: &Installed, socket: Option<&Path>) -> Vec<Difference> {
    let check = Check { inventory, installed };
    let parts = [
        check.counted_by_slurm(),
        check.reported_by_slurmd(),
        check.devices(),
        check.plugin(socket),
        check.advice(),
    ];
    parts.into_iter().flatten().collect()
}

struct Check<'a> {
    inventory: &'a Inventory,
    installed: &'a Installed,
}

impl Check<'_> {
    fn counted_by_slurm(&self) -> Vec<Difference> {
        let (Inventory { node, leaves, .. }, file) =
            (self.inventory, self.installed.paths.slurm.display().to_string());
        let mut found = Vec::new();
        let types = self.installed.setting("GresTypes").unwrap_or_default();
        if !types.split(',').any(|t| t.trim() == "mig") {
            found.push(wrong(&file, format!("GresTypes={types} has no mig")));
        }
        match self.installed.node(node, "Gres") {
            None => found.push(wrong(&file, format!("no NodeName line is for {node}"))),
            Some((line, gres)) => match leaves_in(gres.unwrap_or_default()) {
                n if n == *leaves => {}
                n => found.push(wrong(
                    &line.at(),
                    format!("{node} has Gres=mig:{n} and {leaves} leaves: write Gres=mig:{leaves}"),
                )),
            },
        }
        found
    }

    fn reported_by_slurmd(&self) -> Vec<Difference> {
        let Inventory { node, leaves, .. } = self.inventory;
        let lines = self.installed.gres(node, Some("mig"));
        let Some(first) = lines.first() else {
            let file = self.installed.paths.gres.display().to_string();
            return vec![wrong(
                &file,
                format!("no line is for mig on {node}: write NodeName={node} Name=mig Count={leaves}"),
            )];
        };
        let mut found = Vec::new();
        let count = lines.iter().map(|l| l.get("Count").map_or(1, number)).fold(0, u32::saturating_add);
        if count != *leaves {
            found.push(wrong(
                &first.at(),
                format!("{node} has mig Count={count} and {leaves} leaves: write Count={leaves}"),
            ));
        }
        for line in lines.iter().filter(|l| l.get("File").is_some() || l.get("MultipleFiles").is_some()) {
            let why = "with File= Slurm chooses the devices, and the agent does: leave the count alone";
            found.push(wrong(&line.at(), format!("mig on {node} has device files; {why}")));
        }
        found
    }

    /// Slurm must not own the devices of GPUs that hold leaves.
    fn devices(&self) -> Vec<Difference> {
        let Inventory { node, gpus, .. } = self.inventory;
        let detected = self.installed.detecting_lines(node).into_iter().map(|line| {
            let how = line.get("AutoDetect").unwrap_or_default();
            wrong(&line.at(), format!("AutoDetect={how} gives the GPUs of {node} to Slurm as well"))
        });
        let mut found: Vec<Difference> = detected.collect();
        for line in self.installed.device_lines(node) {
            let files = line.get("File").or(line.get("MultipleFiles")).unwrap_or_default();
            if let Some(gpu) = gpus.iter().find(|gpu| hostlist::names(files, &format!("/dev/nvidia{gpu}"))) {
                found.push(wrong(
                    &line.at(),
                    format!("File={files} gives GPU {gpu} to Slurm, and it holds leaves"),
                ));
            }
        }
        let constrains = |l: &&Line| l.get("ConstrainDevices").is_some_and(|v| v.eq_ignore_ascii_case("yes"));
        let v1 = |l: &Line| l.get("CgroupPlugin").is_some_and(|v| v.eq_ignore_ascii_case("cgroup/v1"));
        if self.installed.cgroup.iter().any(v1) {
            return found;
        }
        let other = self.installed.device_lines(node).into_iter().next();
        if let (Some(line), Some(file)) = (self.installed.cgroup.iter().rev().find(constrains), other) {
            let why = "on cgroup v2 Slurm's device filter leaves no place for that of the leaves, and their tasks are killed";
            found.push(wrong(
                &line.at(),
                format!("ConstrainDevices=yes with device files at {}: {why}", file.at()),
            ));
        }
        found
    }

    fn plugin(&self, socket: Option<&Path>) -> Vec<Difference> {
        let file = self.installed.paths.plugstack.display().to_string();
        let of_plugin = |l: &&Line| l.words.get(1).is_some_and(|path| Path::new(path).ends_with(PLUGIN));
        let lines: Vec<&Line> = self.installed.plugstack.iter().filter(of_plugin).collect();
        let [line] = lines[..] else {
            let text = match lines.last() {
                None => format!("no line loads {PLUGIN}: write required {PLUGIN}"),
                Some(last) => {
                    format!("{} lines load {PLUGIN}, the last at {}: keep one", lines.len(), last.at())
                }
            };
            return vec![wrong(&file, text)];
        };
        let mut found = Vec::new();
        if line.words[0] != "required" {
            let why = "a hook that fails would start the job without its leaves";
            found.push(wrong(&line.at(), format!("{} {PLUGIN} has to be required: {why}", line.words[0])));
        }
        let plugin = Path::new(&line.words[1]);
        if plugin.is_absolute() && !plugin.exists() {
            found.push(wrong(&line.at(), format!("{} does not exist", plugin.display())));
        }
        found.extend(self.prices(line));
        let there = line.get("socket").unwrap_or(SOCKET).replace("%n", &self.inventory.node);
        if let Some(socket) = socket.filter(|s| *s != Path::new(&there)) {
            found.push(wrong(
                &line.at(),
                format!("the plugin asks at {there}, the agent listens at {}", socket.display()),
            ));
        }
        found
    }

    /// The price table that the plugin reads on submit hosts, against what this node's agent charges.
    fn prices(&self, line: &Line) -> Option<Difference> {
        let Inventory { node, prices, .. } = self.inventory;
        let Some(path) = line.get("prices") else {
            let why = "a request for larger instances is not refused when its price differs between nodes";
            return Some(advice(&line.at(), format!("no prices= names a price table: {why}")));
        };
        let table = match fs::read_to_string(path) {
            Ok(text) => prices::parse(&text).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        match table {
            Err(e) => Some(wrong(path, e)),
            Ok(table) => match prices::of_node(&table, node) {
                None => Some(wrong(
                    path,
                    format!("no line is for {node}: add what `migshare-gres render` prints there"),
                )),
                Some(known) if known.leaves != prices.leaves || known.models != prices.models => {
                    let text = format!(
                        "the line for {node} is not what its agent charges: write what `migshare-gres render` prints"
                    );
                    Some(wrong(path, text))
                }
                Some(_) => None,
            },
        }
    }

    fn advice(&self) -> Vec<Difference> {
        let file = self.installed.paths.slurm.display().to_string();
        let mut found = Vec::new();
        let flags = self.installed.setting("PrologFlags").unwrap_or_default().to_ascii_lowercase();
        if !flags.split(',').any(|f| matches!(f.trim(), "alloc" | "contain")) {
            let why = "without it a job's leaves on its other nodes are only opened by its first step there";
            found.push(advice(&file, format!("PrologFlags has no Alloc: {why}")));
        }
        if self.installed.setting("PrologEpilogTimeout").is_none() {
            let why = "an epilog that slurmd's restart cut off is waited for without end";
            found.push(advice(&file, format!("PrologEpilogTimeout is not set: {why}")));
        }
        found
    }
}

/// Leaves in a node's `Gres=`, of all types.
fn leaves_in(gres: &str) -> u32 {
    let entries = gres.split(',').map(|e| e.split('(').next().unwrap_or_default());
    let ours = entries.filter_map(|e| (e == "mig").then_some("1").or(e.strip_prefix("mig:")));
    // "7", "1g.10gb:7", or a type alone.
    let count = |rest: &str| rest.rsplit(':').find_map(|w| w.parse().ok()).unwrap_or(1);
    ours.map(count).fold(0, u32::saturating_add)
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_default()
}

fn wrong(at: &str, text: String) -> Difference {
    Difference { weight: Weight::Wrong, at: at.to_owned(), text }
}

fn advice(at: &str, text: String) -> Difference {
    Difference { weight: Weight::Advice, at: at.to_owned(), text }
}
