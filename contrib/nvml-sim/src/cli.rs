//! The subcommands, one file each.

pub(crate) mod fault;
pub(crate) mod hardware;
pub(crate) mod library;
pub(crate) mod models;
pub(crate) mod process;
pub(crate) mod status;
