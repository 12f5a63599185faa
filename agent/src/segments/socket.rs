//! The second socket: it knows one request, and answers it to ranks.
//!
//! ```text
//!  accept -> whose process is it? -> room for its step? -> line within 5 s -> descriptor or reason, within 5 s -> end
//! ```
//! Strangers share a small number of places among themselves, and each step has places of its own: whatever a process
//! does here, it keeps nobody of another step waiting. One client holds one short line of memory. Nothing panics on any
//! bytes.

use super::turnstile::{Guest, Turnstile};
use super::{Segments, rights};
use migshare_proto::codec;
use migshare_proto::segment::{Fetch, Fetched, NotFetched, SegmentAnswer, SegmentRequest, VERSION};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Time for the request, and again for the client to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request. The one that there is has 22 bytes.
const LINE: usize = 256;
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves ranks for ever.
pub async fn serve(listener: UnixListener, segments: Arc<Segments>) {
    let turnstile = Arc::new(Turnstile::default());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                admit(stream, &turnstile, &segments);
                // Turn about: a flood of strangers, each of whom costs a look into /proc, must not keep those inside waiting.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a rank");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Finds out who it is and lets it in, or hangs up where there is no room for the likes of it.
fn admit(stream: UnixStream, turnstile: &Arc<Turnstile>, segments: &Arc<Segments>) {
    let whose = segments.whose(&stream);
    let guest = match &whose {
        Ok(claim) => Guest::Step(claim.key),
        Err(stranger) => Guest::Stranger(stranger.uid),
    };
    let Some(place) = Turnstile::enter(turnstile, guest) else {
        return tracing::debug!(?guest, "no room for another rank of its kind");
    };
    let segments = Arc::clone(segments);
    tokio::spawn(async move {
        let mut stream = stream;
        let asked = timeout(PATIENCE, request(&mut stream)).await;
        // Who hangs up, or says nothing, needs no answer.
        if let Ok(Some(asked)) = asked {
            let answer =
                asked.and_then(|()| whose.map_err(|s| s.reason).and_then(|claim| segments.hand_out(&claim)));
            let _ = timeout(PATIENCE, send(&mut stream, answer)).await;
        }
        drop(place);
    });
}

/// Reads the request. The inner error is what is wrong with it; none when the client hung up.
async fn request(stream: &mut UnixStream) -> Option<Result<(), String>> {
    let mut line = Vec::with_capacity(64);
    while line.last() != Some(&b'\n') && line.len() < LINE {
        let mut part = [0; 64];
        let room = part.len().min(LINE - line.len());
        let got = stream.read(&mut part[..room]).await.ok().filter(|n| *n > 0)?;
        line.extend_from_slice(&part[..got]);
    }
    Some(match codec::decode(&line) {
        Ok(SegmentRequest::Segment(Fetch { v: VERSION })) => Ok(()),
        Ok(SegmentRequest::Segment(Fetch { v })) => {
            Err(format!("this agent speaks version {VERSION} of the segment request, not {v}"))
        }
        Err(error) => Err(format!("not the segment request: {error}")),
    })
}

async fn send(stream: &mut UnixStream, answer: Result<(OwnedFd, Fetched), String>) -> std::io::Result<()> {
    let (file, answer) = match answer {
        Ok((file, fetched)) => (Some(file), SegmentAnswer::Segment(fetched)),
        Err(reason) => (None, SegmentAnswer::Refused(NotFetched { reason })),
    };
    let line = codec::encode(&answer).map_err(std::io::Error::other)?;
    let sent = match &file {
        Some(file) => {
            stream.async_io(Interest::WRITABLE, || rights::send(stream, &line, file.as_fd())).await?
        }
        None => 0,
    };
    stream.write_all(&line[sent..]).await
}
