//! What a storey of tests needs from the machine, and the rule for when it is not there.

use std::path::Path;

/// The programs without which there is no cluster, and who brings them.
const PROGRAMS: &[&str] =
    &["munged", "slurmctld", "slurmd", "srun", "sbatch", "salloc", "scontrol", "setpriv"];

/// Whether the cluster stories can run here. A skip is printed; with `MIGSHARE_REQUIRE=all` it is a failure.
///
/// # Panics
/// When something is missing and `MIGSHARE_REQUIRE` is `all`.
pub fn cluster_can_run() -> bool {
    let reason = if nix::unistd::geteuid().is_root() {
        PROGRAMS.iter().find(|name| !in_path(name)).map(|name| format!("{name} is not in PATH"))
    } else {
        Some("a cluster with device filters needs root".to_owned())
    };
    reason.is_none_or(skip)
}

/// Whether a program that only some stories need is there, with the same rule.
///
/// # Panics
/// When it is not and `MIGSHARE_REQUIRE` is `all`.
pub fn is_there(program: &str) -> bool {
    in_path(program) || skip(format!("{program} is not in PATH"))
}

fn skip(reason: String) -> bool {
    assert!(std::env::var("MIGSHARE_REQUIRE").as_deref() != Ok("all"), "MIGSHARE_REQUIRE=all, but {reason}");
    println!("SKIP: {reason}");
    false
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new("/usr/sbin").to_owned()])
        .any(|dir| dir.join(name).is_file())
}
