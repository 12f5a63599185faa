//! Lines of Slurm's configuration files: comments, continuation, `Key=Value` words, `Include`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest chain of includes.
const DEEPEST: u32 = 8;

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// One line with what it says and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file.
    pub file: PathBuf,
    /// Number of its first line in the file, from 1.
    pub number: usize,
    /// The words; a quoted value is one word without its quotes.
    pub words: Vec<String>,
}

impl Line {
    /// The value of a key, whatever its case.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| {
            let (name, value) = word.split_once('=')?;
            name.eq_ignore_ascii_case(key).then_some(value)
        })
    }

    /// `file:number`.
    pub fn at(&self) -> String {
        format!("{}:{}", self.file.display(), self.number)
    }
}

/// Reads a file with all that it includes. A relative include is relative to the directory of the first file; a `*`
/// in the last part of its path stands for anything, as in plugstack.conf.
pub fn read(path: &Path) -> Result<Vec<Line>, ReadError> {
    let mut lines = Vec::new();
    let root = path.parent().unwrap_or(Path::new("/")).to_owned();
    read_into(path, &root, DEEPEST, &mut lines)?;
    Ok(lines)
}

fn read_into(path: &Path, root: &Path, depth: u32, into: &mut Vec<Line>) -> Result<(), ReadError> {
    let text = fs::read_to_string(path).map_err(|source| ReadError { path: path.to_owned(), source })?;
    for line in parse(path, &text) {
        match line.words.first() {
            Some(word) if word.eq_ignore_ascii_case("include") && depth > 0 => {
                for included in line.words.iter().skip(1).flat_map(|p| expand(&root.join(p))) {
                    read_into(&included, root, depth - 1, into)?;
                }
            }
            _ => into.push(line),
        }
    }
    Ok(())
}

/// The lines of a text that say anything.
fn parse(file: &Path, text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let (mut whole, mut first) = (String::new(), 1);
    for (number, line) in (1..).zip(text.lines()) {
        if whole.is_empty() {
            first = number;
        }
        if let Some(more) = line.strip_suffix('\\') {
            whole.push_str(more);
            continue;
        }
        whole.push_str(line);
        let words = words(&whole);
        if !words.is_empty() {
            lines.push(Line { file: file.to_owned(), number: first, words });
        }
        whole.clear();
    }
    lines
}

/// Words up to a comment. `\#` is no comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut before) = (Vec::new(), String::new(), false, ' ');
    for c in line.chars() {
        match c {
            '#' if before != '\\' => break,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.extend(take(&mut word)),
            c => word.push(c),
        }
        before = c;
    }
    words.extend(take(&mut word));
    words
}

fn take(word: &mut String) -> Option<String> {
    (!word.is_empty()).then(|| std::mem::take(word))
}

/// The files that an include names. One without `*` is named even if it is not there, so that reading it fails.
fn expand(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((before, after)) = name.split_once('*') else { return vec![path.to_owned()] };
    let entries = path.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let fits = |name: &str| {
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    let mut found: Vec<PathBuf> =
        entries.filter(|e| fits(&e.file_name().to_string_lossy())).map(|e| e.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_stripped_of_comments_and_split() {
        let text = "# all comment\n\nNodeName=n1 \\\n  gres=mig:7 # seven\nReason=\"two words\" X=\\#1\n";
        let lines = parse(Path::new("slurm.conf"), text);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (lines[0].number, lines[0].get("Gres"), lines[0].get("NODENAME")),
            (3, Some("mig:7"), Some("n1"))
        );
        assert_eq!(lines[1].get("reason"), Some("two words"));
        assert_eq!(lines[1].at(), "slurm.conf:5");
    }

    #[test]
    fn includes_are_followed_with_stars_and_without() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        put("slurm.conf", "A=1\nInclude nodes.conf\ninclude d/*.conf\nZ=1\n");
        put("nodes.conf", "B=1\n");
        put("d/2.conf", "D=1\n");
        put("d/1.conf", "C=1\n");
        put("d/1.conf.bak", "X=1\n");
        let words: Vec<_> =
            read(&dir.path().join("slurm.conf")).unwrap().into_iter().flat_map(|l| l.words).collect();
        assert_eq!(words, ["A=1", "B=1", "C=1", "D=1", "Z=1"]);
    }

    #[test]
    fn a_missing_include_is_an_error_that_names_it_and_a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slurm.conf");
        fs::write(&path, "Include nodes.conf\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("nodes.conf"));
        fs::write(&path, "Include slurm.conf\n").unwrap();
        assert!(read(&path).unwrap().len() == 1);
    }
}
