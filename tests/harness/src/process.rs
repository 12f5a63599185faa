//! A command that somebody types: started, waited for with a deadline, and what came out of it.
//!
//! Output goes to files, not pipes: a background process that inherited a pipe would keep its reader waiting.

use crate::{Result, Sight, Trouble, wait};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// What a finished command left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Fails unless the command ended with 0.
    pub fn ok(self) -> Result<Outcome> {
        if self.code == Some(0) { Ok(self) } else { Err(self.unexpected("success")) }
    }

    /// Fails unless the command ended with an error of its own. Being killed by a signal is not one.
    pub fn refused(self) -> Result<Outcome> {
        if self.code.is_some_and(|c| c != 0) { Ok(self) } else { Err(self.unexpected("a refusal")) }
    }

    /// Fails unless the complaint has all of these words.
    pub fn says(self, words: &[&str]) -> Result<Outcome> {
        match words.iter().find(|word| !self.stderr.contains(**word)) {
            None => Ok(self),
            Some(word) => Err(self.unexpected(&format!("a message with `{word}`"))),
        }
    }

    /// What each task's witness saw, by node and task.
    pub fn sights(&self) -> Result<Vec<Sight>> {
        Sight::read_all(&self.stdout)
    }

    fn unexpected(&self, wanted: &str) -> Trouble {
        let Outcome { command, code, stdout, stderr } = self;
        Trouble::Unexpected(format!(
            "wanted {wanted} of `{command}`, got exit code {code:?}\nstdout: {stdout}\nstderr: {stderr}"
        ))
    }
}

/// A command on its way. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts a command with nothing to read and its output kept.
    pub fn start(mut command: Command) -> Result<Running> {
        let shown = show(&command);
        let cannot = |cause: std::io::Error| Trouble::Program(format!("cannot start `{shown}`: {cause}"));
        let (stdout, stderr) = (tempfile::tempfile().map_err(cannot)?, tempfile::tempfile().map_err(cannot)?);
        let (out, err) = (stdout.try_clone().map_err(cannot)?, stderr.try_clone().map_err(cannot)?);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(cannot)?;
        Ok(Running { command: shown, child, stdout, stderr })
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Result<Outcome> {
        let what = format!("ended: `{}`", self.command);
        let status = wait::until(&what, || self.poll())?;
        let (stdout, stderr) = (self.stdout(), text_of(&self.stderr));
        Ok(Outcome { command: self.command.clone(), code: status.code(), stdout, stderr })
    }

    /// What it printed so far.
    pub fn stdout(&self) -> String {
        text_of(&self.stdout)
    }

    /// Waits until it printed this text so many times.
    pub fn until_printed(&self, times: usize, text: &str) -> Result {
        wait::until(&format!("{times} x `{text}` by `{}`", self.command), || {
            let (stdout, stderr) = (self.stdout(), text_of(&self.stderr));
            if stdout.matches(text).count() >= times {
                Ok(())
            } else {
                Err(format!("{stdout}\nstderr: {stderr}"))
            }
        })
    }

    fn poll(&mut self) -> std::result::Result<ExitStatus, String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(format!("stdout: {}\nstderr: {}", self.stdout(), text_of(&self.stderr))),
            Err(e) => Err(e.to_string()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end.
pub fn run(command: Command) -> Result<Outcome> {
    Running::start(command)?.wait()
}

/// The text in a file, from its beginning. The place where the command writes next is shared with it and must not move:
/// what is read says itself where it is.
fn text_of(file: &File) -> String {
    let read = file.metadata().and_then(|of| {
        let mut bytes = vec![0; usize::try_from(of.len()).map_err(std::io::Error::other)?];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes)
    });
    match read {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => format!("(cannot be read: {e})"),
    }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    fn shell(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    #[test]
    fn an_outcome_has_code_and_both_texts() {
        let got = run(shell("echo out; echo err >&2; exit 3")).unwrap();
        assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(3), "out\n", "err\n"));
        assert!(got.clone().ok().is_err());
        assert!(got.refused().unwrap().says(&["err"]).is_ok());
    }

    #[test]
    fn reading_does_not_move_where_the_command_writes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"line\n").unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        assert_eq!(text_of(&file), "line\n");
        assert_eq!(file.stream_position().unwrap(), 2);
    }

    #[test]
    fn death_by_signal_is_no_refusal() {
        assert!(run(shell("kill -9 $$")).unwrap().refused().is_err());
    }
}
