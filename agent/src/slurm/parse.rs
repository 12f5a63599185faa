//! The words of scontrol and squeue. Reads what 22.05 to 25.11 print; what it cannot read is no answer rather than a guess.

use super::REASON_PREFIX;
use migshare_policy::node::Run;
use std::collections::BTreeMap;

/// A node's state in Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Base state and flags, for example `["IDLE", "DRAIN"]`.
    pub flags: Vec<String>,
    /// Why it is drained or down; empty where it is not.
    pub reason: String,
}

impl NodeState {
    /// Whether the node is taken out of scheduling.
    pub fn is_drained(&self) -> bool {
        self.flags.iter().any(|f| f == "DRAIN")
    }

    /// Whether migshare drained it.
    pub fn is_drained_by_us(&self) -> bool {
        self.is_drained() && self.reason.starts_with(REASON_PREFIX)
    }
}

/// The state in the text of `scontrol show node`.
pub(super) fn node_state(text: &str) -> Option<NodeState> {
    let state = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("State="))?;
    let flags = state
        .split('+')
        .map(|f| f.trim_end_matches(['*', '~', '#', '!', '%', '$', '@', '^', '-']).to_owned());
    let reason = text.lines().find_map(|line| line.trim().strip_prefix("Reason=")).unwrap_or_default();
    // Who and when follow the reason: `reason [root@2025-11-02T12:00:00]`.
    let reason = reason.rfind(" [").map_or(reason, |end| &reason[..end]);
    Some(NodeState { flags: flags.collect(), reason: reason.to_owned() })
}

/// The lines `Key = value` of `scontrol show config`.
pub(super) fn config(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

/// The jobs in squeue's lines of id and start. None if any line is anything else: a job that was read over would lose its leaves.
pub(super) fn runs(text: &str) -> Option<Vec<Run>> {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(run).collect()
}

fn run(line: &str) -> Option<Run> {
    let (job, start) = line.split_once(' ').unwrap_or((line, ""));
    Some(Run { job: job.parse().ok()?, start: start.trim().parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "NodeName=n1 Arch=x86_64 CoresPerSocket=8 \n   CPUAlloc=0 CPUTot=8 CPULoad=0.20\n   \
        Gres=mig:7\n   State=IDLE+DRAIN+NOT_RESPONDING ThreadsPerCore=1 TmpDisk=0 Weight=1\n   \
        Reason=migshare: gpu 1 is lost [root@1762084800]\n";

    #[test]
    fn a_drained_node_is_read_with_its_reason() {
        let state = node_state(NODE).unwrap();
        assert!(state.is_drained_by_us());
        assert_eq!(state.reason, "migshare: gpu 1 is lost");
        assert_eq!(state.flags, ["IDLE", "DRAIN", "NOT_RESPONDING"]);
    }

    #[test]
    fn a_drain_by_an_admin_is_not_ours() {
        let state = node_state(&NODE.replace("migshare: gpu 1 is lost", "new fan [ordered]")).unwrap();
        assert!(state.is_drained() && !state.is_drained_by_us());
        assert_eq!(state.reason, "new fan [ordered]");
    }

    #[test]
    fn a_working_node_has_no_reason() {
        let state = node_state("NodeName=n1\n   State=IDLE* Cores=1\n").unwrap();
        assert_eq!(state, NodeState { flags: vec!["IDLE".to_owned()], reason: String::new() });
        assert_eq!(node_state("slurm_load_node error"), None);
    }

    #[test]
    fn a_configuration_is_read_by_key() {
        let text = "Configuration data as of 2025-01-01\nTaskPlugin              = task/affinity,task/cgroup\n\n\
                    Cgroup Support Configuration:\nConstrainDevices        = yes\n";
        let config = config(text);
        assert_eq!(config["TaskPlugin"], "task/affinity,task/cgroup");
        assert_eq!(config["ConstrainDevices"], "yes");
        assert_eq!(config.len(), 2);
    }

    #[test]
    fn a_list_of_jobs_with_a_strange_line_is_no_list() {
        let expected = vec![Run { job: 7, start: Some(1_762_084_800) }, Run { job: 9, start: None }];
        assert_eq!(runs("7 1762084800\n9 N/A\n"), Some(expected));
        assert_eq!(runs("7 1762084800\nslurm_load_jobs error\n"), None);
        assert_eq!(runs(""), Some(vec![]));
    }
}
