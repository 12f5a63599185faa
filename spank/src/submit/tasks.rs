//! How many tasks a node will have, from the command's options: as far as that is certain, or can be made certain without
//! asking for anything else than the user did.

use crate::slurm::Slurm;

/// Tasks per node, and options that make it so.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) per_node: u32,
    /// Options of the command to set, with their values.
    pub(super) pins: Vec<(&'static str, u32)>,
}

/// The plan, or what the user has to say beside.
pub(super) fn plan(slurm: &dyn Slurm) -> Result<Plan, String> {
    let number = |name: &str| match slurm.option(name) {
        Ok(text) => Ok(text.and_then(|t| t.parse::<u32>().ok()).filter(|n| *n > 0)),
        Err(e) => {
            Err(format!("this command does not tell a plugin its --{name} ({e}): give --gres=mig:N yourself"))
        }
    };
    if let Some(per_node) = number("ntasks-per-node")? {
        return Ok(Plan { per_node, pins: Vec::new() });
    }
    let tasks = number("ntasks")?.unwrap_or(1);
    let nodes = slurm.option("nodes").ok().flatten().unwrap_or_default();
    match fixed(&nodes) {
        // Where nothing is said of nodes, leaves for all tasks are asked of one node: on several each would be charged them.
        Some(1) => Ok(Plan { per_node: tasks, pins: vec![("nodes", 1)] }),
        // Slurm fills nodes unevenly unless it is told how many tasks each has.
        Some(nodes) if tasks.is_multiple_of(nodes) => {
            let per_node = tasks / nodes;
            Ok(Plan { per_node, pins: vec![("nodes", nodes), ("ntasks-per-node", per_node)] })
        }
        Some(nodes) => Err(format!(
            "{tasks} tasks do not lie evenly on {nodes} nodes, so the leaves of a node cannot be counted: give \
             --ntasks-per-node, or --gres=mig:N"
        )),
        None => Err(format!(
            "how many tasks a node of -N{nodes} has is not known: give one number of nodes, --ntasks-per-node, or --gres=mig:N"
        )),
    }
}

/// The one number of nodes. Slurm's own text for "not given", and for what `-w` implies, has a greatest number of 0.
fn fixed(nodes: &str) -> Option<u32> {
    let (least, most) = nodes.split_once('-').unwrap_or((nodes, nodes));
    if nodes.is_empty() {
        return Some(1);
    }
    let (least, most): (u32, u32) = (least.parse().ok()?, most.parse().ok()?);
    (most == 0 || least == most).then_some(least.max(1))
}

#[cfg(test)]
mod tests {
    use super::fixed;

    #[test]
    fn a_number_of_nodes_is_certain_or_it_is_not() {
        for (text, wanted) in
            [("", Some(1)), ("1-0", Some(1)), ("2", Some(2)), ("2-0", Some(2)), ("1-2", None), ("2:4", None)]
        {
            assert_eq!(fixed(text), wanted, "{text}");
        }
    }
}
