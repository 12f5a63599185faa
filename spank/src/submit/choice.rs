//! What an instance costs on the nodes that a job could go to, and what to say where that is not one number.

mod constraint;

use super::option;
use crate::slurm::Node;
use migshare_proto::hostlist;
use migshare_proto::message::Need;
use migshare_proto::prices::{NodePrices, of_node};
use migshare_proto::status::PriceStatus;
use std::collections::BTreeMap;

/// Nodes named in one text; more are counted.
const NAMED: usize = 4;

/// The nodes that a job could go to, those alike in price together.
pub(super) struct Choice<'a> {
    need: Need,
    /// By leaves for one instance; `None` where there is no such instance.
    groups: BTreeMap<Option<u32>, Vec<(&'a Node, &'a NodePrices)>>,
}

impl<'a> Choice<'a> {
    pub(super) fn new(need: Need, table: &'a [NodePrices], nodes: &'a [Node]) -> Choice<'a> {
        let mut groups: BTreeMap<Option<u32>, Vec<_>> = BTreeMap::new();
        for node in nodes {
            if let Some(prices) = of_node(table, &node.name) {
                let leaves = prices.price(need).map(|price| price.leaves);
                groups.entry(leaves).or_default().push((node, prices));
            }
        }
        Choice { need, groups }
    }

    /// The one price; `None` where nothing is known of the nodes. A refusal where there are several, or an instance of that
    /// size nowhere.
    pub(super) fn price(&self) -> Result<Option<PriceStatus>, String> {
        let mut groups = self.groups.iter();
        match (groups.next(), groups.next()) {
            (None, _) => Ok(None),
            (Some((None, _)), None) => Err(self.nowhere()),
            (Some((_, nodes)), None) => Ok(nodes.first().and_then(|(_, p)| p.price(self.need).cloned())),
            (Some(_), Some(_)) => Err(self.differs()),
        }
    }

    /// Leaves of the largest node.
    pub(super) fn most_leaves(&self) -> u32 {
        self.groups.values().flatten().map(|(node, _)| node.leaves).max().unwrap_or(0)
    }

    fn nowhere(&self) -> String {
        let prices = self.groups.values().flatten().flat_map(|(_, p)| &p.models).flat_map(|m| &m.prices);
        let largest = prices.max_by_key(|p| (p.slices, p.memory_mib));
        let most = largest.map_or_else(String::new, |p| {
            format!(": the largest is {} with {} slices and {} MiB", p.profile, p.slices, p.memory_mib)
        });
        format!(
            "--mig-share={}: no node that the job could go to has such an instance{most}",
            option(self.need)
        )
    }

    fn differs(&self) -> String {
        let mut costs: Vec<String> = self.groups.iter().map(|(leaves, nodes)| cost(*leaves, nodes)).collect();
        if self.groups.contains_key(&None) {
            costs.rotate_left(1);
        }
        let ways: Vec<String> = self.groups.keys().flatten().map(|leaves| self.way(*leaves)).collect();
        let same =
            self.same_everywhere().map(|same| format!("; or ask for what costs the same everywhere: {same}"));
        format!(
            "--mig-share={} costs {}: no one --gres=mig:N is right on all of them; let the job go to one kind only, {}{}",
            option(self.need),
            costs.join(", and "),
            ways.join(", or "),
            same.unwrap_or_default()
        )
    }

    /// How to choose the nodes of one price, and what to pay there.
    fn way(&self, leaves: u32) -> String {
        let inside = || self.groups.get(&Some(leaves)).into_iter().flatten().map(|(node, _)| *node);
        let others =
            || self.groups.iter().filter(|(l, _)| **l != Some(leaves)).flat_map(|(_, n)| n).map(|(n, _)| *n);
        let has = |node: &Node, feature: &String| node.features.contains(feature);
        let mut features = inside().next().into_iter().flat_map(|node| &node.features);
        let feature = features.find(|f| inside().all(|n| has(n, f)) && !others().any(|n| has(n, f)));
        let how = match feature {
            Some(feature) => format!("--constraint={feature}"),
            None if inside().count() == 1 => format!("-w {}", names(inside())),
            None => format!("-x {}", others().map(|n| n.name.as_str()).collect::<Vec<_>>().join(",")),
        };
        format!("{how} with --gres=mig:{leaves} for each instance")
    }

    /// The largest smaller need that costs the same on all nodes.
    fn same_everywhere(&self) -> Option<String> {
        let all = || self.groups.values().flatten().map(|(_, prices)| *prices);
        let offered = all().flat_map(|p| &p.models).flat_map(|m| &m.prices);
        let smaller: Vec<Need> = match self.need {
            Need::Slices(n) => (2..n).map(Need::Slices).collect(),
            Need::MemoryMib(n) => {
                let mut sizes: Vec<u64> = offered.map(|p| p.memory_mib).filter(|mib| *mib < n).collect();
                sizes.sort_unstable();
                sizes.into_iter().map(Need::MemoryMib).collect()
            }
        };
        let price = |prices: &NodePrices, need| prices.price(need).map(|p| p.leaves);
        smaller.into_iter().rev().find_map(|need| {
            let first = all().next().and_then(|prices| price(prices, need))?;
            let same = all().all(|prices| price(prices, need) == Some(first));
            same.then(|| format!("{} ({first} each)", option(need)))
        })
    }
}

/// What a group of nodes charges.
fn cost(leaves: Option<u32>, nodes: &[(&Node, &NodePrices)]) -> String {
    let mut models: Vec<&str> = nodes.iter().flat_map(|(_, p)| &p.models).map(|m| m.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let at = format!("on {} ({})", models.join(" and "), names(nodes.iter().map(|(node, _)| *node)));
    match leaves {
        Some(1) => format!("1 leaf {at}"),
        Some(n) => format!("{n} leaves {at}"),
        None => format!("cannot be had {at}"),
    }
}

fn names<'a>(nodes: impl Iterator<Item = &'a Node>) -> String {
    let all: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
    match all.len() {
        n if n > NAMED => format!("{} and {} more", all[..NAMED].join(","), n - NAMED),
        _ => all.join(","),
    }
}

/// Keeps the nodes that `--exclude`, `--nodelist` and `--constraint` leave.
pub(super) fn narrow(mut nodes: Vec<Node>, given: &dyn Fn(&str) -> Option<String>) -> Vec<Node> {
    if let Some(list) = given("exclude") {
        nodes.retain(|node| !hostlist::names(&list, &node.name));
    }
    if let Some(list) = given("nodelist") {
        let listed = nodes.iter().filter(|node| hostlist::names(&list, &node.name)).count();
        let wanted = given("nodes").and_then(|n| n.rsplit('-').next()?.parse::<usize>().ok()).unwrap_or(0);
        // With more nodes than are listed Slurm adds others to them.
        if listed >= wanted {
            nodes.retain(|node| hostlist::names(&list, &node.name));
        }
    }
    if let Some(wish) = given("constraint") {
        nodes.retain(|node| constraint::may_mean(&wish, &|name| node.features.iter().any(|f| f == name)));
    }
    nodes
}

#[cfg(test)]
mod tests;
