//! The slots of communicators: who may use one again, and when.

use migshare_collectives::comm::Collective;
use migshare_collectives::{Comm, DataType, Error, ReduceOp};

use crate::launch::Launch;

#[test]
fn a_slot_is_not_used_again_while_a_member_still_looks_at_it() {
    Launch::new(3).run(|mut world| {
        let rank = world.rank();
        let mut pair = world.split((rank < 2).then_some(0), 0).unwrap();
        if rank == 0 {
            // Neither waits for the reader.
            let mut left = pair.take().unwrap();
            left.broadcast(&mut [41_u8], 0).unwrap();
            left.send(&[42_u8], 1).unwrap();
        }
        let mut others = world.split((rank != 1).then_some(0), 0).unwrap();
        if let Some(others) = &mut others {
            others.broadcast(&mut [7_u8], 0).unwrap();
            others.barrier().unwrap();
        }
        world.barrier().unwrap();
        if let (1, Some(mut pair)) = (rank, pair) {
            let (mut told, mut sent) = ([0_u8], [0_u8]);
            pair.broadcast(&mut told, 0).unwrap();
            pair.receive(&mut sent, 0).unwrap();
            assert_eq!((told, sent), ([41], [42]));
        }
        drop(others);
        // When all have left it comes back, also where groups overlap: many more than there are slots.
        for round in 0..30 {
            let group = world.split((rank != round % 3).then_some(0), 0).unwrap();
            if let Some(mut group) = group {
                group.barrier().unwrap();
            }
        }
    });
}

/// What is not fatal must not leave a rank behind or ahead of the others.
#[test]
fn a_buffer_that_is_lost_is_refused_and_harms_nothing() {
    Launch::new(2).run(|mut world| {
        const COUNT: usize = 300_000;
        let buffer = world.allocate(COUNT * 4).unwrap();
        let lost = buffer.as_ptr();
        let mut pair = world.split(Some(0), 0).unwrap().unwrap();
        let mut other = vec![3_u8; 100 + pair.rank()];
        assert!(pair.all_reduce(&mut other, ReduceOp::Sum).is_err());
        let mut data = vec![1.0_f32; COUNT];
        if world.rank() == 0 {
            let (kind, op) = (DataType::F32, ReduceOp::Sum);
            for count in [2, 1000, COUNT] {
                for call in [
                    Collective::all_reduce(lost, lost, count, kind, op),
                    Collective::all_reduce(lost, data.as_mut_ptr().cast(), count, kind, op),
                    Collective::broadcast(lost, count, kind, 0),
                    Collective::all_gather(lost, data.as_mut_ptr().cast(), count / 2, kind),
                ] {
                    // SAFETY: the buffers hold the elements.
                    assert_eq!(unsafe { world.run(&call) }, Err(Error::StaleBuffer), "{call:?}");
                }
            }
        }
        world.all_reduce(&mut data, ReduceOp::Sum).unwrap();
        assert!(data.iter().all(|value| *value == 2.0));
        world.barrier().unwrap();
    });
}

#[test]
fn a_forked_child_is_not_the_rank_and_does_not_end_it() {
    Launch::new(2).run(|mut comm| {
        // SAFETY: the child calls this library and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = matches!(comm.barrier(), Err(Error::Invalid(text)) if text.contains("fork"));
            let memory = comm.allocate(100).is_err();
            drop(comm);
            // The rank is still its parent's.
            let held = matches!(Comm::from_env().map(drop), Err(Error::Invalid(text)) if text.contains("another process"));
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(i32::from(!(refused && memory && held))) };
        }
        let mut status = -1;
        // SAFETY: waits for the child just made.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        comm.barrier().unwrap();
    });
}
