//! srun, sbatch and salloc with `size=` or `mem=`: what such an instance costs on the nodes that the job could go to, and how
//! many leaves its tasks need.
//!
//! Prices are those of the table that `prices=` in plugstack.conf names; which nodes there are, slurmctld says. It is asked for
//! nothing where no size is asked for. A price that differs between nodes cannot be paid by one `--gres`, so such a request is
//! refused here, before it is queued. What is not known (no table, a node that is not in it) refuses nothing by itself: the
//! agent judges in the end.

mod choice;
mod tasks;

use crate::gres::{self, Asked};
use crate::slurm::{Level, Node, Partition, Slurm};
use choice::Choice;
use migshare_proto::message::Need;
use migshare_proto::prices::{self, NodePrices};
use migshare_proto::status::PriceStatus;
use std::path::Path;

/// Checks the price of a request for larger instances, and asks for the leaves where the user did not.
///
/// `leaves` is what `--gres` or the count in the option asks for, per node.
pub fn large(table: Option<&Path>, need: Need, leaves: Option<u32>, slurm: &dyn Slurm) -> Result<(), String> {
    let table = match read(table) {
        Ok(table) => table,
        Err(why) if leaves.is_some() => {
            slurm.say(Level::Debug, &format!("the price of {} is not checked: {why}", option(need)));
            return Ok(());
        }
        Err(why) => return Err(no_price(need, &why)),
    };
    let nodes = candidates(leaves.unwrap_or(1), slurm);
    let choice = Choice::new(need, &table, &nodes);
    match (choice.price()?, leaves) {
        (Some(price), Some(leaves)) => check(need, &price, leaves),
        (Some(price), None) => pay(need, &price, choice.most_leaves(), slurm),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(no_price(need, "no node that the job could go to is in the price table")),
    }
}

/// The table, or why there is none.
fn read(path: Option<&Path>) -> Result<Vec<NodePrices>, String> {
    let path = path.ok_or("plugstack.conf names no price table (prices=FILE)")?;
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    prices::parse(&text).map_err(|e| format!("{} {e}", path.display()))
}

fn no_price(need: Need, why: &str) -> String {
    format!(
        "--mig-share={} needs to know what such an instance costs, and {why}: give the number of leaves yourself with \
         --gres=mig:N (prices: `migshare status` on a node)",
        option(need)
    )
}

/// Whether leaves pay for whole instances.
fn check(need: Need, price: &PriceStatus, leaves: u32) -> Result<(), String> {
    let each = price.leaves.max(1);
    if leaves.is_multiple_of(each) {
        return Ok(());
    }
    let (below, above) = (leaves / each * each, leaves.div_ceil(each) * each);
    let way = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
    Err(format!(
        "--mig-share={} gets instances of {}, each of which is charged {each} leaves, and {leaves} are no multiple of that: \
         ask for --gres=mig:{way}",
        option(need),
        price.profile
    ))
}

/// Asks Slurm for the leaves that the tasks of one node need.
fn pay(need: Need, price: &PriceStatus, most: u32, slurm: &dyn Slurm) -> Result<(), String> {
    let plan = tasks::plan(slurm).map_err(|why| format!("--mig-share={}: {why}", option(need)))?;
    let leaves = plan.per_node.saturating_mul(price.leaves);
    if leaves > most {
        return Err(format!(
            "{} tasks on a node need {leaves} leaves for instances of {} ({} each), and no node that the job could go to has \
             more than {most}: spread them with -N and --ntasks-per-node",
            plan.per_node, price.profile, price.leaves
        ));
    }
    for (name, value) in plan.pins {
        slurm.set_option(name, &value.to_string()).map_err(|e| e.to_string())?;
    }
    let gres = slurm.option("gres").map_err(|e| e.to_string())?;
    slurm.set_option("gres", &gres::with_leaves(gres.as_deref(), leaves)).map_err(|e| e.to_string())
}

/// The nodes that the job could go to, as far as options say. A node with fewer leaves than asked for is none of them.
fn candidates(leaves: u32, slurm: &dyn Slurm) -> Vec<Node> {
    let mut nodes = slurm.nodes().unwrap_or_else(|e| {
        slurm.say(Level::Debug, &format!("the nodes of the cluster are not known: {e}"));
        Vec::new()
    });
    nodes.retain(|node| node.leaves >= leaves);
    let given = |name: &str| slurm.option(name).ok().flatten();
    if let Some(hosts) = partition_hosts(given("partition").as_deref(), slurm) {
        nodes.retain(|node| migshare_proto::hostlist::names(&hosts, &node.name));
    }
    choice::narrow(nodes, &given)
}

/// Hosts of the partitions that were asked for, or of the default one.
fn partition_hosts(asked: Option<&str>, slurm: &dyn Slurm) -> Option<String> {
    let partitions = slurm.partitions().ok()?;
    let meant = |p: &&Partition| asked.map_or(p.default, |names| names.split(',').any(|n| n == p.name));
    let hosts: Vec<&str> = partitions.iter().filter(meant).map(|p| p.nodes.as_str()).collect();
    (!hosts.is_empty()).then(|| hosts.join(","))
}

/// The need as the option has it.
fn option(need: Need) -> String {
    match need {
        Need::Slices(n) => format!("size={n}g"),
        Need::MemoryMib(mib) => format!("mem={}", migshare_proto::size::show(mib << 20)),
    }
}

/// Leaves that a value of `--gres` asks for.
pub fn leaves_in(gres: Option<&str>) -> Option<u32> {
    match gres::asked(gres.unwrap_or_default()) {
        Asked::Leaves(n) => Some(n),
        Asked::Nothing | Asked::NoGres => None,
    }
}
