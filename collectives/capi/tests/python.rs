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
fn the_torch_backend_trains_like_gloo() {
    if !imports("torch") {
        return skip("no torch for /usr/bin/python3");
    }
    run("test_torch");
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Builds the wheel outside of the source tree, in which setuptools would leave its folders.
fn build_wheel(folder: &Path) -> Output {
    let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python");
    assert!(Command::new("cp").arg("-r").arg(sources).arg(folder.join("python")).status().unwrap().success());
    let library = std::env::current_exe().unwrap().parent().unwrap().join("libmigshare.so");
    output(
        Command::new(folder.join("venv/bin/pip"))
            .args(["--disable-pip-version-check", "wheel", "--quiet", "--no-deps", "--wheel-dir"])
            .args([folder, &folder.join("python")])
            .env("MIGSHARE_LIBRARY", library),
    )
}

#[test]
fn the_wheel_is_for_any_python_of_the_platform_and_works_where_it_is_installed() {
    if !imports("numpy") || !imports("venv") {
        return skip("no numpy or no venv for /usr/bin/python3");
    }
    let folder = tempfile::tempdir().unwrap();
    let venv = folder.path().join("venv");
    let made = output(Command::new(PYTHON).args(["-m", "venv", "--system-site-packages"]).arg(&venv));
    if !made.status.success() {
        return skip("no virtual environments for /usr/bin/python3");
    }
    let built = build_wheel(folder.path());
    let complaint = String::from_utf8_lossy(&built.stderr);
    if complaint.contains("No matching distribution found for setuptools") {
        return skip("no setuptools to be had from PyPI");
    }
    assert!(built.status.success(), "{complaint}");
    let platform = format!("linux_{}", std::env::consts::ARCH);
    let wheel = folder.path().join(format!("migshare-0.1.0-py3-none-{platform}.whl"));
    let install = ["--disable-pip-version-check", "install", "--quiet", "--no-deps"];
    assert!(Command::new(venv.join("bin/pip")).args(install).arg(&wheel).status().unwrap().success());
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
