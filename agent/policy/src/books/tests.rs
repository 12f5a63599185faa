use super::*;
use crate::record::{Ending, Holder};

fn leaf(start: u8, size: u8, generation: u64) -> LeafId {
    let place = Place { gpu: GpuUuid::new("GPU-a"), placement: Placement { start, size } };
    LeafId { place, generation }
}

fn job(job: u32) -> JobKey {
    JobKey { job, start: 1, uid: 500 }
}

fn open(n: u32, leaves: &[LeafId]) -> Record {
    let leaves: Vec<Pick> = leaves.iter().map(|l| Pick { leaf: l.clone(), profile: 19 }).collect();
    Record::Open { job: job(n), charged: leaves.len() as u32, leaves, at: 7 }
}

fn books(records: &[Record]) -> Books {
    let mut books = Books::default();
    records.iter().for_each(|record| books.fold(record).unwrap());
    books
}

/// A record that contradicts is refused and changes nothing.
fn refused(mut books: Books, record: &Record) -> Contradiction {
    let before = books.clone();
    let contradiction = books.fold(record).unwrap_err();
    assert_eq!(books, before);
    contradiction
}

#[test]
fn a_place_is_leased_once() {
    let held = books(&[open(1, &[leaf(4, 1, 1)])]);
    let wider = open(2, &[leaf(4, 4, 1)]);
    assert!(matches!(refused(held.clone(), &wider), Contradiction::LeasedTwice { .. }));
    assert_eq!(refused(held, &open(1, &[leaf(0, 1, 1)])), Contradiction::LeaseExists(job(1)));
    let twice = open(1, &[leaf(0, 1, 1), leaf(0, 2, 1)]);
    assert!(matches!(refused(Books::default(), &twice), Contradiction::LeasedTwice { .. }));
}

#[test]
fn an_instance_stands_after_its_reservation_with_the_same_generation() {
    let reserve = Record::Reserve { leaf: leaf(0, 1, 1), profile: 19 };
    let reserved = books(&[reserve]);
    let stand = |generation| Record::Stand { leaf: leaf(0, 1, generation), profile: 19 };
    assert_eq!(books(&[stand(1)]).stands.len(), 1);
    let mut standing = reserved.clone();
    standing.fold(&stand(1)).unwrap();
    assert!(standing.stands(&leaf(0, 1, 1)) && !reserved.stands(&leaf(0, 1, 1)));
    assert_eq!(refused(standing.clone(), &stand(1)), Contradiction::Generation(leaf(0, 1, 1)));
    let overlapping = Record::Reserve { leaf: leaf(0, 2, 1), profile: 15 };
    assert_eq!(refused(standing, &overlapping), Contradiction::Overlap(leaf(0, 2, 1).place));
}

#[test]
fn generations_only_grow_even_when_nothing_stands() {
    let books = books(&[
        Record::Stand { leaf: leaf(0, 1, 1), profile: 19 },
        Record::Gone { leaf: leaf(0, 1, 1) },
        Record::Boot { boot: "next".to_owned() },
    ]);
    assert_eq!(books.next_generation(&leaf(0, 1, 1).place), 2);
    let old = Record::Stand { leaf: leaf(0, 1, 1), profile: 19 };
    assert_eq!(refused(books, &old), Contradiction::Generation(leaf(0, 1, 1)));
}

#[test]
fn a_late_word_about_an_earlier_instance_changes_nothing() {
    let now = books(&[
        Record::Stand { leaf: leaf(0, 1, 1), profile: 19 },
        Record::Gone { leaf: leaf(0, 1, 1) },
        Record::Stand { leaf: leaf(0, 1, 2), profile: 19 },
    ]);
    for late in [Record::Gone { leaf: leaf(0, 1, 1) }, Record::Remove { leaf: leaf(0, 1, 1) }] {
        let mut after = now.clone();
        after.fold(&late).unwrap();
        assert_eq!(after, now);
    }
}

#[test]
fn grants_stay_within_their_lease_and_end_with_it() {
    let grant = |start| Record::Grant {
        job: job(1),
        step: StepId(0),
        grant: Grant {
            leaves: vec![leaf(start, 1, 1)],
            tasks: vec![vec![0]],
            shared: 0,
            holder: Holder { pid: 1, born: 1 },
        },
    };
    assert_eq!(refused(Books::default(), &grant(0)), Contradiction::NoLease(job(1)));
    let mut held = books(&[open(1, &[leaf(0, 1, 1)])]);
    assert!(matches!(refused(held.clone(), &grant(3)), Contradiction::BeyondLease { .. }));
    held.fold(&grant(0)).unwrap();
    held.fold(&Record::Close { job: job(1), how: Ending::Epilog }).unwrap();
    assert!(held.leases.is_empty());
}
