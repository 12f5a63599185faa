//! A step with ranks that are processes of their own: a slurmstepd by role, and what its ranks say.

use crate::rig::{Ends, Rig, key, tied};
use migshare_proto::message::{OpenSegment, Reply, Request, SegmentReply};
use migshare_proto::{ClientError, JobKey, StepId};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

pub(crate) const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/process/programs/stepd.py");

/// A step. Its processes end with it.
pub(crate) struct Step {
    stepd: Ends,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Step {
    /// Starts a slurmstepd with so many ranks, which know the agent's second socket.
    pub(crate) fn start(rig: &Rig, ranks: u32) -> Step {
        let mut command = Command::new("python3");
        command.arg(PROGRAM).arg(rig.path("segment.sock")).arg(ranks.to_string());
        Step::of(&command)
    }

    /// A step by a command that ends up in the program.
    pub(crate) fn of(command: &Command) -> Step {
        let mut stepd = Ends::start(tied(command).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let (to, from) = (stepd.stdin.take(), BufReader::new(stepd.stdout.take().unwrap()));
        let mut step = Step { stepd, to, from };
        assert_eq!(step.line(), "started");
        step
    }

    /// The slurmstepd's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.stepd.id()
    }

    /// What a rank answers to a command of the program.
    pub(crate) fn rank(&mut self, number: u32, command: &str) -> String {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{number} {command}").and_then(|()| to.flush()).unwrap();
        self.line()
    }

    /// Kills the slurmstepd alone, as the kernel does when memory is short. Its ranks end when they have said what they
    /// are asked here, or with the test.
    pub(crate) fn kill_stepd(&mut self) {
        self.stepd.kill().unwrap();
        self.stepd.wait().unwrap();
    }

    /// Moves the slurmstepd's ranks into a cgroup.
    pub(crate) fn enter(&mut self, cgroup: &Path, ranks: u32) {
        for rank in 0..ranks {
            let pid = self.rank(rank, "pid");
            std::fs::write(cgroup.join("cgroup.procs"), pid).unwrap();
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the slurmstepd or its rank ended: \"{line}\"");
        line.trim_end().to_owned()
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // Ranks end with their standard input.
        drop(self.to.take());
    }
}

/// A job of the user that the test runs as.
pub(crate) fn own_job(job: u32) -> JobKey {
    JobKey { uid: nix::unistd::geteuid().as_raw(), ..key(job) }
}

impl Rig {
    /// Lets a step have a segment, as the plugin does.
    pub(crate) fn segment(
        &self,
        job: JobKey,
        leaves: u32,
        bytes: Option<u64>,
        holder: u32,
    ) -> Result<SegmentReply, ClientError> {
        let request = OpenSegment { job, step: StepId(0), leaves, bytes, holder };
        match self.ask(Request::OpenSegment(request))? {
            Reply::Segment(segment) => Ok(segment),
            other => panic!("{other:?} to open_segment"),
        }
    }

    /// A running step 0 of a job of this user, with a segment of the default size.
    pub(crate) fn step(&self, job: u32, ranks: u32) -> Step {
        let step = Step::start(self, ranks);
        assert_eq!(self.segment(own_job(job), 2, None, step.pid()).unwrap().bytes, Some(256 << 20));
        step
    }
}
