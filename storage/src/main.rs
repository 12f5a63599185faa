//! The command line of the storage sidecar.
#![forbid(unsafe_code)]

mod client;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use migshare_storage::cache::CacheDir;
use migshare_storage::config::{
    CacheConfig, Config, Fsync, LockMode, MountConfig, default_attributes, default_rescue, parse_size,
};
use migshare_storage::fs::WriteMode;
use migshare_storage::policy::PolicyName;
use migshare_storage::sidecar::{Ended, Sidecar, block_signals, wait_and_clean};

/// A cached view of a remote file system that reads clean hits from the cache and the network at once.
#[derive(Parser)]
#[command(name = "migshare-storage", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount a cached view of BACKEND at MOUNT and serve it until it is unmounted or told to stop.
    #[command(
        after_help = "Example: migshare-storage mount /mnt/lustre/project /scratch/project --cache /local/cache --size 200G"
    )]
    Mount(Box<MountArgs>),
    /// Mount everything that a configuration file names, over one cache.
    #[command(after_help = "Example: migshare-storage serve --config /etc/migshare/storage/project.toml")]
    Serve {
        /// TOML file; see the example in storage/README.md.
        #[arg(long)]
        config: PathBuf,
    },
    /// Check a configuration file without mounting anything.
    #[command(
        after_help = "Example: migshare-storage check-config --config /etc/migshare/storage/project.toml"
    )]
    CheckConfig {
        /// The file.
        #[arg(long)]
        config: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show rates of a mount: redrawn every second on a terminal, once elsewhere.
    #[command(after_help = "Example: migshare-storage status /scratch/project")]
    Status {
        /// A mount, or any path below it.
        mount: PathBuf,
        /// Print JSON, one object per look.
        #[arg(long)]
        json: bool,
        /// Stop after so many looks, a second each.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Print the counters of a mount since its start.
    #[command(after_help = "Example: migshare-storage stats /scratch/project --json")]
    Stats {
        /// A mount, or any path below it.
        mount: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what of a file is cached, and why its reads go where they go.
    #[command(after_help = "Example: migshare-storage explain /scratch/project/dataset/part-0")]
    Explain {
        /// A file on a mount.
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Drop files from the cache.
    #[command(after_help = "Example: migshare-storage forget /scratch/project/dataset")]
    Forget {
        /// Files or directories on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read files into the cache, with progress.
    #[command(after_help = "Example: migshare-storage warm --pin /scratch/project/dataset")]
    Warm {
        /// Files or directories on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Keep them from eviction until they are forgotten or the sidecar ends.
        #[arg(long)]
        pin: bool,
        /// Print JSON at the end.
        #[arg(long)]
        json: bool,
    },
    /// Change the policy of a running mount.
    #[command(after_help = "Example: migshare-storage policy /scratch/project cache-only")]
    Policy {
        /// The mount.
        mount: PathBuf,
        /// The policy.
        policy: PolicyName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Unmount when standard input ends; a daemon without root starts this for itself.
    #[command(hide = true)]
    Janitor {
        /// Device and mount point, in turn.
        mounts: Vec<OsString>,
    },
    /// Measure the two ends of a Perf Profile for the netcas policy on a cached file.
    #[command(
        after_help = "Example: migshare-storage profile /scratch/project/large --out profile.csv --plot profile.svg"
    )]
    Profile {
        /// A large, fully cached file on a mount (see `warm`).
        file: PathBuf,
        /// Where the table goes (CSV).
        #[arg(long)]
        out: PathBuf,
        /// Where a plot of it goes (SVG); without it, bars in the terminal are all.
        #[arg(long)]
        plot: Option<PathBuf>,
        /// Seconds per cell.
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct MountArgs {
    /// Directory of the remote file system.
    backend: PathBuf,
    /// Empty directory where the cached view appears.
    mount: PathBuf,
    /// Directory on local storage for the cache; made if missing.
    #[arg(long)]
    cache: PathBuf,
    /// Size of the cache, as in 200G.
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Which copy serves clean hits.
    #[arg(long, default_value_t)]
    policy: PolicyName,
    /// Perf Profile (CSV) for the netcas policy.
    #[arg(long)]
    profile: Option<PathBuf>,
    /// Row of the profile: queue depth and jobs.
    #[arg(long, num_args = 2, value_names = ["DEPTH", "JOBS"], default_values_t = [16, 1])]
    profile_key: Vec<u32>,
    /// Read hits at the backend only while it is not congested.
    #[arg(long)]
    polite: bool,
    /// Most bytes of hits in flight at the backend, as in 16M.
    #[arg(long, value_parser = parse_size)]
    max_backend_bytes: Option<u64>,
    /// Bypass the kernel's page cache.
    #[arg(long)]
    direct: bool,
    /// Where writes go: `through` and `around` to the backend (with `through`, files that were cached are cached again),
    /// `back` to a journal beside the cache and later to the backend.
    #[arg(long, value_enum, default_value_t)]
    writes: WriteMode,
    /// With --writes back: most bytes of dirty data, as in 50G; a quarter of --size when not given.
    #[arg(long, value_parser = parse_size)]
    dirty: Option<u64>,
    /// With --writes back: what fsync waits for, `backend` or `local` (survives a reboot, not the loss of the device).
    #[arg(long, value_enum)]
    fsync: Option<Fsync>,
    /// Fail with EIO when the backend is silent for so many seconds; without it, requests wait (hard).
    #[arg(long, value_name = "SECONDS")]
    soft: Option<u64>,
    /// Ask the other copy of a hit when the first one is silent for so many milliseconds.
    #[arg(long, default_value_t = default_rescue())]
    rescue_ms: u64,
    /// Most hits, in percent, that are read at both copies because the first one is later than nearly all: 1 or 2 shorten the
    /// tail of latencies; 0 is off.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    hedge_percent: u8,
    /// How long the kernel may believe names and attributes, in milliseconds.
    #[arg(long, default_value_t = default_attributes())]
    attributes_ms: u64,
    /// Serve all users: what root's mounts do, and nobody else's.
    #[arg(long, hide = true)]
    allow_other: bool,
    /// File locks to take at the backend too, so that they hold between nodes.
    #[arg(long, value_enum, default_value_t)]
    locks: LockMode,
    /// File for the Prometheus node exporter's textfile collector.
    #[arg(long)]
    metrics_file: Option<PathBuf>,
    /// Address where Prometheus finds /metrics, as in 127.0.0.1:9847.
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
}

impl MountArgs {
    fn into_config(self) -> Config {
        let key = [self.profile_key[0], self.profile_key[1]];
        Config {
            cache: CacheConfig { dir: self.cache, size: self.size },
            mounts: vec![MountConfig {
                backend: self.backend,
                at: self.mount,
                policy: self.policy,
                profile: self.profile,
                profile_key: key,
                polite: self.polite,
                max_backend_bytes: self.max_backend_bytes,
                direct: self.direct,
                writes: self.writes,
                dirty: self.dirty,
                fsync: self.fsync,
                soft_timeout_s: self.soft,
                rescue_ms: self.rescue_ms,
                hedge_percent: self.hedge_percent,
                attributes_ms: self.attributes_ms,
                locks: self.locks,
            }],
            metrics_file: self.metrics_file,
            metrics_listen: self.metrics_listen,
        }
    }
}

/// Why a user cannot share a mount.
const ALLOW_OTHER: &str = "--allow-other is refused without root: what others read would pass through a process of yours, with \
    your rights; let root run the mount, which serves everybody with their own rights";

/// Exit code of a sidecar that ended with dirty data in a journal.
const DIRTY: u8 = 3;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(Ended::Clean) => ExitCode::SUCCESS,
        Ok(Ended::Dirty) => ExitCode::from(DIRTY),
        Err(error) => {
            eprintln!("migshare-storage: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<Ended> {
    let asked = match cli.command {
        Command::Mount(args) => {
            ensure!(!args.allow_other || rustix::process::geteuid().is_root(), ALLOW_OTHER);
            return serve(args.into_config());
        }
        Command::Serve { config } => return serve(Config::read(&config)?),
        Command::Janitor { mounts } => Ok(wait_and_clean(&mounts)?),
        Command::CheckConfig { config, json } => check_config(&config, json),
        Command::Status { mount, json, count } => client::status(&mount, json, count),
        Command::Stats { mount, json } => client::stats(&mount, json),
        Command::Explain { path, json } => client::explain(&path, json),
        Command::Forget { paths, json } => client::forget(&paths, json),
        Command::Warm { paths, pin, json } => client::warm(&paths, pin, json),
        Command::Policy { mount, policy, json } => client::set_policy(&mount, policy, json),
        Command::Profile { file, out, plot, seconds, json } => {
            client::profile(&file, &out, plot.as_deref(), seconds, json)
        }
    };
    asked.map(|()| Ended::Clean)
}

fn check_config(path: &Path, json: bool) -> Result<()> {
    let checked = Config::read(path).and_then(Config::check).with_context(|| path.display().to_string())?;
    CacheDir::check(&checked.cache.dir, checked.cache.size).with_context(|| path.display().to_string())?;
    if json {
        let mount = |m: &MountConfig| serde_json::json!({ "backend": m.backend, "at": m.at, "policy": m.policy.to_string() });
        let mounts: Vec<_> = checked.mounts.iter().map(mount).collect();
        println!("{}", serde_json::json!({ "config": path, "mounts": mounts }));
        return Ok(());
    }
    for mount in &checked.mounts {
        println!("{} at {}: policy {}", mount.backend.display(), mount.at.display(), mount.policy);
    }
    println!("{}: good", path.display());
    Ok(())
}

fn serve(config: Config) -> Result<Ended> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MIGSHARE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuser=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    block_signals().context("cannot block signals")?;
    Ok(Sidecar::start(config)?.run()?)
}
