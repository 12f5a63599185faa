//! Exact placement: the policy's own benchmark, run as it is.

use serde_json::{Map, Value};
use std::process::{Command, Stdio};

/// Its figures.
pub(crate) fn measure() -> Map<String, Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let bench = ["bench", "--quiet", "-p", "migshare-policy", "--bench", "place"];
    let output = Command::new(cargo).args(bench).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().find_map(|line| line.strip_prefix("RESULT ")).unwrap();
    println!("  {result}");
    serde_json::from_str(result).unwrap()
}
