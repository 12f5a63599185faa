//! What a cluster is to look like.

/// A cluster to be: alike nodes `n1`, `n2`, ….
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// Number of nodes.
    pub nodes: u16,
    /// GPUs per node.
    pub gpus: u32,
    /// Models of the GPUs, as the simulated NVML names them: of the first node, the second, and so on; of all, where there
    /// is one. Each is a feature of its nodes, too.
    pub models: &'static [&'static str],
    /// Layout that the agents cut idle GPUs to.
    pub layout: &'static str,
    /// What becomes of a job for whose larger instances no place is free.
    pub no_place: &'static str,
    /// Whether Slurm tracks processes by cgroup and makes an extern step for each job.
    pub contain: bool,
    /// Whether Slurm runs `migshare health` on every node.
    pub health_check: bool,
}

impl Site {
    /// One node with two H100: fourteen leaves.
    pub const ONE_NODE: Site = Site {
        nodes: 1,
        gpus: 2,
        models: &["h100-sxm-80"],
        layout: "uniform",
        no_place: "fail",
        contain: false,
        health_check: false,
    };

    /// Two nodes with two H100 each: fourteen leaves on either.
    pub const TWO_NODES: Site = Site { nodes: 2, ..Site::ONE_NODE };

    /// Model of the GPUs of the n-th node, from 0.
    pub fn model(&self, node: usize) -> &'static str {
        self.models[node % self.models.len()]
    }

    /// Names of the nodes, in order.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|i| format!("n{i}")).collect()
    }
}
