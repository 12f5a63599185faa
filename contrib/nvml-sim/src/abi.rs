//! NVML's C ABI: the exported functions, by the part of nvml.h they are in.
//!
//! Each function is one line of glue around the session and the machine. Pointers from C are touched in [`border`]
//! alone; [`layout`] holds the structures of nvml.h. What NVML has and a simulator cannot answer truthfully
//! (sensors, clocks, vGPU, …) is exported by [`absent`] and says NOT_SUPPORTED.

pub mod absent;
pub mod border;
pub mod compute_instance;
pub mod device;
pub mod event;
pub mod gpu_instance;
pub mod layout;
pub mod mig_device;
pub mod platform;
pub mod processes;
pub mod system;

/// Defines exported functions: each checks the session, lets faults strike, and turns the result into a code.
/// `on` names the handle that faults for one GPU look at.
macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(on $on:ident)? |$call:ident| $body:block)*) => {
        $(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($($arg: $ty),*) -> u32 {
                let on = exports!(@on $($on)?);
                $crate::abi::border::call(stringify!($name), on, |$call| $body)
            }
        )*
        /// Names of the functions above.
        pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
    (@on) => { None };
    (@on $on:ident) => { Some($on) };
}
pub(crate) use exports;

/// Names of all functions that faults can strike.
pub fn simulated() -> impl Iterator<Item = &'static str> {
    let parts = [
        &["nvmlInit_v2"][..],
        system::NAMES,
        device::NAMES,
        platform::NAMES,
        event::NAMES,
        gpu_instance::NAMES,
        compute_instance::NAMES,
        mig_device::NAMES,
        processes::NAMES,
    ];
    parts.into_iter().flatten().copied()
}
