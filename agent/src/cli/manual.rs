//! Shell completions and manual pages, made from the command line's own definition. Hidden: packagers call it, users do not.

use super::{Arguments, Exit};
use crate::daemon;
use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Options {
    /// What to print
    what: What,
    /// Directory for manual pages, one file per command
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
    /// Manual pages, migshared's among them
    Man,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Exit> {
    let mut command = Arguments::command();
    let shell = match options.what {
        What::Bash => Shell::Bash,
        What::Zsh => Shell::Zsh,
        What::Fish => Shell::Fish,
        What::Man => {
            std::fs::create_dir_all(&options.dir)?;
            clap_mangen::generate_to(command, &options.dir)?;
            let daemon = clap_mangen::Man::new(daemon::Arguments::command()).section("8");
            daemon.generate_to(&options.dir)?;
            return Ok(Exit::Well);
        }
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "migshare", &mut text);
    print!("{}", String::from_utf8_lossy(&text));
    Ok(Exit::Well)
}
