//! The composition of `migshared`: which parts there are and how they are joined. The parts do not know it.
//!
//! ```text
//!   main thread (tokio)                      threads
//!     holders  ---\                            driver (tokio)   owns Node and Journal; server: the first socket
//!     keeper   ----+--- Event ---> inbox --->  nvml             owns the NVML session
//!     signals, watchdog             ^            |
//!                                   \--- Seen ---/
//!     segments   (asks nobody: memory of steps, and the socket where ranks get it)
//! ```

mod arguments;

pub use arguments::Arguments;

use crate::config::{Config, GiveBack, LayoutName, NoPlace, Placing};
use crate::driver::{self, About, Driver, Event, Inbox, Outlets};
use crate::hardware::alarm::{self, Calls};
use crate::hardware::{self, Source, events};
use crate::holders;
use crate::hpc_jobs;
use crate::isolation;
use crate::journal::Journal;
use crate::metrics::{Meters, http};
use crate::notify::{self, Notifier};
use crate::process;
use crate::segments::{self, Segments};
use crate::server;
use crate::slurm::{Slurm, keeper};
use anyhow::Context;
use migshare_policy::Books;
use migshare_policy::layout::Layout;
use migshare_policy::node::{Reshaping, Rules, Service};
use migshare_policy::placement::Direction;
use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

/// File descriptors that the agent may need: its connections, pidfds and a few files.
const FILES: u64 = 16 * 1024;

/// Runs the agent until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
    let notifier = Notifier::from_env();
    raise_file_limit();
    let (inbox, events) = driver::inbox();
    let (driver, follow) = assemble(&config, &inbox)?;
    let segments = Segments::open(&config, Notifier::from_env()).context("segments")?;
    let [clients, ranks] = [&config.socket, &config.segment_socket]
        .map(|path| server::bind(path).with_context(|| format!("socket {}", path.display())));
    let parts = server::Parts::new(inbox.clone(), Arc::clone(&segments), follow.meters.clone());
    let driver = spawn(driver, events, clients?, parts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(live(&config, inbox.clone(), follow, (ranks?, &segments), &notifier));
    notifier.stopping();
    inbox.send(Event::Stop);
    let ended = driver.join().map_err(|_| anyhow::anyhow!("the driver ended with a panic"));
    for socket in [&config.socket, &config.segment_socket] {
        // A stale socket would only cost the next client a refused connection.
        let _ = std::fs::remove_file(socket);
    }
    done.and(ended)
}

/// The receiving ends of the driver's outlets.
struct Follow {
    service: watch::Receiver<Service>,
    holders: watch::Receiver<BTreeSet<migshare_policy::record::Holder>>,
    leases: watch::Receiver<usize>,
    changes: watch::Receiver<u64>,
    meters: Meters,
    calls: Calls,
}

/// Reads the journal and joins driver and hardware thread.
fn assemble(config: &Config, inbox: &Inbox) -> anyhow::Result<(Driver, Follow)> {
    let (journal, replay) = Journal::open(&config.state_dir).context("journal")?;
    if replay.torn > 0 {
        tracing::warn!(
            bytes = replay.torn,
            "the journal ended in the middle of a line, as after a crash: cut off"
        );
    }
    let mut books = Books::default();
    for record in &replay.records {
        books.fold(record).with_context(|| {
            let path = config.state_dir.join("journal");
            format!("{} contradicts itself; move the file away to begin anew", path.display())
        })?;
    }
    tracing::info!(records = replay.records.len(), leases = books.leases.len(), "journal read");
    for (gpu, former) in &books.formers {
        let former = former.as_ref().map_or_else(|| "configured".to_owned(), ToString::to_string);
        tracing::info!(%gpu, former, "a change of the gpu's layout was under way: it goes on, or back to the former if hardware refuses");
    }
    let meters = Meters::new().context("metrics")?;
    let source = Source { library: config.nvml_library.clone(), proc_root: config.proc_root.clone() };
    let calls = Calls::default();
    if config.nvml_events {
        events::start(source.clone(), inbox.clone()).context("thread for NVML's events")?;
    }
    let effects =
        hardware::start(source, meters.clone(), inbox.clone(), calls.clone()).context("thread for NVML")?;
    let about = about(config)?;
    let (service, service_rx) = watch::channel(Service::Starting);
    let (holders, holders_rx) = watch::channel(BTreeSet::new());
    let (leases, leases_rx) = watch::channel(0);
    let (changes, changes_rx) = watch::channel(0);
    let outlets = Outlets { service, holders, leases, changes, meters: meters.clone() };
    let driver = Driver::new(about, books, (journal, replay.told), effects, outlets);
    let follow = Follow {
        service: service_rx,
        holders: holders_rx,
        leases: leases_rx,
        changes: changes_rx,
        meters,
        calls,
    };
    Ok((driver, follow))
}

