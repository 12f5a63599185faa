//! What refusals say: the value, the limit and the way out.

use std::sync::Arc;

use migshare_collectives::comm::Collective;
use migshare_collectives::{Comm, DataType, Error, Options, Segment};

type Refused = fn(&mut Comm) -> Option<Error>;

#[test]
fn a_refusal_names_the_value_its_limit_and_what_to_do() {
    let segment = Segment::create(16 << 20, 1).unwrap();
    let mut comm = Comm::join(&segment, 0, &Options::default()).unwrap();
    let table: &[(Refused, &[&str])] = &[
        (|comm| comm.broadcast(&mut [1_u8], 7).err(), &["root 7", "0 to 0"]),
        (|comm| comm.send(&[1_u8], 3).err(), &["peer 3", "0 to 0"]),
        (|comm| comm.send(&[1_u8], 0).err(), &["oneself"]),
        (|comm| comm.allocate(1 << 40).err(), &["1099511627776 bytes", "segment=SIZE"]),
        (|comm| Comm::join(&Arc::clone(comm.segment()), 5, &Options::default()).err(), &["rank 5", "0 to 0"]),
        (|_| Segment::create(8 << 20, 64).err(), &["8388608", "64 ranks", "segment=SIZE"]),
        (|_| Segment::create(8 << 20, 100).err(), &["1 to 64"]),
        (
            |comm| {
                let call = Collective::broadcast(std::ptr::null_mut(), usize::MAX, DataType::F64, 0);
                // SAFETY: refused before a buffer is touched.
                unsafe { comm.run(&call) }.err()
            },
            &["count", "elements"],
        ),
        (
            |comm| {
                let mut made = Vec::new();
                loop {
                    match comm.split(Some(0), 0) {
                        Ok(part) => made.push(part),
                        Err(error) => return Some(error),
                    }
                }
            },
            &["slots", "8 communicators", "free"],
        ),
    ];
    for (index, (refused, words)) in table.iter().enumerate() {
        let said = refused(&mut comm).map(|error| error.to_string()).unwrap_or_default();
        assert!(words.iter().all(|word| said.contains(word)), "{index}: {said:?} without {words:?}");
    }
}
