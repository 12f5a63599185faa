//! A long-running process of the cluster: munged, slurmctld, a slurmd, a migshared.
//!
//! It runs in the foreground as our child, so its process id is known and it is reaped at once; and it gets the
//! parent-death signal, so that it goes when the test is killed.

use crate::artifacts::file;
use crate::{Result, Trouble, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The command line of a daemon that dies with its starter.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Daemon {
    /// Starts what [`command`] made; its output is appended to the log.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Daemon> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let shown = log.display().to_string();
        let (out, err) = (open().map_err(|e| file(&shown, e))?, open().map_err(|e| file(&shown, e))?);
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| Trouble::Program(format!("cannot start {name}: {e}")))?;
        Ok(Daemon { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log when the daemon is gone.
    pub fn still_runs(&mut self) -> Result {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(Trouble::Program(format!("{} ended: {status}\n{}", self.name, self.tail())))
            }
            Err(e) => Err(Trouble::Program(format!("{}: {e}", self.name))),
        }
    }

    /// Asks it to stop and waits until it did.
    pub fn stop(mut self) -> Result {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let name = self.name.clone();
        wait::until(&format!("stopped: {name}"), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(e) => Err(e.to_string()),
        })
    }

    /// Kills it as a crash or the kernel's memory killer would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}
