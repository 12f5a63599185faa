//! The price table of a cluster: what an instance larger than a leaf costs in leaves, node by node. Submit hosts read it, so
//! that a request whose price differs between nodes is refused before it is queued.
//!
//! ```text
//! # a comment
//! {"node":"n[1-8]","leaves":14,"models":[{"model":"NVIDIA H100 80GB HBM3","prices":[{"profile":"1g.10gb",…}]}]}
//! ```
//!
//! One line of JSON per node or list of alike nodes, as `migshare-gres render` prints it: lines of several nodes in one file
//! are the table of all of them. The truth is each node's agent; `migshare-gres check` compares.

use crate::hostlist;
use crate::message::Need;
use crate::status::{PriceStatus, Status};
use serde::{Deserialize, Serialize};

/// One line: a node, or alike nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePrices {
    /// Slurm's name of the node, or a host list.
    pub node: String,
    /// Leaves that Slurm counts on each.
    pub leaves: u32,
    /// The models of GPU that hold leaves.
    pub models: Vec<ModelPrices>,
}

/// What instances cost on one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPrices {
    /// Product name.
    pub model: String,
    /// Every plain profile, the cheapest first.
    pub prices: Vec<PriceStatus>,
}

/// A line that is no line of a price table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct BadLine {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: String,
}

/// Reads a table.
pub fn parse(text: &str) -> Result<Vec<NodePrices>, BadLine> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    lines
        .map(|(line, text)| serde_json::from_str(text).map_err(|e| BadLine { line, cause: e.to_string() }))
        .collect()
}

/// The line for a node; the last one counts where several name it.
pub fn of_node<'a>(table: &'a [NodePrices], node: &str) -> Option<&'a NodePrices> {
    table.iter().rev().find(|line| hostlist::names(&line.node, node))
}

impl NodePrices {
    /// What an instance costs on these nodes: the dearest of their models, as the agent charges it. `None` where no model has one.
    pub fn price(&self, need: Need) -> Option<&PriceStatus> {
        self.models.iter().filter_map(|model| model.price(need)).max_by_key(|price| price.leaves)
    }
}

impl ModelPrices {
    /// The cheapest profile that is large enough.
    pub fn price(&self, need: Need) -> Option<&PriceStatus> {
        self.prices.iter().find(|price| match need {
            Need::Slices(slices) => price.slices >= slices,
            Need::MemoryMib(mib) => price.memory_mib >= mib,
        })
    }
}

impl From<&Status> for NodePrices {
    fn from(status: &Status) -> NodePrices {
        let mut models: Vec<ModelPrices> = Vec::new();
        for gpu in status.gpus.iter().filter(|gpu| gpu.is_in_mig_mode()) {
            if !models.iter().any(|known| known.model == gpu.model && known.prices == gpu.prices) {
                models.push(ModelPrices { model: gpu.model.clone(), prices: gpu.prices.clone() });
            }
        }
        NodePrices { node: status.node.clone(), leaves: status.counted, models }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
# two kinds
{"node":"n[1-2]","leaves":14,"models":[{"model":"H100","prices":[{"profile":"1g.10gb","slices":1,"memory_mib":9984,"leaves":1},{"profile":"3g.40gb","slices":3,"memory_mib":40448,"leaves":4}]}]}
  {"node":"n2","leaves":7,"models":[{"model":"H200","prices":[{"profile":"1g.35gb","slices":1,"memory_mib":33024,"leaves":2}]}]}
"#;

    #[test]
    fn the_last_line_that_names_a_node_counts() {
        let table = parse(TABLE).unwrap();
        let leaves = |node: &str| of_node(&table, node).map(|line| line.leaves);
        assert_eq!((leaves("n1"), leaves("n2"), leaves("n3")), (Some(14), Some(7), None));
    }

    #[test]
    fn a_need_is_met_by_the_cheapest_profile_and_a_node_charges_its_dearest_model() {
        let mut table = parse(TABLE).unwrap();
        let models: Vec<ModelPrices> = table.iter_mut().flat_map(|line| line.models.drain(..)).collect();
        let both = NodePrices { node: "n".to_owned(), leaves: 14, models };
        assert_eq!(both.price(Need::MemoryMib(30_000)).map(|p| p.leaves), Some(4));
        assert_eq!(both.price(Need::Slices(1)).map(|p| p.leaves), Some(2));
        assert_eq!(both.price(Need::Slices(4)), None);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let bad = |text: &str| parse(text).unwrap_err().line;
        assert_eq!(bad("# x\n\n{}\n"), 3);
        assert_eq!(bad("node=n1"), 1);
        assert_eq!(parse(""), Ok(vec![]));
    }
}
