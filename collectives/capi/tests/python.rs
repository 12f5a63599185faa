//! The Python package's own tests, run by Debian's interpreter on the shared object that was built with this test.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

const PYTHON: &str = "/usr/bin/python3";

fn skip(reason: &str) {
    assert!(std::env::var("MIGSHARE_REQUIRE").as_deref() != Ok("all"), "required but: {reason}");
    println!("SKIP: {reason}");
}

fn imports(module: &str) -> bool {
    let command = format!("import {module}");
    Command::new(PYTHON).args(["-c", &command]).output().is_ok_and(|output| output.status.success())
}

fn run(test: &str) {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python");
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let status = Command::new(PYTHON)
        .args(["-B", "-m", "unittest", "-v", test])
        .current_dir(package.join("tests"))
        .env("PYTHONPATH", package.join("src"))
        .env("MIGSHARE_LIBRARY", folder.join("libmigshare.so"))
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
}

#[test]
fn numpy_arrays_go_through_every_collective() {
    if !imports("numpy") {
        return skip("no numpy for /usr/bin/python3");
    }
    run("test_numpy");
}

#[test]
fn the_torch_backend_trains_like_gloo() {
    if !imports("torch") {
        return skip("no torch for /usr/bin/python3");
    }
    run("test_torch");
}
