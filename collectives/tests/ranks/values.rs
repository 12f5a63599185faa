//! Every collective computes what it should, for all types, operators, sizes and rank numbers.

use migshare_collectives::comm::Collective;
use migshare_collectives::datatype::{DATA_TYPES, REDUCE_OPS};
use migshare_collectives::error::Status;
use migshare_collectives::{Comm, DataType, Error, ReduceOp};

use crate::launch::Launch;

/// Element counts around every change of algorithm.
const COUNTS: [usize; 12] = [0, 1, 2, 7, 8, 57, 1000, 2048, 4099, 20_001, 70_000, 400_003];

/// The same pseudo-random bytes for a rank everywhere, small enough numbers to be exact in f16.
fn input(kind: DataType, rank: usize, count: usize) -> Vec<u8> {
    let element = |i: usize| ((i * 7 + rank * 13) % 5 + 1) as u8;
    (0..count).flat_map(|i| encode(kind, element(i))).collect()
}

fn encode(kind: DataType, value: u8) -> Vec<u8> {
    match kind {
        DataType::F16 => half::f16::from_f32(f32::from(value)).to_ne_bytes().to_vec(),
        DataType::Bf16 => half::bf16::from_f32(f32::from(value)).to_ne_bytes().to_vec(),
        DataType::F32 => f32::from(value).to_ne_bytes().to_vec(),
        DataType::F64 => f64::from(value).to_ne_bytes().to_vec(),
        _ => {
            let mut bytes = vec![0; kind.bytes()];
            bytes[0] = value;
            bytes
        }
    }
}

fn expected(op: ReduceOp, ranks: usize, i: usize) -> u8 {
    let values = (0..ranks).map(|rank| (i * 7 + rank * 13) % 5 + 1);
    let result = match op {
        ReduceOp::Sum | ReduceOp::Average => values.sum(),
        ReduceOp::Product => values.product(),
        ReduceOp::Min => values.min().unwrap(),
        ReduceOp::Max => values.max().unwrap(),
    };
    u8::try_from(result).unwrap()
}

/// What the reduction of elements `range` gives.
fn reduced(kind: DataType, op: ReduceOp, ranks: usize, range: std::ops::Range<usize>) -> Vec<u8> {
    let average = |sum: u8| match kind {
        DataType::F16 => half::f16::from_f32(f32::from(sum) / ranks as f32).to_ne_bytes().to_vec(),
        DataType::Bf16 => half::bf16::from_f32(f32::from(sum) / ranks as f32).to_ne_bytes().to_vec(),
        DataType::F32 => (f32::from(sum) / ranks as f32).to_ne_bytes().to_vec(),
        DataType::F64 => (f64::from(sum) / ranks as f64).to_ne_bytes().to_vec(),
        _ => encode(kind, sum / ranks as u8),
    };
    range
        .flat_map(|i| {
            let value = expected(op, ranks, i);
            if op == ReduceOp::Average { average(value) } else { encode(kind, value) }
        })
        .collect()
}

fn run(comm: &mut Comm, collective: Collective) {
    // SAFETY: the callers below size the buffers as `Collective` says.
    unsafe { comm.run(&collective) }.unwrap();
}

fn check_reductions(comm: &mut Comm, kind: DataType, op: ReduceOp, count: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let bytes = kind.bytes();
    let want = reduced(kind, op, size, 0..count);
    let own = input(kind, rank, count);

    let mut out = vec![0; count * bytes];
    run(comm, Collective::all_reduce(own.as_ptr(), out.as_mut_ptr(), count, kind, op));
    assert!(out == want, "all-reduce {kind:?} {op:?} {count}");

    let mut place = own.clone();
    let at = place.as_mut_ptr();
    run(comm, Collective::all_reduce(at, at, count, kind, op));
    assert!(place == want, "all-reduce in place {kind:?} {op:?} {count}");

    let root = count % size;
    let mut out = vec![0; count * bytes];
    run(comm, Collective::reduce(own.as_ptr(), out.as_mut_ptr(), count, kind, op, root));
    assert!(rank != root || out == want, "reduce {kind:?} {op:?} {count}");

    let mut all = input(kind, rank, count * size);
    let want = reduced(kind, op, size, rank * count..(rank + 1) * count);
    let mut out = vec![0; count * bytes];
    run(comm, Collective::reduce_scatter(all.as_ptr(), out.as_mut_ptr(), count, kind, op));
    assert!(out == want, "reduce-scatter {kind:?} {op:?} {count}");
    let at = all.as_mut_ptr();
    // Offsets of whole blocks.
    let own_block = at.wrapping_add(rank * count * bytes);
    run(comm, Collective::reduce_scatter(at, own_block, count, kind, op));
    assert!(all[rank * count * bytes..][..count * bytes] == want, "in place {kind:?} {op:?} {count}");
}

