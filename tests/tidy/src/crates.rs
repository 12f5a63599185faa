//! The crates of the workspace and what they depend on, as `cargo metadata` tells.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// One crate of the workspace.
#[derive(Debug, Clone)]
pub struct Crate {
    /// Name of the package.
    pub name: String,
    /// The folder with its `Cargo.toml`.
    pub dir: PathBuf,
    /// What it always depends on.
    pub normal: BTreeSet<String>,
    /// What only its tests and build script depend on.
    pub other: BTreeSet<String>,
}

/// All crates of the workspace by name.
///
/// # Panics
/// When cargo does not answer.
pub fn all() -> BTreeMap<String, Crate> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(super::tree::root());
    let output = command.output().unwrap_or_else(|e| panic!("cargo metadata: {e}"));
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("cargo metadata: {e}"));
    list(&answer, "packages").map(read).map(|c| (c.name.clone(), c)).collect()
}

fn read(package: &Value) -> Crate {
    let (normal, other): (Vec<_>, Vec<_>) = list(package, "dependencies").partition(|d| d["kind"].is_null());
    let names = |of: Vec<&Value>| of.into_iter().map(|d| text(d, "name")).collect();
    let manifest = PathBuf::from(text(package, "manifest_path"));
    Crate {
        name: text(package, "name"),
        dir: manifest.parent().map(PathBuf::from).unwrap_or_default(),
        normal: names(normal),
        other: names(other),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
