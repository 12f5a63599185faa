//! The generic bodies and their instances per instruction set.

use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::abreast::{LINE, abreast};
use super::{Beside, Divide, Kernels, Reduce, Target};

/// Arithmetic of one element type.
trait Number: Copy {
    fn sum(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    fn divide(self, ranks: usize) -> Self;
}

macro_rules! integer {
    ($($rust:ty),*) => {$(
        impl Number for $rust {
            #[inline(always)]
            fn sum(self, other: Self) -> Self { self.wrapping_add(other) }
            #[inline(always)]
            fn product(self, other: Self) -> Self { self.wrapping_mul(other) }
            #[inline(always)]
            fn min(self, other: Self) -> Self { if other < self { other } else { self } }
            #[inline(always)]
            fn max(self, other: Self) -> Self { if other > self { other } else { self } }
            // At most 64 ranks: fits every type.
            #[inline(always)]
            fn divide(self, ranks: usize) -> Self { self / ranks as $rust }
        }
    )*};
}

integer!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! float {
    ($($rust:ty),*) => {$(
        impl Number for $rust {
            #[inline(always)]
            fn sum(self, other: Self) -> Self { self + other }
            #[inline(always)]
            fn product(self, other: Self) -> Self { self * other }
            #[inline(always)]
            fn min(self, other: Self) -> Self { if other < self { other } else { self } }
            #[inline(always)]
            fn max(self, other: Self) -> Self { if other > self { other } else { self } }
            #[inline(always)]
            fn divide(self, ranks: usize) -> Self { self / ranks as $rust }
        }
    )*};
}

float!(f32, f64);

macro_rules! small_float {
    ($($rust:ty: $widen:ident, $narrow:ident);*) => {$(
        impl Number for $rust {
            #[inline(always)]
            fn sum(self, other: Self) -> Self { $narrow($widen(self) + $widen(other)) }
            #[inline(always)]
            fn product(self, other: Self) -> Self { $narrow($widen(self) * $widen(other)) }
            #[inline(always)]
            fn min(self, other: Self) -> Self { if $widen(other) < $widen(self) { other } else { self } }
            #[inline(always)]
            fn max(self, other: Self) -> Self { if $widen(other) > $widen(self) { other } else { self } }
            #[inline(always)]
            fn divide(self, ranks: usize) -> Self { $narrow($widen(self) / ranks as f32) }
        }
    )*};
}

small_float!(bf16: widen_bf16, narrow_bf16; f16: widen_f16, narrow_f16);

#[inline(always)]
fn widen_bf16(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// Round to nearest even; a NaN stays one. Free of branches, so that it vectorises.
#[inline(always)]
fn narrow_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { quiet } else { rounded } as u16)
}

/// Exact widening with integer and float operations only, so that it vectorises without F16C: the bits
/// are put in place and scaled by 2^112, which also normalises subnormal numbers.
#[inline(always)]
fn widen_f16(value: f16) -> f32 {
    let bits = u32::from(value.to_bits());
    let sign = (bits & 0x8000) << 16;
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((254 - 15) << 23);
    let special =
        if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 | ((bits & 0x3ff) << 13) } else { magnitude.to_bits() };
    f32::from_bits(sign | special)
}

/// Round to nearest even, with subnormal results, infinities and NaN. Free of branches.
#[inline(always)]
fn narrow_f16(value: f32) -> f16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Adding 0.5 puts the bits of a number below 2^-14 in place, rounded by the float unit.
    let tiny = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let special = if magnitude > 0x7f80_0000 { 0x7e00 | ((magnitude >> 13) & 0x3ff) } else { 0x7c00 };
    let finite = if magnitude < 113 << 23 { tiny } else { normal };
    let result = if magnitude >= 0x4780_0000 { special } else { finite };
    f16::from_bits((sign | result) as u16)
}

/// What is computed before anything is stored: then a target may be a source, and the compiler needs no proof that it
/// is none, without which it would not vectorise.
#[repr(C, align(64))]
struct Line([MaybeUninit<u8>; LINE]);

/// Nothing, but the compiler cannot know: it would vectorise across lines instead of along them, with a gather for each
/// element. `black_box` would do, too, at the price of a store per line.
#[inline(always)]
fn one_by_one() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction.
    unsafe {
        std::arch::asm!("", options(nomem, nostack, preserves_flags));
    }
}

/// Combines `count` elements line by line; `put` gets `(offset, line, bytes)`.
#[inline(always)]
unsafe fn combine<T: Number>(
    a: *const u8,
    b: *const u8,
    count: usize,
    op: impl Fn(T, T) -> T,
    mut put: impl FnMut(usize, &Line, usize),
) {
    let line = |at: usize, bytes: usize| {
        let mut line = Line([MaybeUninit::uninit(); LINE]);
        // SAFETY: the sources hold the range, for which the caller vouches; unaligned access is allowed.
        unsafe {
            let (a, b) = (a.add(at).cast::<T>(), b.add(at).cast::<T>());
            let to = line.0.as_mut_ptr().cast::<T>();
            for i in 0..bytes / size_of::<T>() {
                to.add(i).write(op(a.add(i).read_unaligned(), b.add(i).read_unaligned()));
            }
        }
        line
    };
    let bytes = count * size_of::<T>();
    let whole = bytes & !(LINE - 1);
    for number in 0..whole / LINE {
        one_by_one();
        let at = abreast(number, whole);
        put(at, &line(at, LINE), LINE);
    }
    if bytes > whole {
        put(whole, &line(whole, bytes - whole), bytes - whole);
    }
}

