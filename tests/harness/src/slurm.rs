//! What Slurm says: its queue, its nodes, its jobs.

use crate::login::Who;
use crate::{Cluster, Login, Result, Sight, Trouble, wait};
use std::path::PathBuf;

/// A line of squeue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Job id.
    pub job: u32,
    /// State, `RUNNING` for example.
    pub state: String,
}

/// A line of sinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Name.
    pub node: String,
    /// State in lower case, `idle` for example; the marks `*` and so on stay.
    pub state: String,
    /// Why it is drained or down; `none` where it is not.
    pub reason: String,
}

/// Jobs that wait, run or complete.
pub fn queue(cluster: &Cluster) -> std::result::Result<Vec<Queued>, String> {
    let lines = ask(cluster, "squeue --noheader --states=all --format=%i|%T")?;
    let jobs = lines.lines().filter_map(|line| {
        let (job, state) = line.split_once('|')?;
        Some(Queued { job: job.trim().parse().ok()?, state: state.to_owned() })
    });
    Ok(jobs.filter(|q| UNFINISHED.contains(&q.state.as_str())).collect())
}

const UNFINISHED: &[&str] =
    &["PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "SIGNALING", "STAGE_OUT"];

/// The nodes and their states.
pub fn node_states(cluster: &Cluster) -> std::result::Result<Vec<NodeState>, String> {
    let lines = ask(cluster, "sinfo --noheader --Node --format=%N|%T|%E")?;
    let nodes = lines.lines().filter_map(|line| {
        let mut words = line.splitn(3, '|').map(str::to_owned);
        Some(NodeState { node: words.next()?, state: words.next()?, reason: words.next()? })
    });
    Ok(nodes.collect())
}

/// Waits until a node is in one of these states; returns it with its reason.
pub fn until_node(cluster: &Cluster, node: &str, states: &[&str]) -> Result<NodeState> {
    wait::until(&format!("{} on {node}", states.join(" or ")), || {
        let seen = node_states(cluster)?.into_iter().find(|n| n.node == node).ok_or("no such node")?;
        if states.contains(&seen.state.as_str()) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
}

fn ask(cluster: &Cluster, line: &str) -> std::result::Result<String, String> {
    cluster.root().run(line).and_then(crate::Outcome::ok).map(|o| o.stdout).map_err(|t| t.to_string())
}

/// A batch job.
#[derive(Debug)]
pub struct Job {
    pub(crate) login: Login,
    /// Job id.
    pub id: u32,
    pub(crate) output: PathBuf,
}

impl Job {
    /// One field of `scontrol show job`, `JobState` for example.
    pub fn field(&self, name: &str) -> Result<String> {
        let shown = self.login.run(&format!("scontrol --oneliner show job {}", self.id))?.ok()?.stdout;
        let found = shown.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.map(str::to_owned).ok_or_else(|| Trouble::Unexpected(format!("no {name} in {shown}")))
    }

    /// Waits until the job is in this state.
    pub fn until_state(&self, state: &str) -> Result {
        wait::until(&format!("{state}: job {}", self.id), || {
            let seen = self.field("JobState").map_err(|t| t.to_string())?;
            if seen == state { Ok(()) } else { Err(format!("{seen}; output: {}", self.output())) }
        })
    }

    /// Waits until the job printed a text so many times.
    pub fn until_printed(&self, times: usize, text: &str) -> Result {
        wait::until(&format!("{times} x `{text}` by job {}", self.id), || {
            let seen = self.output();
            if seen.matches(text).count() >= times { Ok(()) } else { Err(seen) }
        })
    }

    /// Waits until a field has this value.
    pub fn until_field(&self, name: &str, value: &str) -> Result<String> {
        wait::until(&format!("{name}={value}: job {}", self.id), || {
            let seen = self.field(name).map_err(|t| t.to_string())?;
            if seen == value { Ok(seen) } else { Err(format!("{seen}; output: {}", self.output())) }
        })
    }

    /// Waits for success, also of a job that was put back into the queue: Slurm lets such a job begin two minutes later unless
    /// it is told otherwise.
    pub fn until_completed_after_requeue(&self) -> Result {
        let root = Login { who: Who::Root, ..self.login.clone() };
        let mut let_go = false;
        wait::until(&format!("COMPLETED: job {}", self.id), || {
            let of = |name: &str| self.field(name).map_err(|t| t.to_string());
            let state = format!("{} {}", of("JobState")?, of("Reason")?);
            if state == "PENDING BeginTime" && !std::mem::replace(&mut let_go, true) {
                let now = format!("scontrol update jobid={} starttime=now+2seconds", self.id);
                root.run(&now).map_err(|t| t.to_string())?;
            }
            if state.starts_with("COMPLETED") { Ok(()) } else { Err(format!("{state}; {}", self.output())) }
        })
    }

    /// Waits for success.
    pub fn until_completed(&self) -> Result {
        self.until_state("COMPLETED")
    }

    /// What it printed so far, errors included.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// What the witnesses in it saw.
    pub fn sights(&self) -> Result<Vec<Sight>> {
        Sight::read_all(&self.output())
    }

    /// Cancels it.
    pub fn cancel(&self) -> Result {
        self.login.run(&format!("scancel {}", self.id))?.ok().map(drop)
    }
}
