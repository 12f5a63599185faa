//! Talking to the agent: one deadline per hook, a bounded wait for an agent that is just being restarted, and three
//! different texts for refused, away and broken.

use crate::config::Config;
use migshare_proto::message::{
    CloseLease, ErrorCode, GrantReply, GrantStep, JobLeaves, LeaseReply, OpenLease, OpenSegment, Reason,
    ReleaseGrant, SegmentReply, Shape,
};
use migshare_proto::{Client, ClientError, Reply, Request};
use std::time::{Duration, Instant};

/// What the plugin calls itself in the agent's log.
const PROGRAM: &str = concat!("spank ", env!("CARGO_PKG_VERSION"));
/// Pause between two tries while nobody listens.
const PAUSE: Duration = Duration::from_millis(50);

/// The agent said no, was not there, or could not.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It works, knows, and says no.
    #[error("refused: {text}")]
    Refused {
        /// The kind of reason.
        reason: Reason,
        /// The agent's words.
        text: String,
        /// The site wants a batch job to be queued again, away from this node.
        requeue: bool,
    },
    /// It did not answer.
    #[error("agent away on {node}: {cause}; the job is not at fault, submit it again")]
    Away {
        /// This node.
        node: String,
        /// What was tried.
        cause: String,
    },
    /// It answered that it cannot, or something that makes no sense.
    #[error("agent broken on {node}: {cause}; the job is not at fault, tell the administrators")]
    Broken {
        /// This node.
        node: String,
        /// What it said.
        cause: String,
    },
}

impl AgentError {
    /// Whether any other job with leaves would meet the same on this node, through no fault of its own.
    pub fn is_the_nodes_fault(&self, asked: Shape) -> bool {
        match self {
            AgentError::Away { .. } | AgentError::Broken { .. } => true,
            AgentError::Refused { reason: Reason::NotServing, .. } => true,
            // slurmctld counted the leaves as free: that the node has not got them is not the job's doing. How
            // instances of other sizes fit it cannot count.
            AgentError::Refused { reason: Reason::NoLeaves | Reason::Unavailable, .. } => {
                asked.need.is_none()
            }
            AgentError::Refused { .. } => false,
        }
    }

    fn is_no_lease(&self) -> bool {
        matches!(self, AgentError::Refused { reason: Reason::NoLease, .. })
    }
}

/// The agent of this node, for the length of one hook.
#[derive(Debug)]
pub struct Agent<'a> {
    config: &'a Config,
    deadline: Instant,
}

impl<'a> Agent<'a> {
    /// Nothing is connected yet; the deadline runs from here.
    pub fn new(config: &'a Config) -> Agent<'a> {
        Agent { config, deadline: Instant::now() + config.timeout }
    }

    /// Makes sure that a job's lease is open.
    pub fn open(&self, lease: OpenLease) -> Result<LeaseReply, AgentError> {
        match self.ask(&Request::OpenLease(lease))? {
            Reply::Lease(lease) => Ok(lease),
            other => Err(self.nonsense("open_lease", &other)),
        }
    }

    /// All leaves of a job, whose lease is opened if the prolog did not.
    pub fn job_leaves(&self, lease: OpenLease) -> Result<LeaseReply, AgentError> {
        match self.ask(&Request::JobLeaves(JobLeaves { job: lease.job })) {
            Ok(Reply::Lease(reply)) => Ok(reply),
            Ok(other) => Err(self.nonsense("job_leaves", &other)),
            Err(e) if e.is_no_lease() => self.open(lease),
            Err(e) => Err(e),
        }
    }

    /// A grant for a step, out of its job's lease, which is opened if the prolog did not.
    pub fn grant(&self, lease: OpenLease, grant: GrantStep) -> Result<GrantReply, AgentError> {
        let request = Request::Grant(grant);
        let reply = match self.ask(&request) {
            Err(e) if e.is_no_lease() => self.open(lease).and_then(|_| self.ask(&request)),
            other => other,
        };
        match reply? {
            Reply::Granted(grant) => Ok(grant),
            other => Err(self.nonsense("grant", &other)),
        }
    }

    /// Memory that the ranks of a step share.
    pub fn segment(&self, segment: OpenSegment) -> Result<SegmentReply, AgentError> {
        match self.ask(&Request::OpenSegment(segment))? {
            Reply::Segment(segment) => Ok(segment),
            other => Err(self.nonsense("open_segment", &other)),
        }
    }

    /// Ends a step's grant. It does not wait for an agent that is being restarted: that one will find the grant's
    /// holder gone.
    pub fn release(&self, grant: ReleaseGrant) -> Result<(), AgentError> {
        self.try_once(&Request::Release(grant)).map(|_| ()).map_err(|e| self.classify(e))
    }

    /// Ends a job's lease.
    pub fn close(&self, lease: CloseLease) -> Result<(), AgentError> {
        self.ask(&Request::CloseLease(lease)).map(|_| ())
    }

    /// Asks, and asks again while nobody listens or the agent is busy, until the deadline.
    ///
    /// Every request may be repeated: the agent answers the second like the first.
    fn ask(&self, request: &Request) -> Result<Reply, AgentError> {
        loop {
            match self.try_once(request) {
                Ok(reply) => return Ok(reply),
                Err(e) if passes(&e) && self.left() > PAUSE => std::thread::sleep(PAUSE),
                Err(e) => return Err(self.classify(e)),
            }
        }
    }

    fn try_once(&self, request: &Request) -> Result<Reply, ClientError> {
        Client::connect(&self.config.socket, PROGRAM, self.left())?.ask(request)
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn classify(&self, error: ClientError) -> AgentError {
        let node = self.config.node.clone();
        match error {
            ClientError::Refused(r) => {
                AgentError::Refused { reason: r.reason, text: r.text, requeue: r.requeue }
            }
            ClientError::Away { .. } => AgentError::Away { node, cause: error.to_string() },
            ClientError::Broken(_) | ClientError::Nonsense(_) => {
                AgentError::Broken { node, cause: error.to_string() }
            }
        }
    }

    fn nonsense(&self, to: &str, reply: &Reply) -> AgentError {
        AgentError::Broken { node: self.config.node.clone(), cause: format!("it answered {reply:?} to {to}") }
    }
}

/// Whether waiting may help: the agent is being restarted, is still adopting what stands, or is busy.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Away { .. } => true,
        ClientError::Refused(r) => r.reason == Reason::NotServing,
        ClientError::Broken(e) => e.code == ErrorCode::Busy,
        ClientError::Nonsense(_) => false,
    }
}
