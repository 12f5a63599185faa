//! Rooted collectives whose source tries both ways of its data, again and again: each result is that of the call before it.

use migshare_collectives::Comm;
use migshare_collectives::comm::Collective;
use migshare_collectives::datatype::DataType;

use crate::launch::Launch;

/// Enough for all trials at the beginning, and for some later ones.
const ROUNDS: u64 = 140;
/// Of u64: above what goes through the board, below and above the streaming stores.
const COUNTS: [usize; 2] = [3001, 150_001];

/// What `rank` sends in a round: no two are alike.
fn word(round: u64, rank: usize, i: usize) -> u64 {
    (round << 40) + ((rank as u64) << 32) + i as u64
}

fn fill(to: &mut [u64], round: u64, rank: usize) {
    for (i, word_) in to.iter_mut().enumerate() {
        *word_ = word(round, rank, i);
    }
}

fn is_filled(from: &[u64], round: u64, rank: usize, first: usize) -> bool {
    from.iter().enumerate().all(|(i, found)| *found == word(round, rank, first + i))
}

fn run(comm: &mut Comm, collective: &Collective) {
    // SAFETY: the callers size the buffers as `Collective` says.
    unsafe { comm.run(collective) }.unwrap();
}

/// All three with `root`, whose sources are written anew.
fn round(comm: &mut Comm, buffers: (&mut [u64], &mut [u64]), (round, count): (u64, usize)) {
    let (one, all) = buffers;
    let (rank, size) = (comm.rank(), comm.size());
    let root = round as usize / 20 % size;
    fill(one, round, rank);
    comm.broadcast(one, root).unwrap();
    assert!(is_filled(one, round, root, 0), "broadcast {count} in round {round}");
    fill(one, round, rank);
    let gather = Collective::gather(one.as_ptr().cast(), all.as_mut_ptr().cast(), count, DataType::U64, root);
    run(comm, &gather);
    let right = |(from, block): (usize, &[u64])| is_filled(block, round, from, 0);
    assert!(rank != root || all.chunks(count).enumerate().all(right), "gather {count} in round {round}");
    fill(all, round, rank);
    let scatter =
        Collective::scatter(all.as_ptr().cast(), one.as_mut_ptr().cast(), count, DataType::U64, root);
    run(comm, &scatter);
    assert!(is_filled(one, round, root, rank * count), "scatter {count} in round {round}");
}

fn rounds(mut comm: Comm, rounds: u64) {
    for count in COUNTS {
        let (mut one, mut all) = (vec![0; count], vec![0; count * comm.size()]);
        for number in 0..rounds {
            round(&mut comm, (&mut one, &mut all), (number, count));
        }
    }
}

#[test]
fn two_ranks_always_get_the_newest_data() {
    Launch::new(2).run(|comm| rounds(comm, ROUNDS));
}

#[test]
fn more_ranks_than_cores_always_get_the_newest_data() {
    Launch::new(3).run(|comm| rounds(comm, 25));
}

#[test]
fn a_source_inside_the_segment_is_read_where_it_lies() {
    Launch::new(2).run(|mut comm| {
        for count in COUNTS {
            let (one, all) = (comm.allocate(count * 8).unwrap(), comm.allocate(count * 16).unwrap());
            // SAFETY: the buffers hold so many elements, and nobody else has them.
            let (one, all) = unsafe {
                let one = std::slice::from_raw_parts_mut(one.as_ptr().cast::<u64>(), count);
                (one, std::slice::from_raw_parts_mut(all.as_ptr().cast::<u64>(), count * 2))
            };
            for number in 0..25 {
                round(&mut comm, (one, all), (number, count));
            }
        }
    });
}