fn check_moves(comm: &mut Comm, count: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let kind = DataType::U8;
    let own = input(kind, rank, count);
    let root = (count + 1) % size;
    let everything: Vec<u8> = (0..size).flat_map(|r| input(kind, r, count)).collect();

    let mut data = own.clone();
    comm.broadcast(&mut data, root).unwrap();
    assert!(data == input(kind, root, count), "broadcast {count}");

    let mut all = vec![0; count * size];
    comm.all_gather(&own, &mut all).unwrap();
    assert!(all == everything, "all-gather {count}");

    let mut all = vec![0; count * size];
    run(comm, Collective::gather(own.as_ptr(), all.as_mut_ptr(), count, kind, root));
    assert!(rank != root || all == everything, "gather {count}");

    let mut out = vec![0; count];
    run(comm, Collective::scatter(everything.as_ptr(), out.as_mut_ptr(), count, kind, root));
    assert!(out == own, "scatter {count}");

    check_all_to_all(comm, count);
}

fn check_all_to_all(comm: &mut Comm, count: usize) {
    let (rank, size) = (comm.rank(), comm.size());
    let block = |from: usize, to: usize| input(DataType::U8, from * 8 + to, count);
    let mut send: Vec<u8> = (0..size).flat_map(|to| block(rank, to)).collect();
    let want: Vec<u8> = (0..size).flat_map(|from| block(from, rank)).collect();
    let mut out = vec![0; count * size];
    run(comm, Collective::all_to_all(send.as_ptr(), out.as_mut_ptr(), count, DataType::U8));
    assert!(out == want, "all-to-all {count}");
    let at = send.as_mut_ptr();
    run(comm, Collective::all_to_all(at, at, count, DataType::U8));
    assert!(send == want, "all-to-all in place {count}");
}

fn everything(mut comm: Comm) {
    for count in COUNTS {
        check_moves(&mut comm, count);
        // All operators take the same way; one of them goes through the large sizes.
        let large = count > 5000;
        for op in REDUCE_OPS.into_iter().filter(|op| !large || *op == ReduceOp::Sum) {
            check_reductions(&mut comm, DataType::F32, op, count);
        }
    }
    for kind in DATA_TYPES {
        for op in REDUCE_OPS {
            check_reductions(&mut comm, kind, op, 5);
            check_reductions(&mut comm, kind, op, 701);
        }
    }
    comm.barrier().unwrap();
}

#[test]
fn every_collective_has_a_form_for_slices() {
    Launch::new(3).run(|mut comm| {
        let (rank, size) = (comm.rank() as u64, comm.size());
        let blocks: Vec<u64> = (0..size as u64 * 2).map(|i| 10 * rank + i).collect();
        let mut data = [rank, 1];
        comm.reduce(&mut data, ReduceOp::Sum, 1).unwrap();
        assert!(rank != 1 || data == [3, 3]);
        let mut own = [0; 2];
        comm.reduce_scatter(&blocks, &mut own, ReduceOp::Max).unwrap();
        assert_eq!(own, [20 + 2 * rank, 21 + 2 * rank]);
        let mut all = vec![0; if rank == 2 { 2 * size } else { 0 }];
        comm.gather(&[rank, 7], &mut all, 2).unwrap();
        assert!(rank != 2 || all == [0, 7, 1, 7, 2, 7]);
        let source: &[u64] = if rank == 0 { &blocks } else { &[] };
        comm.scatter(source, &mut own, 0).unwrap();
        assert_eq!(own, [2 * rank, 2 * rank + 1]);
        let mut turned = vec![0; 2 * size];
        comm.all_to_all(&blocks, &mut turned).unwrap();
        assert_eq!(turned[4..], [20 + 2 * rank, 21 + 2 * rank]);
        let me = comm.rank();
        for refused in [
            comm.all_to_all(&blocks[1..], &mut turned),
            comm.reduce_scatter(&blocks[1..], &mut own, ReduceOp::Sum),
            comm.gather(&[1_u64; 3], &mut own, me),
            comm.scatter(&blocks[1..], &mut own, me),
        ] {
            assert!(matches!(refused, Err(Error::Invalid(_))));
        }
        comm.barrier().unwrap();
    });
}

