//! Rates of a mount: redrawn every second on a terminal, as top does; one look, or so many as asked for, elsewhere.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{get, get_text, number};

/// What is shown of one interval.
struct Rates {
    cache: f64,
    backend: f64,
    hits: f64,
    misses: f64,
    saved: f64,
    split_percent: f64,
}

impl Rates {
    fn between(before: &Value, now: &Value, seconds: f64) -> Self {
        let rate = |name| number(now, name).saturating_sub(number(before, name)) as f64 / 1e6 / seconds;
        let (hits, split) = (rate("hit_bytes_total"), rate("split_bytes_total"));
        Self {
            cache: rate("cache_read_bytes_total"),
            backend: rate("backend_read_bytes_total"),
            hits,
            misses: rate("miss_bytes_total"),
            saved: rate("saved_backend_bytes_total"),
            split_percent: if hits > 0.0 { 100.0 * split / hits } else { 0.0 },
        }
    }

    fn json(&self, backend: &Value) -> Value {
        json!({
            "cache_mb_s": self.cache, "backend_mb_s": self.backend, "hits_mb_s": self.hits,
            "misses_mb_s": self.misses, "saved_mb_s": self.saved, "split_percent": self.split_percent,
            "backend": backend,
        })
    }

    fn text(&self, mount: &Path, policy: &str, split: &Value) -> String {
        let backend = &split["backend"];
        let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let signal = match word(&backend["signal"]) {
            none if none.is_empty() => none,
            some => format!(": {some}"),
        };
        let reason = match word(&split["window"]["reason"]) {
            none if none.is_empty() => none,
            some => format!(", last hit: {some}"),
        };
        let flying = |side: &str| split["in_flight"][side]["bytes"].as_u64().unwrap_or(0) as f64 / 1e6;
        format!(
            "{}   policy {policy}{reason}\nbackend {} for {} s{signal}\n\n\
             {:>12} {:>12} {:>12}\n{:>12} {:>12.1} {:>12.1}\n{:>12} {:>12.1} {:>12.1}\n\n\
             hits {:.1} MB/s, of those {:.1} % at the backend; misses {:.1} MB/s; saved at the backend {:.1} MB/s\n",
            mount.display(),
            word(&backend["state"]),
            backend["for_s"],
            "",
            "MB/s",
            "MB in flight",
            "cache",
            self.cache,
            flying("cache"),
            "backend",
            self.backend,
            flying("backend"),
            self.hits,
            self.split_percent,
            self.misses,
            self.saved,
        )
    }
}

/// Prints rates. Without `count`: for ever on a terminal, once elsewhere.
pub(crate) fn status(mount: &Path, json: bool, count: Option<u64>) -> Result<()> {
    let redraw = !json && std::io::stdout().is_terminal();
    let looks = count.unwrap_or(if redraw { u64::MAX } else { 1 });
    let (mut before, mut since) = (get(mount, "stats")?, Instant::now());
    for _ in 0..looks {
        std::thread::sleep(Duration::from_secs(1));
        let now = get(mount, "stats")?;
        let rates = Rates::between(&before, &now, since.elapsed().as_secs_f64());
        (before, since) = (now, Instant::now());
        let split = &get(mount, "explain")?["split"];
        if json {
            println!("{}", rates.json(&split["backend"]));
        } else {
            // Home, and away with what was there.
            let clear = if redraw { "\x1b[H\x1b[2J" } else { "" };
            print!("{clear}{}", rates.text(mount, &get_text(mount, "policy")?, split));
            std::io::Write::flush(&mut std::io::stdout())?;
        }
    }
    Ok(())
}
