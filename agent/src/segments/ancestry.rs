//! Which of some processes a process descends from: for sites where no cgroup names the step (`proctrack/linuxproc` without
//! device files to filter). The slurmstepd that holds a grant is the ancestor of all that its step started.
//!
//! A process that outlived its parent is handed to another one and then descends from nobody here: that is refused, not
//! guessed at.

use crate::process;
use migshare_policy::record::Holder;

/// Longest chain that is followed.
const DEPTH: usize = 256;

/// The nearest ancestor of `pid` for which `known` has an answer.
pub(super) fn nearest<T>(pid: u32, known: impl Fn(Holder) -> Option<T>) -> Option<T> {
    let (mut child, mut born) = (pid, process::parent(pid)?.1);
    for _ in 0..DEPTH {
        let parent = process::holder(process::parent(child)?.0);
        // A child that still has this parent, after the parent was looked at, has it for its parent: had that one ended
        // meanwhile, the child would have been given to another process before the pid could be used again.
        if process::parent(child)? != (parent.pid, born) || parent.born == 0 {
            return None;
        }
        if let Some(found) = known(parent) {
            return Some(found);
        }
        (child, born) = (parent.pid, parent.born);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::process::{Command, Stdio};

    #[test]
    fn a_grandchild_descends_from_this_process_and_from_no_other_of_its_pid() {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", "sleep 600 & echo $!; read line; kill $!; wait"]);
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild = line.trim().parse().unwrap();
        let me = process::holder(std::process::id());
        assert_eq!(nearest(grandchild, |h| (h == me).then_some(7)), Some(7));
        assert_eq!(nearest(grandchild, |h| (h == Holder { born: me.born + 1, ..me }).then_some(7)), None);
        let nearest_of_all = nearest(grandchild, |h| Some(h.pid));
        assert_eq!(nearest_of_all, Some(shell.id()), "the nearest counts");
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!(nearest(grandchild, |h| (h == me).then_some(7)), None);
    }
}
