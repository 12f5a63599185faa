//! A user's shell on the cluster: srun, sbatch, salloc and the rest, typed as a user would type them.

use crate::process::{self, Outcome, Running};
use crate::slurm::Job;
use crate::{Result, Trouble, artifacts};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// `nobody`: a user without any right.
    Nobody,
    /// The administrator.
    Root,
}

/// Where programs are on Debian.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Ids of `nobody` and `nogroup` on Debian.
const NOBODY: u32 = 65534;

/// A shell on the cluster.
#[derive(Debug, Clone)]
pub struct Login {
    pub(crate) dir: PathBuf,
    pub(crate) who: Who,
}

impl Login {
    pub(crate) fn new(dir: &Path, who: Who) -> Login {
        Login { dir: dir.to_owned(), who }
    }

    /// A command with the user's environment. Words are split at blanks.
    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("true"));
        command.args(words).current_dir(self.dir.join("work")).env_clear().envs(self.environment());
        if self.who == Who::Nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, line: &str) -> Result<Outcome> {
        process::run(self.command(line))
    }

    /// Runs a command line whose last argument is a shell script: `sh -c script`.
    pub fn run_script(&self, line: &str, script: &str) -> Result<Outcome> {
        self.start_script(line, script)?.wait()
    }

    /// Starts a command line.
    pub fn start(&self, line: &str) -> Result<Running> {
        Running::start(self.command(line))
    }

    /// Starts a command line whose last argument is a shell script: `sh -c script`.
    pub fn start_script(&self, line: &str, script: &str) -> Result<Running> {
        let mut command = self.command(line);
        command.args(["sh", "-c", script]);
        Running::start(command)
    }

    /// Submits a batch script.
    pub fn sbatch(&self, options: &str, script: &str) -> Result<Job> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let work = self.dir.join("work");
        let (file, output) = (work.join(format!("batch-{n}.sh")), work.join(format!("batch-{n}.out")));
        artifacts::write(&file, &format!("#!/bin/sh\n{script}\n"))?;
        let line = format!("sbatch --parsable -o {} {options} {}", output.display(), file.display());
        let submitted = self.run(&line)?.ok()?;
        let id = submitted.stdout.trim().parse();
        let id = id.map_err(|_| Trouble::Unexpected(format!("sbatch printed {:?}", submitted.stdout)))?;
        Ok(Job { login: self.clone(), id, output })
    }

    /// `%n` is the node's name: the simulated NVML expands it by itself.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let below = |path: &str| self.dir.join(path).display().to_string();
        let own = std::env::var("PATH").unwrap_or_default();
        vec![
            // The daemons come from the test's own PATH, and their commands must be of the same Slurm.
            ("PATH", format!("{}:{own}:{SYSTEM}", below("bin"))),
            ("HOME", below("work")),
            ("LANG", "C.UTF-8".to_owned()),
            ("SLURM_CONF", below("etc/slurm.conf")),
            ("LD_LIBRARY_PATH", below("lib/nvml")),
            ("PYTHONPATH", below("lib/python")),
            ("NVML_SIM_CONFIG", below("nodes/%n/nvml.toml")),
            ("LEAF_WITNESS_ROOT", below("nodes/%n/root")),
        ]
    }

    /// A file in the directory that every user may write to.
    pub fn work_file(&self, name: &str) -> PathBuf {
        self.dir.join("work").join(name)
    }
}
