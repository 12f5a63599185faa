//! How many instances each GPU gives: dynamic programming over the GPUs, exact for additive costs.
//!
//! A state after some GPUs is (GPUs used, instances taken, whether the current NUMA node is used). Both directions fix
//! the number of GPUs beforehand, which leaves only few states that can still reach the goal.

use super::offer::{Cost, Offers};

/// What a distribution costs, less is better, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Total {
    /// NUMA nodes used (pack), or sum of squared counts (spread: least is most even).
    shape: u32,
    cost: Cost,
}

/// How many each GPU gives so that the fewest GPUs, then the fewest NUMA nodes, are used.
pub(super) fn pack(offers: &[&Offers], count: usize) -> Option<Vec<usize>> {
    let mut most: Vec<usize> = offers.iter().map(|offers| offers.most()).collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    let used = fewest(&most, count)?;
    let numa = |i: usize| offers[i].numa;
    let mut order: Vec<usize> = (0..offers.len()).collect();
    order.sort_by_key(|&i| (numa(i), i));
    // A GPU whose NUMA node is unknown is a node of its own.
    let new_node = |at: usize| at == 0 || numa(order[at]).is_none() || numa(order[at]) != numa(order[at - 1]);
    let starts: Vec<bool> = (0..order.len()).map(new_node).collect();
    let problem = Problem { offers, order: &order, starts: &starts, used, count, even: false };
    problem.solve()
}

/// How many each GPU gives so that the most GPUs are used, as evenly as possible.
pub(super) fn spread(offers: &[&Offers], count: usize) -> Option<Vec<usize>> {
    let able = offers.iter().filter(|o| o.most() > 0).count();
    let order: Vec<usize> = (0..offers.len()).collect();
    let starts = vec![false; offers.len()];
    let used = able.min(count);
    Problem { offers, order: &order, starts: &starts, used, count, even: true }.solve()
}

/// The smallest number of GPUs that have `count` places, given their numbers in descending order.
fn fewest(most: &[usize], count: usize) -> Option<usize> {
    let mut have = 0;
    if count == 0 {
        return Some(0);
    }
    most.iter()
        .position(|n| {
            have += n;
            have >= count
        })
        .map(|last| last + 1)
}

struct Problem<'a> {
    offers: &'a [&'a Offers],
    /// GPUs in the order in which they are looked at.
    order: &'a [usize],
    /// Whether a new NUMA node starts at this position of `order`.
    starts: &'a [bool],
    /// Exactly so many GPUs give something.
    used: usize,
    /// Instances wanted.
    count: usize,
    /// Whether evenness counts instead of NUMA nodes.
    even: bool,
}

