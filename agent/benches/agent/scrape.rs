//! The agent's own counters, read from `/metrics` before and after a phase.

use std::io::{Read, Write};
use std::net::TcpStream;

/// The counters at one moment, as text.
pub(crate) struct Scrape(String);

impl Scrape {
    pub(crate) fn of(address: &str) -> Scrape {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        Scrape(text)
    }

    /// The sum of a metric over all its labels.
    pub(crate) fn sum(&self, metric: &str) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let plain = name.split_once('{').map_or(name, |(plain, _)| plain);
            (plain == metric).then(|| value.parse::<f64>().ok()).flatten()
        });
        values.sum()
    }
}
