//! Three pages over HTTP/1.1: `/metrics`, `/live` (the driver answers) and `/ready` (it serves). Plain GET, one request per
//! connection, bounded in bytes and time; nothing else of HTTP is needed for these, so nothing else is here.

use super::Meters;
use crate::driver::{Event, Inbox};
use crate::segments::Segments;
use crate::seldom::Seldom;
use migshare_proto::status::Status;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Most requests at once. A new one takes the place of the oldest that has not asked yet.
const CLIENTS: usize = 16;
/// Longest request head in bytes.
const HEAD: usize = 4096;
/// Time for a request's head: who wants figures sends it with the connection.
const ASKING: Duration = Duration::from_secs(2);
/// Time for a client to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the pages come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What is counted as it happens.
    pub meters: Meters,
    /// The way to the driver.
    pub inbox: Inbox,
    /// Memory of steps.
    pub segments: Arc<Segments>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, sources: Sources) {
    let (mut readers, crowded) = (Readers::default(), Seldom::default());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a reader of metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let room = readers.make_room();
        if room != Room::Free
            && let Some(left_out) = crowded.due(Instant::now())
        {
            let peer = stream.peer_addr().map_or_else(|_| "gone".to_owned(), |peer| peer.to_string());
            tracing::warn!(clients = CLIENTS, %peer, left_out, "readers of metrics are crowded: one was hung up on");
        }
        if room != Room::Full {
            readers.enter(stream, sources.clone());
        }
        // Turn about: those inside go on, however fast others connect.
        tokio::task::yield_now().await;
    }
}

/// The connections under way, the oldest first.
#[derive(Default)]
struct Readers(Vec<Reader>);

struct Reader {
    task: AbortHandle,
    asked: Arc<AtomicBool>,
}

/// Where a new reader's place comes from.
#[derive(PartialEq, Eq)]
enum Room {
    Free,
    /// From one that connected and asked nothing.
    Taken,
    /// All others are being answered.
    Full,
}

impl Readers {
    fn make_room(&mut self) -> Room {
        self.0.retain(|reader| !reader.task.is_finished());
        if self.0.len() < CLIENTS {
            return Room::Free;
        }
        let Some(idle) = self.0.iter().position(|reader| !reader.asked.load(Ordering::Relaxed)) else {
            return Room::Full;
        };
        self.0.remove(idle).task.abort();
        Room::Taken
    }

    fn enter(&mut self, stream: TcpStream, sources: Sources) {
        let asked = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            // A reader that is late or gone is no event.
            let _ = answer(stream, &mark, &sources).await;
        });
        self.0.push(Reader { task: task.abort_handle(), asked });
    }
}

async fn answer(mut stream: TcpStream, asked: &AtomicBool, sources: &Sources) -> std::io::Result<()> {
    let Some(head) = timeout(ASKING, head(&mut stream)).await?? else { return Ok(()) };
    asked.store(true, Ordering::Relaxed);
    timeout(PATIENCE, reply(stream, &head, sources)).await?
}

async fn reply(mut stream: TcpStream, head: &[u8], sources: &Sources) -> std::io::Result<()> {
    let (code, kind, body) = page(head, sources).await;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// The bytes up to the empty line; none where it does not come.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut limited = stream.take(HEAD as u64);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

const TEXT: &str = "text/plain; charset=utf-8";

async fn page(head: &[u8], sources: &Sources) -> (&'static str, &'static str, Vec<u8>) {
    let line = String::from_utf8_lossy(head.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
    let mut words = line.split(' ');
    let (method, path) = (words.next(), words.next().unwrap_or_default());
    if method != Some("GET") {
        return ("405 Method Not Allowed", TEXT, b"only GET\n".to_vec());
    }
    let known = ["/metrics", "/live", "/ready"];
    if !known.contains(&path) {
        return ("404 Not Found", TEXT, format!("there are {}\n", known.join(", ")).into_bytes());
    }
    let Some(status) = sources.status().await else {
        return ("503 Service Unavailable", TEXT, b"the agent is stopping\n".to_vec());
    };
    match path {
        "/live" => ("200 OK", TEXT, b"alive\n".to_vec()),
        "/ready" if status.counted > 0 && status.problems.is_empty() => {
            ("200 OK", TEXT, b"serving\n".to_vec())
        }
        "/ready" => ("503 Service Unavailable", TEXT, (status.problems.join("\n") + "\n").into_bytes()),
        _ => match sources.meters.render(&status) {
            Ok(text) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text),
            Err(e) => ("500 Internal Server Error", TEXT, format!("{e}\n").into_bytes()),
        },
    }
}

impl Sources {
    /// The picture of the node; none where the agent is stopping.
    async fn status(&self) -> Option<Box<Status>> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.send(Event::Status(sender));
        let mut status = receiver.await.ok()?;
        status.segments = Some(self.segments.status());
        Some(status)
    }
}
