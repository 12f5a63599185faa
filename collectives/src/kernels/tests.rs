//! Every kernel against a scalar oracle, for all types, operators, sets and odd lengths.

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::datatype::{DATA_TYPES, REDUCE_OPS};

/// One element, computed the plain way.
fn oracle(kind: DataType, op: ReduceOp, a: &[u8], b: &[u8]) -> Vec<u8> {
    macro_rules! wide {
        ($rust:ty, $sum:expr, $product:expr) => {{
            let x = <$rust>::from_ne_bytes(a.try_into().unwrap());
            let y = <$rust>::from_ne_bytes(b.try_into().unwrap());
            let result: $rust = match op {
                ReduceOp::Sum | ReduceOp::Average => $sum(x, y),
                ReduceOp::Product => $product(x, y),
                ReduceOp::Min => {
                    if y < x {
                        y
                    } else {
                        x
                    }
                }
                ReduceOp::Max => {
                    if y > x {
                        y
                    } else {
                        x
                    }
                }
            };
            result.to_ne_bytes().to_vec()
        }};
    }
    macro_rules! small {
        ($rust:ty) => {
            wide!(
                $rust,
                |x: $rust, y: $rust| <$rust>::from_f32(x.to_f32() + y.to_f32()),
                |x: $rust, y: $rust| <$rust>::from_f32(x.to_f32() * y.to_f32())
            )
        };
    }
    macro_rules! int {
        ($rust:ty) => {
            wide!($rust, <$rust>::wrapping_add, <$rust>::wrapping_mul)
        };
    }
    match kind {
        DataType::F16 => small!(f16),
        DataType::Bf16 => small!(bf16),
        DataType::F32 => wide!(f32, |x, y| x + y, |x, y| x * y),
        DataType::F64 => wide!(f64, |x, y| x + y, |x, y| x * y),
        DataType::I8 => int!(i8),
        DataType::I16 => int!(i16),
        DataType::I32 => int!(i32),
        DataType::I64 => int!(i64),
        DataType::U8 => int!(u8),
        DataType::U16 => int!(u16),
        DataType::U32 => int!(u32),
        DataType::U64 => int!(u64),
    }
}

fn is_nan(kind: DataType, element: &[u8]) -> bool {
    match kind {
        DataType::F16 => f16::from_ne_bytes(element.try_into().unwrap()).is_nan(),
        DataType::Bf16 => bf16::from_ne_bytes(element.try_into().unwrap()).is_nan(),
        DataType::F32 => f32::from_ne_bytes(element.try_into().unwrap()).is_nan(),
        DataType::F64 => f64::from_ne_bytes(element.try_into().unwrap()).is_nan(),
        _ => false,
    }
}

fn check(set: &Kernels, kind: DataType, op: ReduceOp, a: &[u8], b: &[u8]) {
    let size = kind.bytes();
    let count = a.len() / size;
    let mut out = vec![0; count * size];
    // SAFETY: all three have at least `count` elements.
    unsafe { set.reduce((kind, op), Target::plain(out.as_mut_ptr()), a.as_ptr(), b.as_ptr(), count) };
    check_aliases(set, (kind, op), &a[..count * size], &b[..count * size], &out);
    for ((x, y), got) in a.chunks_exact(size).zip(b.chunks_exact(size)).zip(out.chunks_exact(size)) {
        let want = oracle(kind, op, x, y);
        // Which NaN comes out of two is the hardware's choice.
        let both_nan = is_nan(kind, &want) && is_nan(kind, got);
        assert!(want == got || both_nan, "{} {kind:?} {op:?} {x:?} {y:?}: {got:?} not {want:?}", set.name);
    }
}

