//! What must be true of the books at any time, checked one by one. For tests, and for the daemon's own doubts.

use super::Node;
use crate::books::{Books, Lease};
use crate::record::{Grant, Place};
use migshare_proto::JobKey;

impl Node {
    /// The first invariant that does not hold, in words.
    pub fn invariants(&self) -> Result<(), String> {
        if let Some(defect) = &self.defect {
            return Err(defect.clone());
        }
        disjoint("instances", self.books.stands.keys())?;
        disjoint("leases", self.books.leases.values().flat_map(|l| l.leaves.iter().map(|p| &p.leaf.place)))?;
        generations(&self.books)?;
        self.books.leases.iter().try_for_each(|(job, lease)| lease_is_sound(*job, lease))?;
        if self.usable() > self.counted() {
            return Err(format!("{} of {} leaves usable", self.usable(), self.counted()));
        }
        Ok(())
    }
}

fn disjoint<'a>(what: &str, places: impl Iterator<Item = &'a Place>) -> Result<(), String> {
    let places: Vec<&Place> = places.collect();
    for (i, a) in places.iter().enumerate() {
        if let Some(b) = places[..i].iter().find(|b| a.overlaps(b)) {
            return Err(format!("{what} overlap: {a} and {b}"));
        }
    }
    Ok(())
}

fn generations(books: &Books) -> Result<(), String> {
    let newest = |place: &Place| books.generations.get(place).copied().unwrap_or(0);
    let wrong = books.stands.iter().find(|(place, stand)| newest(place) != stand.generation);
    wrong.map_or(Ok(()), |(place, _)| Err(format!("{place} is not of the newest generation")))
}

fn lease_is_sound(job: JobKey, lease: &Lease) -> Result<(), String> {
    if lease.leaves.is_empty() || lease.charged < lease.leaves.len() as u32 {
        return Err(format!("job {job} holds {} for {}", lease.leaves.len(), lease.charged));
    }
    lease.grants.iter().try_for_each(|(step, grant)| {
        grant_is_sound(lease, grant).map_err(|what| format!("grant of step {job}.{step}: {what}"))
    })
}

fn grant_is_sound(lease: &Lease, grant: &Grant) -> Result<(), String> {
    let mut leaves = grant.leaves.clone();
    leaves.sort_unstable();
    leaves.dedup();
    if leaves.len() != grant.leaves.len() {
        return Err("a leaf is given twice".to_owned());
    }
    if let Some(leaf) = leaves.iter().find(|leaf| lease.leaves.iter().all(|p| p.leaf != **leaf)) {
        return Err(format!("{leaf} is beyond the lease"));
    }
    let mut positions = grant.tasks.concat();
    positions.sort_unstable();
    positions.dedup();
    let in_range = positions.iter().all(|&p| (p as usize) < leaves.len());
    if !in_range || positions.len() != grant.tasks.iter().map(Vec::len).sum::<usize>() {
        return Err("tasks share a leaf or have none of the step's".to_owned());
    }
    Ok(())
}
