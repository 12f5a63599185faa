//! Memory that the ranks of a step share: asked for here, fetched by the ranks at the agent's second socket, whose path
//! they find in their environment.

use super::access::Asking;
use crate::agent::{Agent, AgentError};
use crate::option::Segment;
use crate::slurm::Level;
use migshare_proto::message::{OpenSegment, SegmentReply};
use migshare_proto::{JobKey, StepId};
use std::path::PathBuf;

impl Asking<'_> {
    /// Lets the step have a segment. The path to fetch it from; none where it has none.
    ///
    /// What nobody asked for fails no job: then the step runs without.
    pub(super) fn segment(
        &self,
        agent: &Agent<'_>,
        job: JobKey,
        leaves: u32,
    ) -> Result<Option<PathBuf>, AgentError> {
        let asked = self.spec.unwrap_or_default().segment;
        let bytes = match asked {
            Segment::Off => return Ok(None),
            // Nothing of the job runs in it but logins.
            _ if self.step == StepId::EXTERN => return Ok(None),
            Segment::Default => None,
            Segment::Bytes(bytes) => Some(bytes),
        };
        let holder = std::process::id();
        let note = match agent.segment(OpenSegment { job, step: self.step, leaves, bytes, holder }) {
            Ok(SegmentReply { bytes: Some(_), .. }) => return Ok(Some(self.config.segment_socket())),
            Ok(SegmentReply { note, .. }) => note.unwrap_or_default(),
            Err(e) if bytes.is_some() => return Err(e),
            Err(e) => e.to_string(),
        };
        self.slurm.say(Level::Debug, &format!("job {} step {}: no segment: {note}", self.job, self.step));
        Ok(None)
    }
}