#[test]
fn one_rank_computes_all_collectives() {
    Launch::new(1).run(everything);
}

#[test]
fn two_ranks_compute_all_collectives() {
    Launch::new(2).run(everything);
}

#[test]
fn three_ranks_compute_all_collectives_in_a_small_segment() {
    Launch { bytes: 6 << 20, ..Launch::new(3) }.run(everything);
}

#[test]
fn more_ranks_than_cores_compute_all_collectives() {
    Launch::new(5).run(everything);
}

#[test]
fn results_are_bit_equal_on_all_ranks() {
    Launch::new(3).run(|mut comm| {
        for count in [3_usize, 1000, 300_000] {
            let mut state = comm.rank() as u32 + 1;
            let mut data: Vec<f32> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state as f32 / 1e6 - 2000.0
                })
                .collect();
            comm.all_reduce(&mut data, ReduceOp::Sum).unwrap();
            let bits: Vec<u32> = data.iter().map(|x| x.to_bits()).collect();
            let mut all = vec![0; count * comm.size()];
            comm.all_gather(&bits, &mut all).unwrap();
            assert!(all.chunks(count).all(|other| other == bits));
        }
    });
}

#[test]
fn buffers_inside_the_segment_give_the_same_result() {
    Launch::new(2).run(|mut comm| {
        let count = 300_001;
        let buffer = comm.allocate(2 * count * 4).unwrap();
        let send = buffer.as_ptr().cast::<f32>();
        let recv = send.wrapping_add(count.next_multiple_of(16) - 16 + 16).min(send.wrapping_add(count));
        for in_place in [false, true] {
            let (from, to) = if in_place { (recv, recv) } else { (send, recv) };
            for i in 0..count {
                // SAFETY: the buffer holds twice `count` elements.
                unsafe { from.add(i).write((i + comm.rank()) as f32) };
            }
            let call = Collective::all_reduce(from.cast(), to.cast(), count, DataType::F32, ReduceOp::Sum);
            run(&mut comm, call);
            // SAFETY: as above.
            assert!((0..count).all(|i| unsafe { to.add(i).read() } == (2 * i + 1) as f32));
        }
        // One rank inside, one outside.
        let mut outside = vec![1_f32; count];
        let at = if comm.rank() == 0 { send } else { outside.as_mut_ptr() };
        for i in 0..count {
            // SAFETY: both have `count` elements.
            unsafe { at.add(i).write(2.0) };
        }
        run(&mut comm, Collective::all_reduce(at.cast(), at.cast(), count, DataType::F32, ReduceOp::Sum));
        // SAFETY: as above.
        assert!((0..count).all(|i| unsafe { at.add(i).read() } == 4.0));
    });
}

#[test]
fn messages_arrive_in_order_and_whole() {
    Launch::new(2).run(|mut comm| {
        let lengths = [0_usize, 1, 63, 64, 65, 4096, 60_000, 300_000, 1_000_003, 5];
        for len in lengths {
            if comm.rank() == 0 {
                comm.send(&input(DataType::U8, len, len), 1).unwrap();
            } else {
                let mut data = vec![0_u8; len + 10];
                assert_eq!(comm.receive(&mut data, 0).unwrap(), len);
                assert!(data[..len] == input(DataType::U8, len, len));
            }
        }
    });
}

#[test]
fn a_message_that_is_too_long_is_truncated_and_the_next_one_arrives() {
    Launch::new(2).run(|mut comm| {
        for len in [100_usize, 50_000, 200_000] {
            if comm.rank() == 0 {
                comm.send(&vec![7_u8; len], 1).unwrap();
                comm.send(&[9_u8], 1).unwrap();
            } else {
                let mut data = vec![0_u8; len / 2];
                let room = data.len() as u64;
                assert_eq!(comm.receive(&mut data, 0), Err(Error::Truncated { len: len as u64, room }));
                let mut next = [0_u8];
                assert_eq!(comm.receive(&mut next, 0), Ok(1));
                assert_eq!(next, [9]);
            }
        }
    });
}

