//! Ranks that call different things: none of them gets a result.

use migshare_collectives::comm::Collective;
use migshare_collectives::error::Status;
use migshare_collectives::{Comm, DataType, ReduceOp};

use crate::launch::Launch;

fn all_reduce(data: &mut [f32]) -> Collective {
    let at = data.as_mut_ptr().cast();
    Collective::all_reduce(at, at, data.len(), DataType::F32, ReduceOp::Sum)
}

/// A communicator of all ranks of `world`, which its errors leave alone.
fn part(world: &mut Comm) -> Comm {
    world.split(Some(0), 0).unwrap().unwrap()
}

fn require_mismatch(result: Result<(), migshare_collectives::Error>, what: impl std::fmt::Debug) {
    let error = result.map(|()| what).unwrap_err();
    assert_eq!(error.status(), Status::Mismatch, "{error}");
}

#[test]
fn two_counts_are_told_apart_whatever_they_are() {
    Launch::new(2).run(|mut world| {
        // Ten bits of a hash of the call cannot tell all of these from the first; twelve elements go in the line.
        for (count, others) in [(1000, 1..800), (12, 1..12)] {
            for other in others {
                let mut pair = part(&mut world);
                let mut data = vec![1.0; if pair.rank() == 0 { count } else { other }];
                // SAFETY: the buffer has the elements.
                require_mismatch(unsafe { pair.run(&all_reduce(&mut data)) }, (count, other));
            }
        }
    });
}

#[test]
fn chunks_of_a_longer_call_are_not_taken_for_a_shorter_one() {
    Launch::new(2).run(|mut world| {
        let mut pair = part(&mut world);
        let mut long = vec![7_u8; 4 << 20];
        if pair.rank() == 0 {
            let call = Collective::broadcast(long.as_mut_ptr(), long.len(), DataType::U8, 0);
            // SAFETY: the buffer outlives the communicator. All chunks for which there is room are written at once.
            let started = unsafe { pair.start(&call) }.unwrap();
            world.barrier().unwrap();
            require_mismatch(pair.wait(started).map(drop), "long");
        } else {
            world.barrier().unwrap();
            require_mismatch(pair.broadcast(&mut [0_u8; 100], 0), "short");
        }
    });
}

/// Rank 2 is four operations ahead of rank 1, which sees that by the way: what rank 2 does there is still to be compared.
#[test]
fn a_rank_that_was_seen_ahead_is_compared_when_its_call_is_reached() {
    Launch::new(3).run(|mut world| {
        let mut group = part(&mut world);
        let rank = group.rank();
        group.barrier().unwrap();
        let gather = |group: &mut Comm, times| {
            let (own, mut all) = ([rank as u8], [0; 3]);
            for _ in 0..times {
                let call = Collective::gather(own.as_ptr(), all.as_mut_ptr(), 1, DataType::U8, 0);
                // SAFETY: the buffers hold a byte per rank.
                unsafe { group.run(&call) }.unwrap();
            }
        };
        gather(&mut group, 7);
        let mut data = [1.0, 2.0];
        let elements = if rank == 2 { 2 } else { 1 };
        let call = all_reduce(&mut data[..elements]);
        if rank == 2 {
            gather(&mut group, 4);
            // SAFETY: the buffer outlives the communicator, here and below.
            unsafe { group.start(&call) }.unwrap();
            world.send(&[0_u8], 1).unwrap();
            world.barrier().unwrap();
        } else if rank == 1 {
            world.receive(&mut [0_u8], 2).unwrap();
            gather(&mut group, 4);
            world.send(&[0_u8], 0).unwrap();
            world.receive(&mut [0_u8], 0).unwrap();
            // SAFETY: as above.
            let result = unsafe { group.run(&call) };
            world.barrier().unwrap();
            require_mismatch(result, data);
        } else {
            gather(&mut group, 4);
            // SAFETY: as above. Rank 1 is asked first, and has not come: nobody has been told that anything is wrong.
            unsafe { group.start(&call) }.unwrap();
            world.receive(&mut [0_u8], 1).unwrap();
            world.send(&[0_u8], 1).unwrap();
            world.barrier().unwrap();
        }
    });
}

#[test]
fn an_operation_that_others_do_not_call_is_a_mismatch() {
    Launch::new(2).run(|mut world| {
        let mut pair = part(&mut world);
        let mut data = [0_u8; 40];
        let result = if pair.rank() == 0 { pair.barrier() } else { pair.broadcast(&mut data, 0) };
        require_mismatch(result, "a barrier");
    });
}
