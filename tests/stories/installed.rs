//! What `make install` puts in place can be used as documented: names, paths, header, pages.

use migshare_harness::{Result, artifacts::Artifacts, ensure, process};
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = "#include <migshare.h>
#include <stdio.h>
int main(void) { printf(\"%d %s\\n\", migshare_abi_version() == MIGSHARE_ABI_VERSION, migshare_status_name(0)); return 0; }
";

#[test]
fn programs_libraries_units_and_pages_are_where_they_are_looked_for() -> Result {
    let dir = tempfile::tempdir().expect("a directory");
    let prefix = dir.path().join("usr");
    install(dir.path())?;
    for program in ["bin/migshare", "bin/migshare-gres", "bin/migshare-storage", "sbin/migshared"] {
        let version = run(Command::new(prefix.join(program)).arg("--version"))?;
        ensure(version.ends_with(&format!(" {}\n", env!("CARGO_PKG_VERSION"))), || version)?;
    }
    units_name_programs_that_are_there(&prefix)?;
    for page in ["man1/migshare.1", "man1/migshare-apply.1", "man8/migshared.8"] {
        ensure(prefix.join("share/man").join(page).exists(), || format!("no {page}"))?;
    }
    ensure(prefix.join("lib/slurm/spank_migshare.so").exists(), || "no plugin".to_owned())?;
    a_c_program_links_and_runs(dir.path(), &prefix)?;
    nccl_finds_its_plugin(&prefix)?;
    configuration_of_the_site_is_kept(dir.path())
}

fn install(dir: &Path) -> Result {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/scripts/install.sh");
    let mut install = Command::new(script);
    install.arg(Artifacts::find()?.get("migshare")?.parent().unwrap_or(Path::new("/")));
    install.env("PREFIX", dir.join("usr")).env("SYSCONFDIR", dir.join("etc"));
    process::run(install)?.ok().map(drop)
}

/// Runs a command that has to succeed; what it printed.
fn run(command: &mut Command) -> Result<String> {
    let command = std::mem::replace(command, Command::new("true"));
    Ok(process::run(command)?.ok()?.stdout)
}

fn units_name_programs_that_are_there(prefix: &Path) -> Result {
    for unit in ["migshared.service", "migshare-storage@.service"] {
        let text = std::fs::read_to_string(prefix.join("lib/systemd/system").join(unit)).unwrap_or_default();
        let starts = text.lines().find_map(|line| line.strip_prefix("ExecStart=")?.split(' ').next());
        ensure(starts.is_some_and(|program| Path::new(program).exists()), || format!("{unit}: {starts:?}"))?;
    }
    Ok(())
}

/// With what pkg-config would say, and by the library's soname at run time.
fn a_c_program_links_and_runs(dir: &Path, prefix: &Path) -> Result {
    let (source, program, lib) = (dir.join("program.c"), dir.join("program"), prefix.join("lib"));
    std::fs::write(&source, PROGRAM).expect("a file");
    let pc = std::fs::read_to_string(lib.join("pkgconfig/migshare.pc")).unwrap_or_default();
    let libs = pc.lines().find_map(|line| line.strip_prefix("Libs: ")).unwrap_or_default();
    let mut compiler = Command::new("cc");
    compiler.arg("-o").args([&program, &source]).arg(format!("-I{}", prefix.join("include").display()));
    run(compiler.args(libs.split(' ')))?;
    let said = run(Command::new(&program).env("LD_LIBRARY_PATH", &lib))?;
    ensure(said.starts_with("1 "), || said)
}

/// `NCCL_NET_PLUGIN=migshare` makes NCCL load this name and look for these tables.
fn nccl_finds_its_plugin(prefix: &Path) -> Result {
    let look = "import ctypes,sys\nlib=ctypes.CDLL(sys.argv[1])\n[getattr(lib,'ncclNetPlugin_v%d'%v) for v in (6,8,10,12)]";
    let plugin = prefix.join("lib/libnccl-net-migshare.so");
    run(Command::new("python3").args(["-c", look]).arg(plugin)).map(drop)
}

fn configuration_of_the_site_is_kept(dir: &Path) -> Result {
    let config = dir.join("etc/migshare/agent.toml");
    std::fs::write(&config, "# the site's own\n").expect("a file");
    install(dir)?;
    let kept = std::fs::read_to_string(&config).unwrap_or_default();
    ensure(kept == "# the site's own\n", || kept)
}
