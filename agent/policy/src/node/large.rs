//! Requests for instances larger than a leaf: the price, the places, the limit, and what to say when there is none.

use super::Node;
use super::answer::Bid;
use super::refusal::{NAMED, leaves, refused};
use crate::books::Cordon;
use crate::charge::{Need, Price, price};
use crate::record::{Pick, Place, Record};
use migshare_proto::message::{Reason, Refused};

impl Node {
    /// Instances for a job that needs more than a leaf each.
    pub(super) fn pick_large(&self, now: i64, bid: &Bid, need: Need) -> Result<Vec<Pick>, Refused> {
        let price = self.price(need).ok_or_else(|| self.no_such_size(need))?;
        let count = bid.leaves / price.leaves;
        if !bid.leaves.is_multiple_of(price.leaves) {
            return Err(wrong_charge(bid.leaves, &price));
        }
        let picks = self.pick(count, Some(need), bid.direction);
        let picks = picks.ok_or_else(|| self.fragmented(count, need, &price))?;
        let changes = picks.iter().any(|pick| self.pending(pick));
        if changes && self.recent_changes(now, bid.job.uid) >= self.rules.reshaping.per_user as usize {
            return Err(self.too_often(bid.job.uid));
        }
        Ok(picks)
    }

    /// What an instance costs on this node: the dearest of its GPUs, as the same count must do wherever it lands.
    pub fn price(&self, need: Need) -> Option<Price> {
        let ours = self.sight.gpus.values().filter(|view| self.books.gpus.contains_key(&view.gpu.uuid));
        ours.filter_map(|view| price(&view.gpu, need)).max_by_key(|price| price.leaves)
    }

    /// The note that a lease makes the node change the shape of instances; it counts until the window is over.
    pub(super) fn reshape(&self, now: i64, bid: &Bid, picks: &[Pick]) -> Option<Record> {
        let larger = bid.leaves as usize > picks.len() && picks.iter().any(|pick| self.pending(pick));
        let until = now.saturating_add(self.rules.reshaping.window);
        larger.then_some(Record::Reshape { uid: bid.job.uid, at: now, until })
    }

    fn recent_changes(&self, now: i64, uid: u32) -> usize {
        self.books.reshapes.get(&uid).map_or(0, |ends| ends.iter().filter(|until| **until > now).count())
    }

    fn no_such_size(&self, need: Need) -> Refused {
        let views = self.sight.gpus.values().filter(|view| self.books.gpus.contains_key(&view.gpu.uuid));
        let largest = views.flat_map(|view| view.gpu.profiles.iter().filter(|p| p.plain));
        let largest = largest.max_by_key(|p| (p.slices, p.memory_mib));
        let most = largest.map_or_else(String::new, |p| {
            format!("; the largest here is {} with {} slices and {} MiB", p.name, p.slices, p.memory_mib)
        });
        refused(Reason::NoSuchSize, format!("no gpu of this node has an instance with {}{most}", words(need)))
    }

    fn too_often(&self, uid: u32) -> Refused {
        let super::Reshaping { per_user, window, .. } = self.rules.reshaping;
        let text = format!(
            "jobs of user {uid} changed the shape of instances {per_user} times within {window} s, which is the limit here: \
             ask for leaves without size= or mem=, or try again later"
        );
        refused(Reason::RateLimited, text)
    }

    /// Why no place is free for an instance of this size, although Slurm counts enough leaves.
    fn fragmented(&self, count: u32, need: Need, price: &Price) -> Refused {
        let free = self.free();
        let way = match free {
            0 => "wait for one of these jobs to end".to_owned(),
            n => format!(
                "ask for up to {} without size= or mem=, or wait for one of these jobs to end",
                leaves(n)
            ),
        };
        let what = if count == 1 { "1 instance".to_owned() } else { format!("{count} instances") };
        let text = format!(
            "{what} of {} ({} each) asked for, {} can be made now: {}; {way}",
            price.name,
            leaves(price.leaves),
            self.most_large(count, need),
            self.in_the_way(need)
        );
        Refused { requeue: self.rules.reshaping.requeue, ..refused(Reason::Fragmented, text) }
    }

    /// How many such instances can be had, fewer than asked for.
    fn most_large(&self, count: u32, need: Need) -> u32 {
        let fits = |n: &u32| self.pick(*n, Some(need), self.rules.direction).is_some();
        (1..count).rev().find(fits).unwrap_or(0)
    }

    /// What holds the places of such an instance.
    fn in_the_way(&self, need: Need) -> String {
        let views = self.sight.gpus.values().filter(|view| self.books.gpus.contains_key(&view.gpu.uuid));
        let places = views.flat_map(|view| {
            let profile = price(&view.gpu, need).and_then(|p| view.gpu.profile(p.profile));
            profile.into_iter().flat_map(|p| p.placements.iter().map(|&at| view.place(at)))
        });
        let mut held: Vec<String> = places.filter_map(|place| self.blocker(&place)).collect();
        let more = held.len().saturating_sub(NAMED);
        held.truncate(NAMED);
        if more > 0 {
            held.push(format!("{more} more places likewise"));
        }
        held.join(", ")
    }

    /// Who or what holds a part of this place, in words; `None` where it could be had.
    pub(super) fn blocker(&self, place: &Place) -> Option<String> {
        let name = format!("{} on {}", place.placement, self.gpu_name(&place.gpu));
        let holders = self
            .books
            .leases
            .iter()
            .filter(|(_, lease)| lease.leaves.iter().any(|pick| pick.leaf.place.overlaps(place)));
        let jobs: Vec<String> = holders.map(|(job, _)| job.to_string()).collect();
        if !jobs.is_empty() {
            return Some(format!("{name} is held by job {}", jobs.join(" and ")));
        }
        let Some(view) = self.sight.healthy(&place.gpu) else {
            return Some(format!("{} does not serve", self.gpu_name(&place.gpu)));
        };
        if let Some(Cordon { note, .. }) = self.books.cordons.get(&place.gpu) {
            return Some(format!("{} is cordoned: {note}", self.gpu_name(&place.gpu)));
        }
        let mut quarantines = self.books.quarantines_on(&place.gpu);
        if let Some((_, quarantine)) = quarantines.find(|(other, _)| other.overlaps(place)) {
            return Some(format!("{name} is quarantined: {}", quarantine.note));
        }
        let mut near = view.instances.iter().filter(|i| i.placement.overlaps(place.placement));
        near.any(|i| self.intruded(view, i)).then(|| format!("{name} is used by a process of no job"))
    }
}

fn words(need: Need) -> String {
    match need {
        Need::Slices(n) => format!("{n} slices"),
        Need::MemoryMib(mib) => format!("{mib} MiB"),
    }
}

fn wrong_charge(asked: u32, price: &Price) -> Refused {
    let Price { name, leaves: each, .. } = price;
    let (below, above) = (asked / each * each, asked.div_ceil(*each) * each);
    let way = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
    let text = format!(
        "an instance of {name} is charged {} here, and {asked} are no multiple of that: ask for --gres=mig:{way}",
        leaves(*each)
    );
    refused(Reason::WrongPrice, text)
}
