//! The files of the tree, without what is built and what git keeps.

use std::path::{Path, PathBuf};

/// One text file.
#[derive(Debug, Clone)]
pub struct Text {
    /// Path below the root of the tree.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl Text {
    /// Whether it is a source file in Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is a document.
    pub fn is_document(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// Lines that are code: neither blank nor comment. Tests at the end of a file are not counted.
    pub fn code_lines(&self) -> usize {
        let code = self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        code.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
    }
}

/// The root of the tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All text files of the tree.
///
/// # Panics
/// When the tree cannot be read.
pub fn texts() -> Vec<Text> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(std::fs::read(&path).ok()?).ok()?;
            Some(Text { path: path.strip_prefix(&root).ok()?.display().to_string(), text })
        })
        .collect()
}

/// Folders, and git's file in a linked work tree, with nothing that a person wrote.
const NOT_OURS: &[&str] = &[".git", "target", "out", "node_modules", "__pycache__"];

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else { continue };
        if NOT_OURS.iter().any(|n| name == *n) {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), into);
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
}