fn about(config: &Config) -> anyhow::Result<About> {
    let layout = match config.layout {
        LayoutName::Uniform => Layout::Uniform,
        LayoutName::FullMemory => Layout::FullMemory,
    };
    let direction = match config.placement {
        Placing::Pack => Direction::Pack,
        Placing::Auto | Placing::Spread => Direction::Spread,
    };
    let reshaping = Reshaping {
        per_user: config.reshape.per_user,
        window: config.reshape.window.into(),
        lazy: config.reshape.give_back == GiveBack::Lazily,
        requeue: config.reshape.no_place == NoPlace::Requeue,
    };
    Ok(About {
        node: config.node.clone(),
        rules: Rules { layout, direction, reshaping },
        direction_follows_driver: config.placement == Placing::Auto,
        boot: process::boot_id(&config.proc_root).context("the kernel's boot id")?,
    })
}

/// Starts the driver's thread, which serves the clients of the first socket, too.
fn spawn(
    driver: Driver,
    events: UnboundedReceiver<Event>,
    clients: UnixListener,
    parts: server::Parts,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::from_std(clients)?
    };
    let run = move || {
        runtime.spawn(server::serve(clients, parts));
        runtime.block_on(driver.run(events));
    };
    std::thread::Builder::new().name("driver".to_owned()).spawn(run)
}

async fn live(
    config: &Config,
    inbox: Inbox,
    follow: Follow,
    (ranks, segments): (UnixListener, &Arc<Segments>),
    notifier: &Notifier,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ranks = tokio::net::UnixListener::from_std(ranks)?;
    segments.watch_all();
    let limit = std::time::Duration::from_secs(config.nvml_alarm);
    tokio::spawn(alarm::guard(follow.calls, limit, inbox.clone()));
    tokio::spawn(holders::watch(follow.holders, inbox.clone()));
    tokio::spawn(segments::socket::serve(ranks, Arc::clone(segments)));
    if let Some(address) = config.metrics.listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("metrics at {address}"))?;
        let sources =
            http::Sources { meters: follow.meters, inbox: inbox.clone(), segments: Arc::clone(segments) };
        tokio::spawn(http::serve(listener, sources));
    }
    if let Some(dir) = config.metrics.hpc_job_dir.clone() {
        tokio::spawn(hpc_jobs::keep(dir, follow.changes, inbox.clone()));
    }
    let follows = keeper::Follows { service: follow.service.clone(), leases: follow.leases };
    let slurm = Slurm::new(&config.node, &config.slurm);
    let kernel = isolation::of_kernel(&config.proc_root);
    inbox.send(Event::Isolation(kernel.status.clone()));
    tokio::spawn(isolation::ask(
        slurm.clone(),
        config.node.clone(),
        kernel,
        config.slurm.interval(),
        inbox.clone(),
    ));
    tokio::spawn(keeper::keep(slurm, config.slurm.drain, config.slurm.interval(), follows, inbox.clone()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        end = announce(follow.service, notifier) => end?,
        end = watchdog(inbox, notifier) => end?,
    }
    tracing::info!("stopping");
    Ok(())
}

/// Says "ready" when the start has ended, and keeps the service manager's status line.
async fn announce(mut service: watch::Receiver<Service>, notifier: &Notifier) -> anyhow::Result<()> {
    let mut ready = false;
    loop {
        let level = service.borrow_and_update().clone();
        let text = match &level {
            Service::Starting => "starting",
            Service::Serving => "serving",
            Service::Unfit { reason } => reason,
        };
        notifier.status(text);
        if !ready && level != Service::Starting {
            ready = true;
            notifier.ready();
            tracing::info!("ready");
        }
        service.changed().await.context("the driver has ended")?;
    }
}

/// Tells the service manager that the agent lives, as long as its driver answers.
async fn watchdog(inbox: Inbox, notifier: &Notifier) -> anyhow::Result<()> {
    let Some(interval) = notify::watchdog_interval() else { return std::future::pending().await };
    loop {
        let (sender, receiver) = oneshot::channel();
        inbox.send(Event::Status(sender));
        receiver.await.context("the driver has ended")?;
        notifier.alive();
        tokio::time::sleep(interval).await;
    }
}

fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(FILES).max(soft), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
