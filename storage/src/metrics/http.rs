//! `/metrics` over HTTP/1.1 for Prometheus: plain GET, one request per connection, one at a time, bounded in bytes and time.
//! Nothing else of HTTP is needed, so nothing else is here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Longest request head in bytes.
const HEAD: u64 = 4096;
/// Time for a request, and for a client to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens, and answers from a thread of its own with what `page` makes.
///
/// # Errors
/// When the address cannot be listened at.
pub fn serve(
    address: SocketAddr,
    page: impl Fn() -> io::Result<Vec<u8>> + Send + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    let answer_all = move || {
        for stream in listener.incoming() {
            match stream {
                // A reader that is late or gone is no event.
                Ok(stream) => drop(answer(stream, &page)),
                Err(error) => {
                    tracing::warn!("cannot accept a reader of metrics: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(answer_all)?;
    Ok(bound)
}

fn answer(mut stream: TcpStream, page: &impl Fn() -> io::Result<Vec<u8>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(request) = request(&mut stream)? else { return Ok(()) };
    let (code, kind, body) = match request.split(' ').collect::<Vec<_>>()[..] {
        ["GET", "/metrics", _] => match page() {
            Ok(body) => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", body),
            Err(e) => ("500 Internal Server Error", "text/plain", format!("{e}\n").into_bytes()),
        },
        ["GET", _, _] => ("404 Not Found", "text/plain", b"there is /metrics\n".to_vec()),
        _ => ("405 Method Not Allowed", "text/plain", b"only GET\n".to_vec()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {code}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

/// The first line of a request that came whole.
fn request(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut limited = stream.take(HEAD);
    let mut some = [0; 512];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match limited.read(&mut some)? {
            0 => return Ok(None),
            n => head.extend_from_slice(&some[..n]),
        }
    }
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(to: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(to).unwrap();
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    #[test]
    fn only_a_get_of_metrics_is_answered_with_them() {
        let to = serve("127.0.0.1:0".parse().unwrap(), || Ok(b"x 1\n".to_vec())).unwrap();
        let good = ask(to, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("\r\n\r\nx 1\n"), "{good}");
        assert!(ask(to, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask(to, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask(to, "\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert_eq!(ask(to, &"x".repeat(100_000)), "", "no end of the head, no answer");
        assert!(ask(to, "GET /metrics HTTP/1.1\r\n\r\n").contains("200 OK"));
    }
}
