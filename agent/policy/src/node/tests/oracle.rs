//! Sequences of everything that can happen, against a model that knows only what was promised to whom.
//!
//! The model keeps the answers, the test keeps the hardware; neither looks into the node to know what it should say. What
//! the model takes from the books are quarantines, whose reasons have tests of their own.

mod model;

use crate::layout::Layout;
use crate::placement::Direction;
use model::Model;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Debug, Clone)]
enum Op {
    Open { job: u32, leaves: u32, direction: Option<Direction> },
    Large { job: u32, slices: u8, count: u32, extra: u32 },
    Cordon { gpu: usize },
    Uncordon { gpu: usize },
    Halves { gpu: usize },
    Configured { gpu: usize },
    OpenAndHangUp { job: u32, leaves: u32 },
    JournalFails { job: u32, leaves: u32, step: u32 },
    Grant { job: u32, step: u32, leaves: u32, tasks: u32 },
    Release { job: u32, step: u32 },
    Close { job: u32 },
    StartAgain { job: u32, leaves: u32 },
    HolderGone { job: u32, step: u32 },
    Reap { runs: BTreeSet<u32> },
    Restart,
    Reboot,
    Lose { gpu: usize },
    Reset { gpu: usize },
    Foreign { gpu: usize, profile: u32 },
    Vanish { gpu: usize, start: u8 },
    Faults(Vec<bool>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let job = 1u32..6;
    let direction = prop::option::of(prop_oneof![Just(Direction::Pack), Just(Direction::Spread)]);
    let op = prop_oneof![
        8 => (job.clone(), 0u32..9, direction).prop_map(|(job, leaves, direction)| Op::Open { job, leaves, direction }),
        4 => (job.clone(), 1u8..8, 0u32..3, 0u32..2)
            .prop_map(|(job, slices, count, extra)| Op::Large { job, slices, count, extra }),
        1 => (0usize..2).prop_map(|gpu| Op::Cordon { gpu }),
        1 => (0usize..2).prop_map(|gpu| Op::Uncordon { gpu }),
        1 => (0usize..2).prop_map(|gpu| Op::Halves { gpu }),
        1 => (0usize..2).prop_map(|gpu| Op::Configured { gpu }),
        1 => (job.clone(), 1u32..9).prop_map(|(job, leaves)| Op::OpenAndHangUp { job, leaves }),
        2 => (job.clone(), 1u32..9, 0u32..3).prop_map(|(job, leaves, step)| Op::JournalFails { job, leaves, step }),
        8 => (job.clone(), 0u32..4, 0u32..6, 0u32..5)
            .prop_map(|(job, step, leaves, tasks)| Op::Grant { job, step, leaves, tasks }),
        3 => (job.clone(), 0u32..4).prop_map(|(job, step)| Op::Release { job, step }),
        3 => job.clone().prop_map(|job| Op::Close { job }),
        1 => (job.clone(), 1u32..9).prop_map(|(job, leaves)| Op::StartAgain { job, leaves }),
        1 => (job.clone(), 0u32..4).prop_map(|(job, step)| Op::HolderGone { job, step }),
        1 => prop::collection::btree_set(job, 0..4).prop_map(|runs| Op::Reap { runs }),
        1 => Just(Op::Restart),
        1 => Just(Op::Reboot),
        1 => (0usize..2).prop_map(|gpu| Op::Lose { gpu }),
        2 => (0usize..2).prop_map(|gpu| Op::Reset { gpu }),
        1 => (0usize..2, prop::sample::select(vec![19u32, 15, 14, 9, 5]))
            .prop_map(|(gpu, profile)| Op::Foreign { gpu, profile }),
        1 => (0usize..2, 0u8..7).prop_map(|(gpu, start)| Op::Vanish { gpu, start }),
        1 => prop::collection::vec(any::<bool>(), 1..5).prop_map(Op::Faults),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_promise_is_kept_and_every_refusal_is_true(ops in ops(), full_memory in any::<bool>()) {
        let mut model = Model::new(if full_memory { Layout::FullMemory } else { Layout::Uniform });
        for op in &ops {
            model.apply(op);
        }
        model.finish();
    }

    #[test]
    fn a_compacted_journal_folds_to_the_same_books(ops in ops()) {
        let mut model = Model::new(Layout::Uniform);
        for op in &ops {
            model.apply(op);
            let mut books = crate::Books::default();
            for record in model.rig.node.books().records() {
                books.fold(&record).unwrap();
            }
            prop_assert_eq!(&books, model.rig.node.books());
        }
    }

    #[test]
    fn a_journal_torn_anywhere_starts_to_a_sound_node(ops in ops(), cut in any::<prop::sample::Index>()) {
        let mut model = Model::new(Layout::Uniform);
        for op in &ops {
            model.apply(op);
        }
        let mut rig = model.rig;
        rig.journal.truncate(cut.index(rig.journal.len() + 1));
        rig.faults.clear();
        let mut books = crate::Books::default();
        for record in &rig.journal {
            books.fold(record).unwrap();
        }
        rig.node = crate::Node::new(rig.rules.clone(), books, rig.boot.clone());
        rig.settle_awake(3);
        rig.check();
    }
}
