//! The one owner of the node's state. It takes events from everywhere, asks the policy, writes the journal, and only then acts and
//! answers.
//!
//! ```text
//!  server, hardware, holders, slurm --Event--> inbox
//!     1  observe what was seen            (in memory, cannot fail)
//!     2  answer what was asked: proposals, committed in memory one after the other
//!     3  append all their records, one fsync for all ----- fails ---> put the node back as it was, answer one by one
//!     4  replies to the clients, effects to the hardware thread
//!     5  work until there is none left, in the same way
//! ```
//!
//! It blocks in fsync, which is why it has a thread of its own: requests that come meanwhile share the next fsync. The server that reads
//! them is on this thread, too: to wake another one took a third of what a request needs beside its fsync (BENCH.md), and no
//! request could be answered during the fsync anyway. It decides nothing about leaves; that is the policy's.

mod admin;
mod history;
mod mode;
mod outlook;
mod renamed;
mod told;
mod turn;

use crate::hardware::{Opened, Order};
use crate::journal::{Journal, Told};
use crate::metrics::Meters;
use history::History;
use migshare_policy::node::{Ask, Effect, Node, Rules, Seen, Service};
use migshare_policy::order::RolledBack;
use migshare_policy::record::Holder;
use migshare_policy::topology::GpuReport;
use migshare_proto::admin::{OrderRequest, PlanQuery};
use migshare_proto::status::{IsolationStatus, Status};
use migshare_proto::{GpuUuid, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Longest time that a client waits for instances to be made, when it has more patience itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two tries to repair a journal that cannot be written.
const REPAIR: Duration = Duration::from_secs(5);

/// Most events of one turn: bounds how long a reply waits for others' work.
const BATCH: usize = 256;

/// Work that nobody waits for is done once no question has come for so long.
const QUIET: Duration = Duration::from_millis(1);

/// It is put off for so long at most, however many ask.
const PUT_OFF: Duration = Duration::from_millis(20);

/// Who waits for a reply.
pub trait Asker: std::fmt::Debug + Send {
    /// Takes the reply, without blocking. One that hung up needs none.
    fn answer(self: Box<Self>, reply: Reply);
    /// Whether nobody waits any more.
    fn is_gone(&self) -> bool;
}

impl Asker for oneshot::Sender<Reply> {
    fn answer(self: Box<Self>, reply: Reply) {
        let _ = self.send(reply);
    }

    fn is_gone(&self) -> bool {
        self.is_closed()
    }
}

/// What the driver takes.
#[derive(Debug)]
pub enum Event {
    /// A client asks.
    Ask(Ask, Box<dyn Asker>),
    /// An admin orders.
    Order(OrderRequest, oneshot::Sender<Reply>),
    /// Somebody wants to know what a change of layouts would do.
    Plan(PlanQuery, oneshot::Sender<Reply>),
    /// Somebody wants to know what was decided about a job.
    Explain(u32, oneshot::Sender<Reply>),
    /// Somebody wants the picture of the node.
    Status(oneshot::Sender<Box<Status>>),
    /// Hardware, Slurm or the kernel say something.
    Seen(Seen),
    /// NVML was opened.
    NvmlOpened(Opened),
    /// Time for a look at the hardware.
    Look,
    /// An NVML call does not return; none: it has.
    Hangs(Option<&'static str>),
    /// How tasks can be kept from the leaves of others.
    Isolation(IsolationStatus),
    /// End.
    Stop,
}

/// The way to the driver. Never blocks; what is under way is bounded by those who send.
#[derive(Debug, Clone)]
pub struct Inbox(mpsc::UnboundedSender<Event>);

impl Inbox {
    /// Sends an event. When the driver is gone the process is ending, and the event with it.
    pub fn send(&self, event: Event) {
        if self.0.send(event).is_err() {
            tracing::debug!("event after the end of the driver");
        }
    }
}

/// A new inbox with its other end.
pub fn inbox() -> (Inbox, mpsc::UnboundedReceiver<Event>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inbox(sender), receiver)
}

/// What the driver knows beside the node's state.
#[derive(Debug, Clone)]
pub struct About {
    /// Slurm's name of the node.
    pub node: String,
    /// What the site has decided.
    pub rules: Rules,
    /// Whether the direction of placements follows the driver's version.
    pub direction_follows_driver: bool,
    /// The kernel's boot id.
    pub boot: String,
}

/// What others follow: the current value and every change of it.
#[derive(Debug)]
pub struct Outlets {
    /// Whether Slurm may send jobs here.
    pub service: watch::Sender<Service>,
    /// The processes to watch.
    pub holders: watch::Sender<BTreeSet<Holder>>,
    /// Number of open leases.
    pub leases: watch::Sender<usize>,
    /// Moves whenever the node may have changed.
    pub changes: watch::Sender<u64>,
    /// What is counted.
    pub meters: Meters,
}

/// The driver's state.
pub struct Driver {
    about: About,
    node: Node,
    journal: Journal,
    opened: Option<Opened>,
    hardware: Sender<Order>,
    switches: mode::Switches,
    outlets: Outlets,
    waiting: Vec<Waiting>,
    history: History,
    /// For each GPU, the last order that hardware refused, until another one comes.
    rolled_back: BTreeMap<GpuUuid, RolledBack>,
    /// What was wrong when it was last told.
    problems: BTreeSet<String>,
    /// When to try to repair a broken journal.
    repair: Option<Instant>,
    /// The NVML call that does not return.
    hangs: Option<&'static str>,
    isolation: IsolationStatus,
    /// A look was ordered that the policy does not know of.
    looking: bool,
    /// Since when work that nobody waits for is put off for clients that ask.
    put_off: Option<Instant>,
}

/// What the policy is asked.
#[derive(Debug)]
enum Question {
    Ask(Ask),
    Order { order: migshare_policy::order::Order, force: bool },
}

/// A client whose instances are being made.
#[derive(Debug)]
struct Waiting {
    question: Question,
    reply: Box<dyn Asker>,
    until: Instant,
}

impl Waiting {
    fn new(question: Question, reply: Box<dyn Asker>) -> Waiting {
        Waiting { question, reply, until: Instant::now() + PATIENCE }
    }
}

impl Driver {
    /// A driver over what the journal held.
    pub fn new(
        about: About,
        books: migshare_policy::Books,
        (journal, told): (Journal, Vec<Told>),
        hardware: Sender<Order>,
        outlets: Outlets,
    ) -> Driver {
        let history = History::new(told, |job| books.leases_of(job).next().is_some());
        let node = Node::new(about.rules.clone(), books, about.boot.clone());
        let mut driver = Driver {
            about,
            node,
            journal,
            opened: None,
            hardware,
            switches: mode::Switches::default(),
            outlets,
            waiting: Vec::new(),
            history,
            rolled_back: BTreeMap::new(),
            problems: BTreeSet::new(),
            repair: None,
            hangs: None,
            isolation: IsolationStatus::default(),
            looking: false,
            put_off: None,
        };
        driver.mind_the_journal();
        driver
    }

    /// Runs until it is told to stop, or until nobody can send any more.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) {
        self.turns(Vec::new());
        self.publish();
        loop {
            let batch = match self.next(&mut events).await {
                Some(batch) => batch,
                None => return,
            };
            let stop = batch.iter().any(|e| matches!(e, Event::Stop));
            if self.can_put_off_work(&batch) {
                self.take_questions(batch);
            } else {
                self.put_off = None;
                self.take(batch);
                self.publish();
                self.node.prepare();
            }
            if stop {
                return;
            }
        }
    }

    /// Whether these are questions alone, so that their clients can be answered before other work is looked for: the steps of
    /// a job ask within microseconds of each other, and each would wait for the work that the one before it has left.
    fn can_put_off_work(&self, batch: &[Event]) -> bool {
        let questions = !batch.is_empty() && batch.iter().all(|e| matches!(e, Event::Ask(..)));
        let long = self.put_off.is_some_and(|since| since.elapsed() > PUT_OFF);
        questions && !long && self.waiting.is_empty() && self.journal.broken().is_none()
    }

    /// Waits for events or for the next timer. None when nobody can send any more.
    async fn next(&self, events: &mut mpsc::UnboundedReceiver<Event>) -> Option<Vec<Event>> {
        let pause = if self.put_off.is_some() { Some(QUIET) } else { self.timer() };
        let first = match pause {
            Some(pause) => timeout(pause, events.recv()).await,
            None => Ok(events.recv().await),
        };
        let Ok(first) = first else { return Some(Vec::new()) };
        let mut batch = vec![first?];
        // What has come to the socket meanwhile is read now, to have a part in the next fsync.
        tokio::task::yield_now().await;
        batch.extend(std::iter::from_fn(|| events.try_recv().ok()).take(BATCH - 1));
        Some(batch)
    }

    /// Time until something is due although nothing happens.
    fn timer(&self) -> Option<Duration> {
        let now = now();
        let broken = self.journal.broken().is_some();
        let node = self
            .node
            .wake(now)
            .filter(|_| !broken)
            .map(|at| Duration::from_secs(u64::try_from(at - now).unwrap_or(0)));
        let due = self.waiting.iter().map(|w| w.until).chain(self.repair).min();
        let due = due.map(|at| at.saturating_duration_since(Instant::now()));
        // A timer that is due at once would spin if the work that it announces is refused: one look each tenth of a second.
        node.into_iter().chain(due).min().map(|pause| pause.max(Duration::from_millis(100)))
    }

    /// Answers a batch of questions, and leaves all other work for the next quiet moment.
    fn take_questions(&mut self, batch: Vec<Event>) {
        let questions = batch.into_iter().filter_map(|event| match event {
            Event::Ask(ask, reply) => Some(Waiting::new(Question::Ask(ask), reply)),
            _ => None,
        });
        self.put_off.get_or_insert_with(Instant::now);
        self.answer(questions.collect());
        if !self.waiting.is_empty() {
            // Somebody waits for instances: they are made at once.
            self.put_off = None;
            self.turns(Vec::new());
            self.publish();
        }
        self.node.prepare();
    }

    fn take(&mut self, batch: Vec<Event>) {
        let mut asks = Vec::new();
        let (mut status, mut plans, mut stories) = (Vec::new(), Vec::new(), Vec::new());
        for event in batch {
            match event {
                Event::Ask(ask, reply) => asks.push(Waiting::new(Question::Ask(ask), reply)),
                Event::Order(request, reply) => asks.extend(self.order_asked(request, reply)),
                Event::Plan(query, reply) => plans.push((query, reply)),
                Event::Explain(job, reply) => stories.push((job, reply)),
                Event::Status(reply) => status.push(reply),
                Event::Seen(seen) => {
                    told::seen(&seen);
                    self.looking &= !matches!(seen, Seen::Scan(_) | Seen::NvmlDead(_));
                    if let Seen::Scan(reports) = &seen {
                        renamed::tell(&self.node, reports, &self.outlets.meters);
                        self.mind_the_mode(reports);
                    }
                    self.node.observe(now(), seen);
                }
                Event::NvmlOpened(opened) => self.nvml_opened(opened),
                Event::Look => self.look(),
                Event::Hangs(call) => self.nvml_hangs(call),
                Event::Isolation(isolation) => {
                    told::isolation(&isolation);
                    self.isolation = isolation;
                }
                Event::Stop => {}
            }
        }
        self.mind_the_journal();
        self.turns(asks);
        // A client that no longer listens wants no answer.
        if !status.is_empty() {
            let picture = Box::new(self.status());
            status.into_iter().for_each(|reply| drop(reply.send(picture.clone())));
        }
        for (query, reply) in plans {
            let _ = reply.send(self.plan(query));
        }
        for (job, reply) in stories {
            let _ = reply.send(self.story(job));
        }
    }

    fn nvml_opened(&mut self, opened: Opened) {
        let major = opened.versions.driver.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0);
        let (driver, cuda) = (&opened.versions.driver, opened.versions.cuda);
        tracing::info!(driver, cuda = format!("{}.{}", cuda.0, cuda.1), "NVML is open");
        if self.about.direction_follows_driver {
            let direction = migshare_policy::placement::Direction::for_driver(major);
            if direction != self.about.rules.direction {
                self.about.rules.direction = direction;
                // Nothing was seen through the new session yet, so nothing is forgotten; a scan follows.
                self.node =
                    Node::new(self.about.rules.clone(), self.node.books().clone(), self.about.boot.clone());
            }
        }
        self.opened = Some(opened);
    }

    /// Orders a look, unless one is under way: while NVML hangs they would pile up.
    fn look(&mut self) {
        if !std::mem::replace(&mut self.looking, true) {
            self.order(Order::Effect(Effect::Scan));
        }
    }

    fn nvml_hangs(&mut self, call: Option<&'static str>) {
        if let Some(call) = call {
            tracing::error!(call, "NVML does not return: leases go on where no instance has to be made");
        }
        self.outlets.meters.hangs(call);
        self.hangs = call;
    }

    fn carry_out(&self, effects: Vec<Effect>) {
        effects.into_iter().map(Order::Effect).for_each(|order| self.order(order));
    }

    fn order(&self, order: Order) {
        if self.hardware.send(order).is_err() {
            tracing::error!("the hardware thread is gone");
        }
    }

    fn mind_the_mode(&mut self, reports: &[GpuReport]) {
        for gpu in self.switches.due(reports, self.node.books(), Instant::now()) {
            tracing::info!(%gpu, "MIG mode of a counted gpu is off: switching it on");
            self.order(Order::MigOn(gpu));
        }
    }
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