#[test]
fn requests_in_flight_complete_in_any_order_of_waiting() {
    Launch::new(2).run(|mut comm| {
        let peer = 1 - comm.rank();
        let out: Vec<Vec<u8>> = (0..32).map(|i| input(DataType::U8, i, i * 9000)).collect();
        let mut into: Vec<Vec<u8>> = (0..32).map(|i| vec![0; i * 9000]).collect();
        let mut sums = vec![1_f64; 5000];
        let mut requests = vec![];
        for i in 0..32 {
            // SAFETY: all buffers outlive the waits below.
            unsafe {
                requests.push(comm.start_send(peer, 3, out[i].as_ptr(), out[i].len()).unwrap());
                requests.push(comm.start_receive(peer, 3, into[i].as_mut_ptr(), into[i].len()).unwrap());
            }
        }
        let at = sums.as_mut_ptr().cast();
        let call = Collective::all_reduce(at, at, 5000, DataType::F64, ReduceOp::Sum);
        // SAFETY: the buffer outlives the wait.
        requests.push(unsafe { comm.start(&call) }.unwrap());
        comm.barrier().unwrap();
        while comm.test(requests[64]).is_ok_and(|done| done.is_none()) {}
        for request in requests[..64].iter().rev() {
            comm.wait(*request).unwrap();
        }
        assert_eq!(comm.wait(requests[3]), Err(Error::Invalid("no such request")));
        assert!(into == out && sums.iter().all(|s| *s == 2.0));
    });
}

#[test]
fn split_communicators_work_beside_their_parent() {
    Launch::new(4).run(|mut comm| {
        let rank = comm.rank();
        let mut half = comm.split(Some(rank as u32 % 2), -(rank as i32)).unwrap().unwrap();
        assert_eq!((half.size(), half.rank()), (2, 1 - rank / 2));
        let mut none_or_pair = comm.split((rank < 2).then_some(0), 0).unwrap();
        assert_eq!(none_or_pair.is_some(), rank < 2);
        for round in 0..100_u64 {
            let mut data = vec![rank as u64 + round; 40_000];
            half.all_reduce(&mut data, ReduceOp::Sum).unwrap();
            assert!(data.iter().all(|d| *d == 2 * (rank % 2) as u64 + 2 + 2 * round));
            if let Some(pair) = &mut none_or_pair {
                pair.broadcast(&mut data, 1).unwrap();
            }
            comm.all_reduce(&mut data[..3], ReduceOp::Max).unwrap();
            assert_eq!(data[0], 2 * round + 4);
        }
        drop(none_or_pair);
        // Slots come back: many more splits than slots.
        for color in 0..20 {
            let mut again = half.split(Some(color), 0).unwrap().unwrap();
            again.barrier().unwrap();
        }
    });
}

fn is_invalid(result: &Result<(), Error>) -> bool {
    result.as_ref().is_err_and(|error| error.status() == Status::Invalid)
}

#[test]
fn bad_arguments_are_refused_and_harm_nothing() {
    Launch::new(2).run(|mut comm| {
        let mut data = vec![1_i32; 100];
        let at = data.as_mut_ptr().cast::<u8>();
        let overlap = Collective::all_reduce(at, at.wrapping_add(4), 50, DataType::I32, ReduceOp::Sum);
        let huge = Collective::all_reduce(at, at, usize::MAX / 2, DataType::I64, ReduceOp::Sum);
        let null = Collective::all_reduce(std::ptr::null(), at, 1, DataType::I32, ReduceOp::Sum);
        let root = Collective::broadcast(at, 1, DataType::I32, 2);
        for bad in [overlap, huge, null, root] {
            // SAFETY: refused before a buffer is touched.
            assert!(is_invalid(&unsafe { comm.run(&bad) }), "{bad:?}");
        }
        let own = comm.rank();
        assert!(is_invalid(&comm.send(&[1_u8], own)));
        assert!(is_invalid(&comm.send(&[1_u8], 2)));
        comm.all_reduce(&mut data, ReduceOp::Sum).unwrap();
        assert_eq!(data, vec![2; 100]);
    });
}
