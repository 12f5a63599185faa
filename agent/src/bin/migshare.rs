//! `migshare`: the command line of the node agent.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    migshare_agent::cli::main()
}
