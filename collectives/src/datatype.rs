//! Element types and reduction operators; the numbers are those of `migshare.h` and never change.

/// Element type of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum DataType {
    F16 = 0,
    Bf16 = 1,
    F32 = 2,
    F64 = 3,
    I8 = 4,
    I16 = 5,
    I32 = 6,
    I64 = 7,
    U8 = 8,
    U16 = 9,
    U32 = 10,
    U64 = 11,
}

/// How elements are combined. Integers wrap; an integer average rounds toward zero; with a NaN the
/// minimum and maximum depend on rank order, but are equal on all ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ReduceOp {
    Sum = 0,
    Product = 1,
    Min = 2,
    Max = 3,
    Average = 4,
}

/// All types, by number.
pub const DATA_TYPES: [DataType; 12] = [
    DataType::F16,
    DataType::Bf16,
    DataType::F32,
    DataType::F64,
    DataType::I8,
    DataType::I16,
    DataType::I32,
    DataType::I64,
    DataType::U8,
    DataType::U16,
    DataType::U32,
    DataType::U64,
];

/// All operators, by number.
pub const REDUCE_OPS: [ReduceOp; 5] =
    [ReduceOp::Sum, ReduceOp::Product, ReduceOp::Min, ReduceOp::Max, ReduceOp::Average];

impl DataType {
    /// Bytes of one element.
    #[inline]
    #[must_use]
    pub fn bytes(self) -> usize {
        const BYTES: [u8; 12] = [2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8];
        BYTES[self as usize] as usize
    }

    /// The type with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|n| DATA_TYPES.get(n).copied())
    }
}

impl ReduceOp {
    /// The operator with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        usize::try_from(number).ok().and_then(|n| REDUCE_OPS.get(n).copied())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Rust types that are elements.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// The number of this type.
    const DATA_TYPE: DataType;
}

macro_rules! element {
    ($($rust:ty => $kind:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DATA_TYPE: DataType = DataType::$kind;
        }
    )*};
}

element! {
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}
