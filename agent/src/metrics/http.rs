//! Three pages over HTTP/1.1: `/metrics`, `/live` (the driver answers) and `/ready` (it serves). Plain GET, one request per
//! connection, bounded in bytes and time; nothing else of HTTP is needed for these, so nothing else is here.

use super::Meters;
use crate::driver::{Event, Inbox};
use migshare_proto::status::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Most requests at once; more are hung up on.
const CLIENTS: usize = 16;
/// Longest request head in bytes.
const HEAD: usize = 4096;
/// Time for a request, and for a client to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves for ever.
pub async fn serve(listener: TcpListener, meters: Meters, inbox: Inbox) {
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a reader of metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (meters, inbox) = (meters.clone(), inbox.clone());
        tokio::spawn(async move {
            // A reader that is late or gone is no event.
            let _ = timeout(PATIENCE, answer(stream, &meters, &inbox)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, meters: &Meters, inbox: &Inbox) -> std::io::Result<()> {
    let Some(head) = head(&mut stream).await? else { return Ok(()) };
    let (code, kind, body) = page(&head, meters, inbox).await;
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

async fn page(head: &[u8], meters: &Meters, inbox: &Inbox) -> (&'static str, &'static str, Vec<u8>) {
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
    let Some(status) = status(inbox).await else {
        return ("503 Service Unavailable", TEXT, b"the agent is stopping\n".to_vec());
    };
    match path {
        "/live" => ("200 OK", TEXT, b"alive\n".to_vec()),
        "/ready" if status.counted > 0 && status.problems.is_empty() => {
            ("200 OK", TEXT, b"serving\n".to_vec())
        }
        "/ready" => ("503 Service Unavailable", TEXT, (status.problems.join("\n") + "\n").into_bytes()),
        _ => match meters.render(&status) {
            Ok(text) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", text),
            Err(e) => ("500 Internal Server Error", TEXT, format!("{e}\n").into_bytes()),
        },
    }
}

async fn status(inbox: &Inbox) -> Option<Box<Status>> {
    let (sender, receiver) = oneshot::channel();
    inbox.send(Event::Status(sender));
    receiver.await.ok()
}
