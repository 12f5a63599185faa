//! `migshared`: the node agent.
#![forbid(unsafe_code)]

use clap::Parser;
use migshare_agent::config::Config;
use migshare_agent::daemon::{self, Arguments};
use migshare_agent::logging;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    logging::start(arguments.log);
    let config = Config::read(&arguments.config)?;
    if arguments.check {
        println!("{}: usable", arguments.config.display());
        return Ok(());
    }
    daemon::run(config)
}
