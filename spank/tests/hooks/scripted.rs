//! An agent that answers from a script, on a real socket, and keeps what it was asked. Requests for segments stand apart:
//! where the script has no answer for one next, there is none, and nobody asked.

use migshare_proto::codec;
use migshare_proto::message::{Hello, Reason, Reply, Request, SegmentReply};
use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
pub(crate) struct Scripted {
    asked: Arc<Mutex<Vec<Request>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

impl Scripted {
    /// Listens until the test's process ends. Each reply is given once; then the agent hangs up.
    pub(crate) fn listen(socket: &Path, replies: impl IntoIterator<Item = Reply>) -> Scripted {
        let listener = UnixListener::bind(socket).unwrap();
        let agent = Scripted::default();
        agent.replies.lock().unwrap().extend(replies);
        let serving = agent.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serving.serve(&stream);
            }
        });
        agent
    }

    /// What was asked so far, hello left out.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    fn has_segment_next(&self) -> bool {
        match self.replies.lock().unwrap().front() {
            Some(Reply::Refused(refused)) => refused.reason == Reason::NoSegment,
            next => matches!(next, Some(Reply::Segment(_))),
        }
    }

    fn serve(&self, stream: &std::os::unix::net::UnixStream) {
        let mut lines = BufReader::new(stream);
        while let Ok(request) = codec::read::<Request>(&mut lines) {
            let reply = match request {
                Request::Hello(_) => {
                    Some(Reply::Hello(Hello { protocol: 1, oldest: 1, program: "scripted".to_owned() }))
                }
                Request::OpenSegment(_) if !self.has_segment_next() => {
                    Some(Reply::Segment(SegmentReply { bytes: None, note: Some("none here".to_owned()) }))
                }
                other => {
                    self.asked.lock().unwrap().push(other);
                    self.replies.lock().unwrap().pop_front()
                }
            };
            let Some(reply) = reply else { return };
            let mut stream = stream;
            stream.write_all(&codec::encode(&reply).unwrap()).unwrap();
        }
    }
}
