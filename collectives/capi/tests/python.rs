//! The Python package's own tests, run by Debian's interpreter on the shared object that was built with this test.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
fn signals_end_waits_for_other_ranks() {
    if !imports("numpy") {
        return skip("no numpy for /usr/bin/python3");
    }
    run("test_interrupt");
}

#[test]
fn every_call_of_torch_gives_what_gloo_gives() {
    if !imports("torch") {
        return skip("no torch for /usr/bin/python3");
    }
    run("test_torch_calls");
}

#[test]
fn the_torch_backend_trains_like_gloo() {
    if !imports("torch") {
        return skip("no torch for /usr/bin/python3");
    }
    run("test_torch");
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// The pip of the virtual environment that `contrib/scripts/install-needs.sh` makes beside the build, which has setuptools.
fn pip() -> Command {
    let venv = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("venv");
    let mut command = Command::new(venv.join("bin/python"));
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

/// Builds the wheel without any index, and outside of the source tree, in which setuptools would leave its folders.
fn build_wheel(folder: &Path) -> Output {
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python");
    assert!(Command::new("cp").arg("-r").arg(sources).arg(folder.join("python")).status().unwrap().success());
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libmigshare.so");
    output(
        pip()
            .args(["wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir"])
            .args([folder, &folder.join("python")])
            .env("MIGSHARE_LIBRARY", library),
    )
}

#[test]
fn the_wheel_is_for_any_python_of_the_platform_and_works_where_it_is_installed() {
    if !imports("numpy") {
        return skip("no numpy for /usr/bin/python3");
    }
    if !pip().args(["show", "--quiet", "setuptools"]).output().is_ok_and(|shown| shown.status.success()) {
        return skip("no virtual environment with setuptools beside the build: run `make needs`");
    }
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    let made = output(
        Command::new(PYTHON).args(["-m", "venv", "--without-pip", "--system-site-packages"]).arg(&venv),
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let built = build_wheel(folder.path());
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let platform = format!("linux_{}", std::env::consts::ARCH);
    let wheel = folder.path().join(format!("migshare-0.1.0-py3-none-{platform}.whl"));
    let installed = output(
        pip()
            .arg("--python")
            .arg(venv.join("bin/python"))
            .args(["install", "--quiet", "--no-index", "--no-deps"])
            .arg(&wheel),
    );
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let python = |arguments: &[&str]| {
        let mut command = Command::new(venv.join("bin/python"));
        command.current_dir(folder.path().join("python/tests")).env_remove("PYTHONPATH");
        output(command.env_remove("MIGSHARE_LIBRARY").args(arguments))
    };
    let tested = python(&["-B", "-m", "unittest", "-v", "test_numpy"]);
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    let found = python(&["-c", "import migshare._library as m; print(m.LIBRARY._name)"]);
    let packed = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
    assert!(packed.starts_with(&venv), "{}", packed.display());
    let sections = output(Command::new("readelf").args(["-S", "--wide"]).arg(&packed));
    let sections = String::from_utf8(sections.stdout).unwrap();
    assert!(sections.contains(".dynsym") && !sections.contains(".debug_") && !sections.contains(".symtab"));
}
