//! A C program, compiled against the header and linked with the shared object, calls everything.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

/// The folder of the shared object that was built with this test.
fn library_folder() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn compiler() -> Option<&'static str> {
    ["cc", "gcc", "clang"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok())
}

fn skip(reason: &str) {
    assert!(std::env::var("MIGSHARE_REQUIRE").as_deref() != Ok("all"), "required but: {reason}");
    println!("SKIP: {reason}");
}

/// Compiles a program of this folder against header and shared object, and runs it.
fn compile_and_run(compiler: &str, source: &str) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let build = tempfile::tempdir().unwrap();
    let program = build.path().join("program");
    // The linker wants the soname beside the program.
    std::fs::copy(library_folder().join("libmigshare.so"), build.path().join("libmigshare.so.1")).unwrap();
    let compiled = Command::new(compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"])
        .arg(&program)
        .arg(root.join("tests").join(source))
        .arg(format!("-I{}", root.join("include").display()))
        .arg(build.path().join("libmigshare.so.1"))
        .arg("-pthread")
        .arg(format!("-Wl,-rpath,{}", build.path().display()))
        .status()
        .unwrap();
    assert!(compiled.success());
    assert!(Command::new(&program).status().unwrap().success());
}

#[test]
fn a_c_program_calls_every_function_of_the_header() {
    let Some(compiler) = compiler() else { return skip("no C compiler") };
    compile_and_run(compiler, "abi.c");
}

#[test]
fn what_the_header_promises_beside_results_is_so() {
    let Some(compiler) = compiler() else { return skip("no C compiler") };
    compile_and_run(compiler, "promises.c");
}

#[test]
fn every_collective_type_and_operator_gives_what_a_scalar_loop_gives() {
    let Some(compiler) = compiler() else { return skip("no C compiler") };
    compile_and_run(compiler, "matrix.c");
}

#[test]
fn the_header_is_c99_and_cpp() {
    let Some(compiler) = compiler() else { return skip("no C compiler") };
    let header = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("include/migshare.h");
    // The numbers of the ABI, by whoever compiles: they never change. A C++ parser comes with the compiler or is missed.
    let asserts = "enum { ok = 1 / (MIGSHARE_MISMATCH == 5 && MIGSHARE_INTERNAL == 12 && MIGSHARE_U64 == 11 && \
                   MIGSHARE_AVERAGE == 4 && MIGSHARE_ABI_VERSION == 1 && sizeof(migshare_request) == 8) };\n";
    for (language, standard) in
        [("c", "-std=c99"), ("c", "-std=c23"), ("c++", "-std=c++98"), ("c++", "-std=c++20")]
    {
        let probe = |text: String| {
            let build = tempfile::tempdir().unwrap();
            let source = build.path().join("source");
            std::fs::write(&source, text).unwrap();
            let mut command = Command::new(compiler);
            command.args([
                standard,
                "-x",
                language,
                "-fsyntax-only",
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
            ]);
            command
                .args(["-Wno-long-long", "-Wno-variadic-macros"])
                .arg(source)
                .output()
                .unwrap()
                .status
                .success()
        };
        if !probe("int x;\n".to_owned()) {
            println!("SKIP: {compiler} has no {language} of {standard}");
            continue;
        }
        let twice = format!("#include \"{0}\"\n#include \"{0}\"\n{asserts}", header.display());
        assert!(probe(twice), "{language} {standard}");
    }
}

#[test]
fn the_header_and_the_shared_object_name_the_same_functions() {
    let header = include_str!("../include/migshare.h");
    let declared: std::collections::BTreeSet<&str> = header
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '(')
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("migshare_"))
        .collect();
    let Ok(listed) = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library_folder().join("libmigshare.so"))
        .output()
    else {
        return skip("no nm");
    };
    let text = String::from_utf8(listed.stdout).unwrap();
    let exported: std::collections::BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|n| n.starts_with("migshare_"))
        .collect();
    assert_eq!(declared, exported);
}
