//! Stories about the simulated library as C programs meet it: loaded from its shared object, with the structures of
//! nvml-wrapper-sys.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod concurrency;
mod exports;
mod faults;
mod identity;
mod layouts;
mod library;
mod modes;
mod node;
mod processes;
mod python;
mod rules;
mod tree;
mod users;
mod wrapper;
