//! Which of a step's leaves each of its local tasks takes.

/// For each task the positions of its leaves. `gpus` names the GPU of each leaf, equal ones side by side.
///
/// Every task takes as many leaves as there are for each; what remains stays with the step unassigned. The leaves of as
/// many tasks as possible lie on one GPU each; such tasks come first. `None` where a task would have no leaf.
pub fn assign<G: PartialEq>(gpus: &[G], tasks: usize) -> Option<Vec<Vec<u32>>> {
    let each = gpus.len().checked_div(tasks).filter(|each| *each > 0)?;
    let mut whole: Vec<Vec<u32>> = Vec::with_capacity(tasks);
    let mut rest: Vec<u32> = Vec::new();
    let mut position = 0u32;
    for on_gpu in gpus.chunk_by(|a, b| a == b) {
        let positions: Vec<u32> = (position..).take(on_gpu.len()).collect();
        position += on_gpu.len() as u32;
        let chunks = positions.chunks_exact(each);
        rest.extend(chunks.remainder());
        whole.extend(chunks.map(<[u32]>::to_vec));
    }
    whole.extend(rest.chunks_exact(each).map(<[u32]>::to_vec));
    whole.truncate(tasks);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_many_leaves_as_tasks_gives_one_each() {
        assert_eq!(assign(&["a", "a", "b"], 3), Some(vec![vec![0], vec![1], vec![2]]));
    }

    #[test]
    fn the_leaves_of_a_task_lie_on_one_gpu_where_possible() {
        assert_eq!(
            assign(&["a", "a", "a", "b", "b", "b"], 3),
            Some(vec![vec![0, 1], vec![3, 4], vec![2, 5]])
        );
    }

    #[test]
    fn a_remainder_stays_unassigned() {
        assert_eq!(assign(&["a"; 5], 2), Some(vec![vec![0, 1], vec![2, 3]]));
    }

    #[test]
    fn more_tasks_than_leaves_and_no_task_are_no_assignment() {
        assert_eq!(assign(&["a"; 2], 3), None);
        assert_eq!(assign(&["a"; 2], 0), None);
    }

    proptest! {
        #[test]
        fn every_task_has_as_many_leaves_and_no_leaf_has_two_tasks(
            on in prop::collection::vec(1usize..8, 1..5), tasks in 1usize..20,
        ) {
            let gpus: Vec<usize> = on.iter().enumerate().flat_map(|(g, n)| std::iter::repeat_n(g, *n)).collect();
            let Some(assigned) = assign(&gpus, tasks) else {
                prop_assert!(tasks > gpus.len());
                return Ok(());
            };
            prop_assert_eq!(assigned.len(), tasks);
            let mut seen: Vec<u32> = assigned.concat();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), tasks * (gpus.len() / tasks));
            let each = gpus.len() / tasks;
            let possible: usize = on.iter().map(|n| n / each).sum();
            let whole = assigned.iter().filter(|t| t.iter().all(|p| gpus[*p as usize] == gpus[t[0] as usize]));
            prop_assert!(whole.count() >= possible.min(tasks));
        }
    }
}