/// A target may be either source, and there may be more beside it.
fn check_aliases(set: &Kernels, (kind, op): (DataType, ReduceOp), a: &[u8], b: &[u8], want: &[u8]) {
    let count = want.len() / kind.bytes();
    let (mut first, mut second) = (a.to_vec(), b.to_vec());
    let (at, bt) = (first.as_mut_ptr(), second.as_mut_ptr());
    // SAFETY: all have `count` elements.
    unsafe {
        set.reduce((kind, op), Target::plain(at), at, b.as_ptr(), count);
        set.reduce((kind, op), Target::plain(bt), a.as_ptr(), bt, count);
    }
    assert!(first == want && second == want, "{} {kind:?} {op:?} in place", set.name);
    for (bypass, shift) in [(false, 0), (true, 0), (true, 1)] {
        let mut beside = vec![0; want.len()];
        let mut room = vec![0_u8; want.len() + 128];
        let lines = room.as_ptr().align_offset(64) + shift;
        let own = room.as_mut_ptr().wrapping_add(lines);
        let also = beside.as_mut_ptr();
        for way in [Beside::Nothing, Beside::Result(also), Beside::Copy { to: also, from: b.as_ptr() }] {
            // SAFETY: the target has room from the next line on, and one byte later.
            unsafe {
                own.copy_from_nonoverlapping(a.as_ptr(), a.len());
                set.reduce((kind, op), Target { to: own, bypass, beside: way }, own, b.as_ptr(), count);
            }
            stream_fence();
            assert!(room[lines..][..want.len()] == *want, "{} {kind:?} {op:?} {bypass}", set.name);
            match way {
                Beside::Nothing => {}
                Beside::Result(_) => assert!(beside == want, "{} {kind:?} {op:?} twice", set.name),
                Beside::Copy { .. } => assert!(beside == b, "{} {kind:?} {op:?} beside", set.name),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn all_sets_agree_with_the_scalar_oracle(
        a in prop::collection::vec(any::<u8>(), 0..700),
        b in prop::collection::vec(any::<u8>(), 700),
    ) {
        for set in body::available() {
            for kind in DATA_TYPES {
                for op in REDUCE_OPS {
                    check(set, kind, op, &a, &b);
                }
            }
        }
    }

    #[test]
    fn a_streaming_copy_is_a_copy(bytes in prop::collection::vec(any::<u8>(), 0..1000), shift in 0_usize..70) {
        let mut out = vec![0_u8; bytes.len() + 70];
        // SAFETY: the target has room behind the shift.
        unsafe { copy_streaming(out.as_mut_ptr().add(shift), bytes.as_ptr(), bytes.len()) };
        prop_assert_eq!(&out[shift..shift + bytes.len()], &bytes[..]);
        prop_assert!(out[..shift].iter().chain(&out[shift + bytes.len()..]).all(|b| *b == 0));
    }

    #[test]
    fn one_read_fills_two_places(bytes in prop::collection::vec(any::<u8>(), 0..70_000), shift in 0_usize..3) {
        let shift = shift * 32; // aligned to a line, and not
        let mut out = [vec![0_u8; bytes.len() + 192], vec![0_u8; bytes.len() + 192]];
        let from = out.each_ref().map(|place| place.as_ptr().align_offset(64) + shift);
        let to = [out[0].as_mut_ptr().wrapping_add(from[0]), out[1].as_mut_ptr().wrapping_add(from[1])];
        // SAFETY: both targets have room behind the shift.
        unsafe { stage_and_stream(to, bytes.as_ptr(), bytes.len()) };
        stream_fence();
        for (place, from) in out.iter().zip(from) {
            prop_assert_eq!(&place[from..from + bytes.len()], &bytes[..]);
            prop_assert!(place[..from].iter().chain(&place[from + bytes.len()..]).all(|b| *b == 0));
        }
    }
}

#[test]
fn every_f16_sum_with_zero_and_every_rounding_is_exact() {
    for bits in 0..=u16::MAX {
        let value = f16::from_bits(bits);
        for other in [f16::ZERO, f16::ONE, f16::MAX, f16::from_bits(1), f16::from_bits(0x3ff)] {
            for op in [ReduceOp::Sum, ReduceOp::Product] {
                check(Kernels::get(), DataType::F16, op, &value.to_ne_bytes(), &other.to_ne_bytes());
            }
        }
    }
}

#[test]
fn averages_divide_by_the_number_of_ranks() {
    let mut floats = [1_f32, 2.0, 7.0];
    let mut ints = [-7_i8, 100, 9];
    for set in body::available() {
        // SAFETY: both arrays have three elements.
        unsafe {
            set.finish(DataType::F32, ReduceOp::Average, floats.as_mut_ptr().cast(), 3, 1);
            set.finish(DataType::I8, ReduceOp::Average, ints.as_mut_ptr().cast(), 3, 1);
        }
    }
    // SAFETY: as above.
    unsafe {
        Kernels::get().finish(DataType::F32, ReduceOp::Average, floats.as_mut_ptr().cast(), 3, 4);
        Kernels::get().finish(DataType::I8, ReduceOp::Average, ints.as_mut_ptr().cast(), 3, 4);
    }
    assert_eq!(floats, [0.25, 0.5, 1.75]);
    assert_eq!(ints, [-1, 25, 2]);
}
