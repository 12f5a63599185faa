//! One simulated node with its agent in a directory of its own. Everything it starts ends with it.

use migshare_proto::message::{
    CloseLease, GrantReply, GrantStep, LeaseReply, OpenLease, ReleaseGrant, Reply, Request, Shape,
    StatusQuery,
};
use migshare_proto::status::{GpuStatus, Status};
use migshare_proto::{Client, ClientError, JobKey, StepId};
use nvidia_ml::config::Config;
use nvidia_ml::fault::{Effect, Fault, Moment};
use nvidia_ml::machine::Machine;
use nvidia_ml::store::Store;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for anything; nothing here is about speed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A node.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sim: Store,
    agent: Option<Child>,
    extra: String,
}

impl Rig {
    /// A node with so many H100 in MIG mode. No agent runs yet.
    pub(crate) fn new(gpus: u32) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        let text = format!(
            "state = \"{at}/nvml\"\nroot = \"{at}/root\"\ndriver = \"550.54.15\"\ncuda = \"12.4\"\ncaps_major = 235\n\
             enforce_caps = false\n[[gpu]]\nmodel = \"h100-sxm-80\"\ncount = {gpus}\ngi_order = \"half-swapped\"\n\
             mig = true\nnuma_node = 0\ncpu_affinity = \"0-1\"\n"
        );
        std::fs::write(dir.path().join("sim.toml"), text).unwrap();
        let sim = Store::open(Config::locate(Some(&dir.path().join("sim.toml"))).unwrap()).unwrap();
        let extra = "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\n".to_owned();
        Rig { dir, sim, agent: None, extra }
    }

    /// The node with other lines at the end of the agent's configuration.
    pub(crate) fn with(mut self, extra: &str) -> Rig {
        extra.clone_into(&mut self.extra);
        self
    }

    /// The node with other lines before the rest of the agent's configuration.
    pub(crate) fn before(mut self, extra: &str) -> Rig {
        self.extra.insert_str(0, extra);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The agent's command, configured.
    pub(crate) fn command(&self) -> Command {
        let at = self.dir.path().display();
        let library = library();
        let text = format!(
            "node = \"n1\"\nstate_dir = \"{at}/state\"\nsocket = \"{at}/agent.sock\"\nproc_root = \"{at}/root/proc\"\n\
             nvml_library = \"{}\"\n{}",
            library.display(),
            self.extra
        );
        std::fs::write(self.path("agent.toml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshared"));
        command.arg("--config").arg(self.path("agent.toml"));
        tied(&command)
    }

    /// Starts a command as the agent. Does not wait for it.
    pub(crate) fn launch(&mut self, command: Command) {
        assert!(self.agent.is_none(), "an agent runs already");
        let mut command = tied(&command);
        let log = std::fs::File::options().append(true).create(true).open(self.path("log")).unwrap();
        command.env("NVML_SIM_CONFIG", self.path("sim.toml")).stdin(Stdio::null());
        self.agent = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Starts the agent and waits until all GPUs are cut and all leaves can be used.
    pub(crate) fn start(&mut self) {
        self.launch(self.command());
        self.settled();
    }

    /// Waits until every GPU has its seven leaves and nothing is wrong.
    pub(crate) fn settled(&mut self) -> Status {
        self.until("all leaves", is_whole)
    }

    /// Waits for the same, or for the end of the agent; whether it lives.
    pub(crate) fn settled_or_ended(&mut self) -> bool {
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline && self.runs() {
            if self.try_status().is_ok_and(|s| is_whole(&s)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!self.runs(), "the agent neither settles nor ends");
        false
    }

    /// Waits until the status is as wanted.
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + LONG;
        loop {
            let got = self.try_status();
            match got {
                Ok(status) if wanted(&status) => return status,
                other => {
                    assert!(self.runs(), "the agent ended; log:\n{}", self.log());
                    assert!(Instant::now() < deadline, "no {what}: {other:?}\nlog:\n{}", self.log());
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the agent still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|a| a.try_wait().unwrap().is_none())
    }

    /// Kills the agent as the kernel does when memory is short.
    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
            self.unlocked();
        }
    }

    /// Waits until no agent has the state directory: behind a tracer that was killed it dies a moment later, and a child that it
    /// was about to start has the lock until its exec.
    fn unlocked(&self) {
        use nix::fcntl::{Flock, FlockArg};
        let deadline = Instant::now() + LONG;
        // A start that was killed early has made no lock yet.
        while let Ok(file) = std::fs::File::open(self.path("state/lock"))
            && Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
        {
            assert!(Instant::now() < deadline, "an agent still has the state directory");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the agent by SIGTERM.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.agent_pid().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.agent.take().unwrap().wait().unwrap()
    }

    pub(crate) fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Number of segments that the agent holds.
    pub(crate) fn memfds(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.agent_pid())).unwrap().flatten();
        let targets = files.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("/memfd:migshare-segment-")).count()
    }

    /// Waits until the agent has ended by itself.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let status = self.agent.take().unwrap().wait().unwrap();
        self.unlocked();
        status
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.path("agent.sock"), "test", LONG)
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        self.client()?.ask(&request)
    }

    pub(crate) fn try_status(&self) -> Result<Status, ClientError> {
        match self.ask(Request::Status(StatusQuery {}))? {
            Reply::Status(status) => Ok(*status),
            other => panic!("{other:?} to status"),
        }
    }

    pub(crate) fn open(&self, job: u32, leaves: u32) -> Result<LeaseReply, ClientError> {
        let request = OpenLease { job: key(job), leaves, shape: Shape::default() };
        match self.ask(Request::OpenLease(request))? {
            Reply::Lease(lease) => Ok(lease),
            other => panic!("{other:?} to open_lease"),
        }
    }

    pub(crate) fn grant(
        &self,
        job: u32,
        step: u32,
        leaves: u32,
        holder: u32,
    ) -> Result<GrantReply, ClientError> {
        let request = GrantStep {
            job: key(job),
            step: StepId(step),
            leaves,
            tasks: leaves,
            shape: Shape::default(),
            holder,
        };
        match self.ask(Request::Grant(request))? {
            Reply::Granted(granted) => Ok(granted),
            other => panic!("{other:?} to grant"),
        }
    }

    pub(crate) fn release(&self, job: u32, step: u32) -> Result<bool, ClientError> {
        done(self.ask(Request::Release(ReleaseGrant { job: key(job), step: StepId(step) }))?)
    }

    pub(crate) fn close(&self, job: u32) -> Result<bool, ClientError> {
        done(self.ask(Request::CloseLease(CloseLease { job, uid: UID, start: Some(START) }))?)
    }

    /// What stands on the simulated GPUs.
    pub(crate) fn machine(&self) -> Arc<Machine> {
        self.sim.snapshot().unwrap()
    }

    /// Arms a fault for the calls of one function.
    pub(crate) fn fault(
        &self,
        call: &str,
        nth: u64,
        times: Option<u64>,
        moment: Moment,
        effect: Effect,
    ) -> u32 {
        self.arm(Fault { id: 0, call: call.to_owned(), gpu: None, nth, times, moment, effect })
    }

    /// Arms a fault, and returns its number.
    pub(crate) fn arm(&self, fault: Fault) -> u32 {
        let state = self.sim.config().state.clone();
        let armed = self.sim.update(|machine: &mut Machine| {
            let id = machine.serial();
            let fault = Fault { id, ..fault };
            fault.arm(&state)?;
            machine.faults.push(fault);
            Ok::<_, std::io::Error>(id)
        });
        armed.unwrap().unwrap()
    }

    /// How many calls an armed fault has counted.
    pub(crate) fn counted(&self, fault: u32) -> u64 {
        let machine = self.machine();
        let armed = machine.faults.iter().find(|f| f.id == fault).unwrap();
        armed.counted(&self.sim.config().state)
    }

    pub(crate) fn clear_faults(&self) {
        self.change(|machine| machine.faults.clear());
    }

    /// Changes the simulated hardware.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Machine)) {
        let changed = self.sim.update(|machine| {
            change(machine);
            Ok::<_, std::convert::Infallible>(())
        });
        match changed.unwrap() {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the agent\n{}---", self.log());
        }
    }
}