impl Problem<'_> {
    fn solve(&self) -> Option<Vec<usize>> {
        let states = (self.used + 1) * (self.count + 1) * 2;
        let rests = self.rests();
        let mut now: Vec<Option<Total>> = vec![None; states];
        let mut next = now.clone();
        now[0] = Some(Total::default());
        // How each state was reached, GPU after GPU; what was never reached is never read.
        let mut steps = vec![Step::default(); states * self.order.len()];
        for (at, steps) in steps.chunks_exact_mut(states).enumerate() {
            next.fill(None);
            self.layer(at, rests.of_last(self.order.len() - at - 1), &now, (&mut next, steps));
            std::mem::swap(&mut now, &mut next);
        }
        let goals = [self.state(self.used, self.count, false), self.state(self.used, self.count, true)];
        let goal = goals.into_iter().filter(|&g| now[g].is_some()).min_by_key(|&g| now[g])?;
        Some(self.walk_back(goal, &steps, states))
    }

    fn state(&self, used: usize, taken: usize, node: bool) -> usize {
        (used * (self.count + 1) + taken) * 2 + usize::from(node)
    }

    /// The best totals after one more GPU, and how each was reached.
    fn layer(
        &self,
        at: usize,
        rest: &[usize],
        now: &[Option<Total>],
        (next, steps): (&mut [Option<Total>], &mut [Step]),
    ) {
        // Of equal totals the first is kept: earlier GPUs come first. No more GPUs are used than were looked at.
        for used in (0..=self.used.min(at)).rev() {
            for taken in (0..=self.count).rev() {
                for node in [false, true] {
                    let state = self.state(used, taken, node);
                    let Some(total) = now[state] else { continue };
                    let here = Here { used, taken, node: node && !self.starts[at], total };
                    self.extend(at, here, rest, &mut |to, better, give| {
                        if next[to].is_none_or(|best| better < best) {
                            next[to] = Some(better);
                            steps[to] = Step { state: state as u32, give: give as u32 };
                        }
                    });
                }
            }
        }
    }

    /// Offers every number of instances that GPU `at` can give and from which the goal can still be reached.
    fn extend(&self, at: usize, here: Here, rest: &[usize], reach: &mut impl FnMut(usize, Total, usize)) {
        let offers = self.offers[self.order[at]].best.iter().take(self.count - here.taken + 1);
        for (give, offer) in offers.enumerate() {
            let (used, taken) = (here.used + usize::from(give > 0), here.taken + give);
            let Some(offer) = offer else { continue };
            let Some(open) = self.used.checked_sub(used) else { continue };
            let Some(&most) = rest.get(open) else { continue };
            // Each of the GPUs that are still to be used gives one instance at least.
            if taken + open > self.count || taken + most < self.count {
                continue;
            }
            let shape = match (give, self.even) {
                (0, _) => 0,
                (_, true) => (give * give) as u32,
                (_, false) => u32::from(!here.node),
            };
            let total = Total { shape: here.total.shape + shape, cost: here.total.cost.plus(offer.cost) };
            reach(self.state(used, taken, here.node || give > 0), total, give);
        }
    }

    /// For the GPUs from each position on, position n: the most that exactly n of them can give together; as long as there are
    /// such GPUs.
    fn rests(&self) -> Rests {
        let gpus = self.order.len();
        let mut rests = Rests {
            sums: Vec::with_capacity((gpus + 1) * (gpus + 2) / 2),
            ends: Vec::with_capacity(gpus + 1),
        };
        let mut most: Vec<usize> = Vec::with_capacity(gpus);
        rests.push(&most);
        for &gpu in self.order.iter().rev() {
            let n = self.offers[gpu].most();
            if n > 0 {
                most.insert(most.partition_point(|other| *other >= n), n);
            }
            rests.push(&most);
        }
        rests
    }

    fn walk_back(&self, goal: usize, steps: &[Step], states: usize) -> Vec<usize> {
        let mut counts = vec![0; self.offers.len()];
        let mut state = goal;
        for (at, steps) in steps.chunks_exact(states).enumerate().rev() {
            let step = steps[state];
            counts[self.order[at]] = step.give as usize;
            state = step.state as usize;
        }
        counts
    }
}

/// Sums of the largest numbers of the last GPUs: none of them, the last, the last two, …
struct Rests {
    sums: Vec<usize>,
    /// Where each begins to be another's.
    ends: Vec<usize>,
}

impl Rests {
    /// The sums of these numbers, which descend.
    fn push(&mut self, most: &[usize]) {
        let mut sum = 0;
        self.sums.push(sum);
        for n in most {
            sum += n;
            self.sums.push(sum);
        }
        self.ends.push(self.sums.len());
    }

    fn of_last(&self, gpus: usize) -> &[usize] {
        let begin = gpus.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sums[begin..self.ends[gpus]]
    }
}

/// How a state was reached: from which one, and what the GPU gave.
#[derive(Clone, Copy, Default)]
struct Step {
    state: u32,
    give: u32,
}

#[derive(Clone, Copy)]
struct Here {
    used: usize,
    taken: usize,
    node: bool,
    total: Total,
}
