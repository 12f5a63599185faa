//! Processes by number and start time, so that a number that was used again is not taken for the old process.
//!
//! Only looks at `/proc`; signals nobody.

use serde::{Deserialize, Serialize};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pid {
    /// Its number.
    pub number: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Pid {
    /// The process that has this number now, if it lives.
    pub fn find(number: u32) -> Option<Pid> {
        started(number).map(|started| Pid { number, started })
    }

    /// Whether it still lives.
    pub fn alive(&self) -> bool {
        started(self.number) == Some(self.started)
    }

    /// Its command line's first word, or its short name.
    pub fn name(number: u32) -> Option<String> {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let first = line.split(|b| *b == 0).next().filter(|word| !word.is_empty());
        let short = || std::fs::read(format!("/proc/{number}/comm")).ok();
        let name = first.map(<[u8]>::to_vec).or_else(short)?;
        Some(String::from_utf8_lossy(&name).trim_end().to_owned())
    }
}

/// Field 22 of `/proc/<pid>/stat` (proc(5)); none for a zombie, which computes no more.
fn started(number: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name in field 2 may hold spaces and brackets: count from the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_is_gone_and_a_successor_is_another() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::find(child.id()).unwrap();
        assert!(pid.alive());
        assert!(!Pid { started: pid.started + 1, ..pid }.alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!pid.alive());
    }
}
