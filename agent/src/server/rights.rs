//! Who may ask what. The whole table of authority at the socket is in this file.

use migshare_proto::Request;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Any user of this machine.
    Anybody,
    /// The privileged user alone.
    Privileged,
}

/// Who may send this request.
pub fn who_may(request: &Request) -> Who {
    match request {
        Request::Hello(_) | Request::Status(_) | Request::Plan(_) | Request::Explain(_) => Who::Anybody,
        Request::OpenLease(_)
        | Request::Grant(_)
        | Request::JobLeaves(_)
        | Request::OpenSegment(_)
        | Request::Release(_)
        | Request::CloseLease(_)
        | Request::Order(_) => Who::Privileged,
    }
}

/// Whether a user may change state: root, and the user that the agent itself runs as, who could change it anyway. An
/// agent that runs as root, as in production, obeys root alone.
pub fn is_privileged(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Whether this user may send this request.
pub fn may(uid: u32, request: &Request) -> bool {
    who_may(request) == Who::Anybody || is_privileged(uid)
}

/// What to call a request in a message.
pub fn name(request: &Request) -> &'static str {
    match request {
        Request::Hello(_) => "hello",
        Request::OpenLease(_) => "open_lease",
        Request::Grant(_) => "grant",
        Request::JobLeaves(_) => "job_leaves",
        Request::OpenSegment(_) => "open_segment",
        Request::Release(_) => "release",
        Request::CloseLease(_) => "close_lease",
        Request::Status(_) => "status",
        Request::Plan(_) => "plan",
        Request::Order(_) => "order",
        Request::Explain(_) => "explain",
    }
}
