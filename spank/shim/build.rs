//! Declarations of Slurm's C interface, from the headers of the Slurm that the plugin is built for.
//!
//! Slurm refuses a SPANK plugin of another release series, so there is one `.so` per series and one source for all
//! of them. Headers are looked for in `SLURM_INCLUDE_DIR` (the directory that holds `slurm/spank.h`), then where
//! `pkg-config slurm` says, then where the C compiler looks by itself.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const HEADERS: &str = "#include <stdlib.h>\n#include <slurm/slurm.h>\n#include <slurm/spank.h>\n";

const FUNCTIONS: &[&str] = &[
    "slurm_(error|info|debug|spank_log|init|fini|load_job|free_job_info_msg|get_job_steps|strerror)",
    "slurm_(free_job_step_info_response_msg|hostlist_(create|find|destroy)|init_update_node_msg|update_node|requeue)",
    "slurm_(load_node|free_node_info_msg|load_partitions|free_partition_info_msg|init_job_desc_msg|update_job)",
    "spank_(context|get_item|getenv|setenv|unsetenv|option_register|option_getopt|strerror)",
];
const TYPES: &[&str] = &[
    "spank_.*",
    "job_info_msg_t",
    "job_step_info_response_msg_t",
    "update_node_msg_t",
    "slurm_step_id_t",
    "node_info_msg_t",
    "partition_info_msg_t",
    "job_desc_msg_t",
];
const CONSTANTS: &[&str] =
    &["SLURM_VERSION_NUMBER", "SLURM_SUCCESS", "NODE_STATE_DRAIN", "NO_VAL", "SLURM_ERROR"];

/// First series whose `slurm_get_job_steps` takes a step id as a struct.
const STEP_ID_STEPS: u32 = 0x19_0b_00;
/// First series whose `slurm_load_job` and `slurm_requeue` do.
const STEP_ID_JOBS: u32 = 0x1a_05_00;

fn main() {
    println!("cargo::rerun-if-env-changed=SLURM_INCLUDE_DIR");
    println!("cargo::rustc-check-cfg=cfg(slurm_step_id_steps)");
    println!("cargo::rustc-check-cfg=cfg(slurm_step_id_jobs)");
    let text = declarations();
    let version = version(&text).expect("slurm_version.h defines SLURM_VERSION_NUMBER");
    if version >= STEP_ID_STEPS {
        println!("cargo::rustc-cfg=slurm_step_id_steps");
    }
    if version >= STEP_ID_JOBS {
        println!("cargo::rustc-cfg=slurm_step_id_jobs");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("slurm.rs"), text).expect("OUT_DIR can be written");
}

fn declarations() -> String {
    let mut builder = bindgen::Builder::default()
        .header_contents("slurm-all.h", HEADERS)
        .clang_args(include_arguments())
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(false)
        .layout_tests(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()));
    for pattern in FUNCTIONS {
        builder = builder.allowlist_function(pattern);
    }
    for pattern in TYPES {
        builder = builder.allowlist_type(pattern);
    }
    for pattern in CONSTANTS {
        builder = builder.allowlist_var(pattern);
    }
    match builder.generate() {
        Ok(bindings) => bindings.to_string(),
        Err(e) => panic!(
            "Slurm's headers cannot be read ({e}). Install them (Debian: libslurm-dev; Slurm's own packages: \
             slurm-devel or slurm-smd-dev) and libclang, or set SLURM_INCLUDE_DIR to the directory that holds \
             slurm/spank.h"
        ),
    }
}

fn include_arguments() -> Vec<String> {
    if let Some(dir) = env::var_os("SLURM_INCLUDE_DIR") {
        return vec![format!("-I{}", dir.to_string_lossy())];
    }
    let answer = Command::new("pkg-config").args(["--cflags-only-I", "slurm"]).output();
    match answer {
        Ok(out) if out.status.success() => {
            String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// The number in `pub const SLURM_VERSION_NUMBER: u32 = 1443080;`.
fn version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("SLURM_VERSION_NUMBER: u32 = ")?;
    rest.split(';').next()?.trim().parse().ok()
}
