//! Which rank a process is among those of its step on this node: by the variables of whoever started it.
//!
//! The plugin numbers the tasks of a step. A task that is a launcher itself (`srun -n1 torchrun …`, mpirun in a batch script)
//! hands its own number, 0 of 1, down to all processes that it starts, so there the launcher's variables decide. Where a step
//! has more tasks than one on this node, the tasks are the ranks, and what was inherited from the shell that submitted the job
//! does not count.

use crate::error::{Error, Result};

/// This rank's number among the ranks of the step on this node.
const RANK_VARIABLE: &str = "MIGSHARE_RANK";
/// Number of ranks of the step on this node.
const SIZE_VARIABLE: &str = "MIGSHARE_SIZE";

/// Variables by which launchers number the processes that they start on a node: rank and size.
///
/// torchrun's LOCAL_RANK is 0 everywhere with `--virtual-local-rank`; RANK counts over all nodes, but those of one node are
/// consecutive, so the remainder numbers them. Sources: torchrun's documentation; mpirun(1) of Open MPI; MPICH's Hydra, which
/// Intel MPI uses, too.
const LAUNCHERS: [[&str; 2]; 3] = [
    ["RANK", "LOCAL_WORLD_SIZE"],
    ["OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"],
    ["MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
];

/// A rank of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) rank: usize,
    pub(super) size: usize,
}

/// The place of this process, by `get`, which looks a variable up.
///
/// # Errors
/// `Environment` names the variable that is missing or no number.
pub(super) fn place(get: impl Fn(&str) -> Option<String>) -> Result<Place> {
    let number = |name: &str| get(name).map(|text| parse(name, &text)).transpose();
    let (rank, size) = (number(RANK_VARIABLE)?, number(SIZE_VARIABLE)?);
    if size.is_none_or(|size| size == 1) {
        for [rank, size] in LAUNCHERS {
            if let (Some(rank), Some(size @ 1..)) = (number(rank)?, number(size)?) {
                return Ok(Place { rank: rank % size, size });
            }
        }
    }
    let missing = |name| {
        let text = format!(
            "{name} is not set and no launcher is known: start the ranks by srun --mig-share=N, torchrun or mpirun, \
             or set {RANK_VARIABLE} and {SIZE_VARIABLE}"
        );
        Error::Environment(text)
    };
    let rank = rank.ok_or_else(|| missing(RANK_VARIABLE))?;
    let size = size.ok_or_else(|| missing(SIZE_VARIABLE))?;
    Ok(Place { rank, size })
}

fn parse(name: &str, text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::Environment(format!("{name}={text} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(variables: &[(&str, &str)]) -> std::result::Result<(usize, usize), String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
        place(get).map(|place| (place.rank, place.size)).map_err(|error| error.to_string())
    }

    const TASK: [(&str, &str); 2] = [("MIGSHARE_RANK", "1"), ("MIGSHARE_SIZE", "2")];
    const ONLY_TASK: [(&str, &str); 2] = [("MIGSHARE_RANK", "0"), ("MIGSHARE_SIZE", "1")];

    #[test]
    fn tasks_of_a_step_are_its_ranks() {
        assert_eq!(place_of(&TASK), Ok((1, 2)));
        assert_eq!(place_of(&ONLY_TASK), Ok((0, 1)));
    }

    #[test]
    fn what_a_single_task_launched_is_numbered_by_the_launcher() {
        let mpirun = [("OMPI_COMM_WORLD_LOCAL_RANK", "3"), ("OMPI_COMM_WORLD_LOCAL_SIZE", "4")];
        assert_eq!(place_of(&[&ONLY_TASK[..], &mpirun].concat()), Ok((3, 4)));
        assert_eq!(place_of(&mpirun), Ok((3, 4)), "no task at all");
        let hydra = [("MPI_LOCALRANKID", "1"), ("MPI_LOCALNRANKS", "2")];
        assert_eq!(place_of(&[&ONLY_TASK[..], &hydra].concat()), Ok((1, 2)));
        let second_node = [("RANK", "5"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "4")];
        assert_eq!(place_of(&[&ONLY_TASK[..], &second_node].concat()), Ok((1, 4)), "a virtual local rank");
    }

    #[test]
    fn what_was_inherited_from_the_submitting_shell_does_not_count_among_tasks() {
        let stale = [("RANK", "7"), ("LOCAL_WORLD_SIZE", "8")];
        assert_eq!(place_of(&[&TASK[..], &stale].concat()), Ok((1, 2)));
    }

    #[test]
    fn a_rank_without_a_number_says_what_to_do() {
        let said = place_of(&[]).unwrap_err();
        assert!(said.contains("MIGSHARE_RANK is not set") && said.contains("torchrun"), "{said}");
        let said = place_of(&[("MIGSHARE_RANK", "0")]).unwrap_err();
        assert!(said.contains("MIGSHARE_SIZE is not set"), "{said}");
        let said = place_of(&[("RANK", "x"), ("LOCAL_WORLD_SIZE", "2")]).unwrap_err();
        assert!(said.contains("RANK=x is not a number"), "{said}");
        assert!(place_of(&[("RANK", "1"), ("LOCAL_WORLD_SIZE", "0")]).is_err());
    }
}
