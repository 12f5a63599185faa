//! The part of `suites/` that fits into every run; `make suites` runs all of it.

use std::process::Command;

use super::rig::{BINARY, can_mount};

#[test]
fn fio_finds_every_block_as_it_wrote_it_while_policies_flip() {
    if !can_mount() {
        return;
    }
    if Command::new("fio").arg("--version").output().is_err() {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs fio");
        println!("SKIP: needs fio");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/run.sh");
    assert!(Command::new(script).arg(BINARY).env("PHASES", "fio").status().unwrap().success());
}