/// Every GPU has its seven leaves and nothing is wrong.
fn is_whole(status: &Status) -> bool {
    let full = |g: &GpuStatus| {
        g.leaves.len() == 7 && g.leaves.iter().all(|l| l.generation > 0 && !l.uuid.is_empty())
    };
    let all = status.counted > 0 && status.usable == status.counted;
    all && status.problems.is_empty() && status.gpus.iter().all(full)
}

const UID: u32 = 1000;
const START: i64 = 1_700_000_000;

pub(crate) fn key(job: u32) -> JobKey {
    JobKey { job, start: START, uid: UID }
}

fn done(reply: Reply) -> Result<bool, ClientError> {
    match reply {
        Reply::Done(done) => Ok(done.found),
        other => panic!("{other:?} where done was expected"),
    }
}

/// The simulated library: cargo puts it beside the test or one folder up.
pub(crate) fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let places = test.ancestors().skip(1).take(2).map(|dir| dir.join("libnvidia_ml.so"));
    let found: Vec<PathBuf> = places.filter(|path| path.exists()).collect();
    found.first().unwrap_or_else(|| panic!("no libnvidia_ml.so beside {}", test.display())).clone()
}

/// The command as one that the kernel kills when its parent is gone (PR_SET_PDEATHSIG): a test that is killed, or a tracer
/// between the two, leaves nothing running. The process keeps its pid. Where there is no setpriv the command stays as it is.
pub(crate) fn tied(command: &Command) -> Command {
    let program = command.get_program();
    let mut tied = if program == "setpriv" || !has("setpriv") {
        Command::new(program)
    } else {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--pdeathsig", "KILL", "--"]).arg(program);
        setpriv
    };
    tied.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    tied
}

/// A process that ends when dropped, or with the test.
pub(crate) struct Ends(Child);

impl Ends {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Ends {
        Ends(command.spawn().unwrap())
    }
}

impl std::ops::Deref for Ends {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl std::ops::DerefMut for Ends {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended; what counts is that it is gone and reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that can hold grants, and that ends when dropped.
pub(crate) struct Holder(Ends);

impl Holder {
    pub(crate) fn new() -> Holder {
        let mut sleep = Command::new("sleep");
        sleep.arg("3600");
        Holder(Ends::start(tied(&sleep).stdin(Stdio::null())))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "still not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says why a test cannot run here; an error where everything must run.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("MIGSHARE_REQUIRE").as_deref() != Ok("all"), "{reason}");
    println!("SKIP: {reason}");
}

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).exists())
        || Path::new(program).exists()
}
