//! A network for NCCL that cannot reach all nodes of a step is refused before a task starts: NCCL itself would find out when the
//! program has loaded its model.
//!
//! Only what was in the environment of `srun` is seen here. What a task sets itself, the network's plugin refuses at `init`.

/// NCCL's own variable, compared without regard to case as NCCL does (`ncclNetInit` in its src/plugin/net.cc).
const NETWORK: &str = "NCCL_NET";
/// The name of the network that `libnccl-net-migshare.so` is.
const OURS: &str = "migshare";
/// Slurm's number of nodes of the step, set by srun.
const NODES: &str = "SLURM_STEP_NUM_NODES";

/// Why the tasks of this step should not start, by its environment.
pub(super) fn refusal(get: impl Fn(&str) -> Option<String>) -> Option<String> {
    get(NETWORK).filter(|name| name.eq_ignore_ascii_case(OURS))?;
    let nodes: u32 = get(NODES)?.parse().ok().filter(|nodes| *nodes > 1)?;
    Some(format!(
        "{NETWORK}={OURS} carries data within one node, and this step has {nodes} nodes: unset {NETWORK}, so that NCCL takes a \
         network that reaches them all, or run the step on one node (-N1)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(network: &str, nodes: &str) -> Option<String> {
        refusal(|name| match name {
            NETWORK => Some(network.to_owned()),
            NODES => Some(nodes.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn only_our_network_on_several_nodes_is_refused() {
        assert!(said("migshare", "2").is_some_and(|text| text.contains("2 nodes") && text.contains("-N1")));
        assert!(said("MigShare", "3").is_some());
        for (network, nodes) in [("migshare", "1"), ("Socket", "2"), ("", "2"), ("migshare", "many")] {
            assert_eq!(said(network, nodes), None, "{network} {nodes}");
        }
        assert_eq!(refusal(|_| None), None);
    }
}
