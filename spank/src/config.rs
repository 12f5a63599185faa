//! The words after the plugin's path in plugstack.conf.
//!
//! `required /usr/lib64/slurm/spank_migshare.so socket=/run/migshare/agent.sock`. An unknown word is an error that
//! names it: a setting that is silently ignored on a root plugin is worse than a daemon that does not start.

use std::path::PathBuf;
use std::time::Duration;

/// What the line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The agent's second socket, where ranks fetch the memory that they share, where it is not beside the first.
    pub segment_socket: Option<PathBuf>,
    /// Where `devices` and `driver/nvidia-caps` are; `/proc` but for a simulated node.
    pub proc: PathBuf,
    /// Directory for markers, which a reboot empties.
    pub run: PathBuf,
    /// The price table of the cluster, for submit hosts.
    pub prices: Option<PathBuf>,
    /// How long all calls of one hook to the agent may take together.
    pub timeout: Duration,
    /// Slurm's name of this node.
    pub node: String,
}

/// Why the line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not a known key.
    #[error(
        "plugstack.conf: unknown setting \"{0}\"; known are socket=, segment_socket=, proc=, run=, \
         prices= and timeout="
    )]
    Unknown(String),
    /// Not an absolute path.
    #[error("plugstack.conf: {0}= needs an absolute path, not \"{1}\"")]
    Path(&'static str, String),
    /// Not a time.
    #[error("plugstack.conf: timeout= needs whole seconds from 1 to 60, not \"{0}\"")]
    Timeout(String),
}

impl Config {
    /// Reads the words. `%n` in a path becomes the node's name: several slurmd may share a host, and Slurm does not
    /// expand it in plugstack.conf.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>, node: &str) -> Result<Config, ConfigError> {
        let mut config = Config {
            socket: "/run/migshare/agent.sock".into(),
            segment_socket: None,
            proc: "/proc".into(),
            run: "/run/migshare".into(),
            prices: None,
            timeout: Duration::from_secs(5),
            node: node.to_owned(),
        };
        for word in words {
            match word.split_once('=') {
                Some(("socket", value)) => config.socket = path("socket", value, node)?,
                Some(("segment_socket", value)) => {
                    config.segment_socket = Some(path("segment_socket", value, node)?);
                }
                Some(("proc", value)) => config.proc = path("proc", value, node)?,
                Some(("run", value)) => config.run = path("run", value, node)?,
                Some(("prices", value)) => config.prices = Some(path("prices", value, node)?),
                Some(("timeout", value)) => config.timeout = seconds(value)?,
                _ => return Err(ConfigError::Unknown(word.to_owned())),
            }
        }
        Ok(config)
    }

    /// The agent's second socket: `segment.sock` beside the first, as the agent has it, unless the line says otherwise.
    pub fn segment_socket(&self) -> PathBuf {
        self.segment_socket.clone().unwrap_or_else(|| self.socket.with_file_name("segment.sock"))
    }
}

fn path(key: &'static str, value: &str, node: &str) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(value.replace("%n", node));
    if path.is_absolute() { Ok(path) } else { Err(ConfigError::Path(key, value.to_owned())) }
}

fn seconds(value: &str) -> Result<Duration, ConfigError> {
    match value.parse() {
        Ok(n @ 1..=60) => Ok(Duration::from_secs(n)),
        _ => Err(ConfigError::Timeout(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_means_the_installed_paths() {
        let config = Config::parse([], "n1").unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/migshare/agent.sock"));
        assert_eq!(config.timeout, Duration::from_secs(5));
    }

    #[test]
    fn the_nodes_name_is_filled_in() {
        let config =
            Config::parse(["socket=/run/%n/a.%n", "proc=/lab/%n/proc", "run=/run/%n"], "n7").unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/n7/a.n7"));
        assert_eq!(config.segment_socket(), PathBuf::from("/run/n7/segment.sock"));
        assert_eq!(config.proc, PathBuf::from("/lab/n7/proc"));
        assert_eq!(config.run, PathBuf::from("/run/n7"));
    }

    #[test]
    fn the_second_socket_is_beside_the_first_unless_the_line_says_otherwise() {
        let config = Config::parse(["segment_socket=/srv/%n.sock"], "n7").unwrap();
        assert_eq!(config.segment_socket(), PathBuf::from("/srv/n7.sock"));
        assert_eq!(
            Config::parse([], "n7").unwrap().segment_socket(),
            PathBuf::from("/run/migshare/segment.sock")
        );
    }

    #[test]
    fn bad_words_are_refused_and_named() {
        for (word, part) in [
            ("sock=/x", "\"sock=/x\""),
            ("socket", "\"socket\""),
            ("socket=", "socket="),
            ("socket=run/x", "\"run/x\""),
            ("prices=table", "\"table\""),
            ("timeout=0", "\"0\""),
            ("timeout=61", "\"61\""),
            ("timeout=5s", "\"5s\""),
            ("", "\"\""),
        ] {
            let said = Config::parse([word], "n1").unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}