/// Copies what is in use of a line.
#[inline(always)]
unsafe fn store(to: *mut u8, line: &Line, bytes: usize) {
    // SAFETY: the caller vouches for the target; unused bytes of the line are not read.
    unsafe {
        if bytes == LINE {
            to.cast::<[MaybeUninit<u8>; LINE]>().write_unaligned(line.0);
        } else {
            to.cast::<MaybeUninit<u8>>().copy_from_nonoverlapping(line.0.as_ptr(), bytes);
        }
    }
}

/// What a line is to be copied from.
#[inline(always)]
unsafe fn load(from: *const u8, bytes: usize) -> Line {
    let mut line = Line([MaybeUninit::uninit(); LINE]);
    // SAFETY: the caller vouches for the source.
    unsafe {
        if bytes == LINE {
            line.0 = from.cast::<[MaybeUninit<u8>; LINE]>().read_unaligned();
        } else {
            line.0.as_mut_ptr().copy_from_nonoverlapping(from.cast(), bytes);
        }
    }
    line
}

#[inline(always)]
unsafe fn divide_all<T: Number>(dst: *mut u8, count: usize, ranks: usize) {
    let dst = dst.cast::<T>();
    for i in 0..count {
        // SAFETY: as in `combine`.
        unsafe { dst.add(i).write_unaligned(dst.add(i).read_unaligned().divide(ranks)) }
    }
}

macro_rules! instances {
    ($set:ident, $name:literal, $strings:literal, $stream:ident $(, $feature:literal)?) => {
        mod $set {
            use super::*;

            /// Stores a line of a result and what is beside it.
            #[inline(always)]
            unsafe fn put(dst: Target, at: usize, line: &Line, bytes: usize) {
                // SAFETY: the caller vouches for the targets; what bypasses the caches is whole and aligned.
                unsafe {
                    match dst.beside {
                        Beside::Nothing => {}
                        Beside::Result(to) => store(to.add(at), line, bytes),
                        Beside::Copy { to, from } => store(to.add(at), &load(from.add(at), bytes), bytes),
                    }
                    if dst.bypass && bytes == LINE {
                        $stream(dst.to.add(at), line);
                    } else {
                        store(dst.to.add(at), line, bytes);
                    }
                }
            }

            macro_rules! reduce_with {
                ($op:ident) => {{
                    $(#[target_feature(enable = $feature)])?
                    unsafe fn run<T: Number>(dst: Target, a: *const u8, b: *const u8, count: usize) {
                        let dst = Target { bypass: dst.bypass && dst.to.align_offset(LINE) == 0, ..dst };
                        // SAFETY: passed on.
                        unsafe { combine::<T>(a, b, count, |x, y| x.$op(y), |at, line, n| put(dst, at, line, n)) }
                    }
                    run::<T>
                }};
            }

            const fn row<T: Number>() -> [Reduce; 5] {
                [reduce_with!(sum), reduce_with!(product), reduce_with!(min), reduce_with!(max), reduce_with!(sum)]
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn divide<T: Number>(dst: *mut u8, count: usize, ranks: usize) {
                // SAFETY: passed on.
                unsafe { divide_all::<T>(dst, count, ranks) }
            }

            const DIVIDE: [Divide; 12] = [
                divide::<f16>, divide::<bf16>, divide::<f32>, divide::<f64>, divide::<i8>, divide::<i16>,
                divide::<i32>, divide::<i64>, divide::<u8>, divide::<u16>, divide::<u32>, divide::<u64>,
            ];

            pub(super) static KERNELS: Kernels = Kernels {
                name: $name,
                reduce: [
                    row::<f16>(), row::<bf16>(), row::<f32>(), row::<f64>(), row::<i8>(), row::<i16>(),
                    row::<i32>(), row::<i64>(), row::<u8>(), row::<u16>(), row::<u32>(), row::<u64>(),
                ],
                divide: DIVIDE,
                strings: $strings,
            };
        }
    };
}

/// Stores a line past the caches, where the instruction set can.
#[inline(always)]
unsafe fn stream(to: *mut u8, line: &Line) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is part of x86-64; the target is aligned and writable, for which the caller vouches.
    unsafe {
        use std::arch::x86_64::{__m128i, _mm_load_si128, _mm_stream_si128};
        let from = line.0.as_ptr().cast::<__m128i>();
        for i in 0..LINE / size_of::<__m128i>() {
            _mm_stream_si128(to.cast::<__m128i>().add(i), _mm_load_si128(from.add(i)));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above.
    unsafe {
        store(to, line, LINE);
    }
}

/// As [`stream`], in one store.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn stream_512(to: *mut u8, line: &Line) {
    use std::arch::x86_64::{_mm512_load_si512, _mm512_stream_si512};
    // SAFETY: called from functions for AVX-512 only; otherwise as above.
    unsafe { _mm512_stream_si512(to.cast(), _mm512_load_si512(line.0.as_ptr().cast())) }
}

instances!(base, "base", false, stream);
#[cfg(target_arch = "x86_64")]
instances!(avx2, "avx2", true, stream, "avx2");
#[cfg(target_arch = "x86_64")]
instances!(avx512, "avx512", true, stream_512, "avx512f,avx512bw,avx512dq,avx512vl");

pub(super) static BASE: &Kernels = &base::KERNELS;

/// The sets that this machine can run, the best first.
pub(super) fn available() -> impl Iterator<Item = &'static Kernels> {
    #[cfg(target_arch = "x86_64")]
    let sets = [
        (has_avx512(), &avx512::KERNELS),
        (std::arch::is_x86_feature_detected!("avx2"), &avx2::KERNELS),
        (true, &base::KERNELS),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let sets = [(true, &base::KERNELS)];
    sets.into_iter().filter_map(|(usable, set)| usable.then_some(set))
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vl")
}
