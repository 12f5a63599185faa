//! Slurm, as the hooks' logic sees it, over `spank.h` and `slurm.h`.

use crate::cluster;
use crate::command;
use crate::sys;
use migshare_spank::option;
use migshare_spank::slurm::{Elsewhere, Item, Job, Level, Node, Partition, Slurm, SlurmError, Step};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

/// Longest value of an environment variable that is looked at, in bytes.
const VALUE_LIMIT: usize = 64 * 1024;

/// Slurm in one hook.
pub(crate) struct Host {
    handle: sys::spank_t,
    initialised: Cell<bool>,
}

impl Host {
    /// For the handle that Slurm gave the hook; null in an option's call-back, which needs none.
    pub(crate) fn new(handle: sys::spank_t) -> Host {
        Host { handle, initialised: Cell::new(false) }
    }

    /// A prolog runs in a process of its own, in which calls to slurmctld first need `slurm_init` (from 23.02 on).
    fn client(&self) {
        // SAFETY: takes no argument.
        let script = unsafe { sys::spank_context() } == sys::S_CTX_JOB_SCRIPT;
        if script && !self.initialised.replace(true) {
            // SAFETY: null means the configuration that slurmd itself uses.
            unsafe { sys::slurm_init(ptr::null()) }
        }
    }

    /// What is read from slurmctld's record of a job.
    fn with_job<T>(&self, job: u32, read: impl FnOnce(&sys::job_info) -> T) -> Result<T, SlurmError> {
        self.client();
        let mut message = ptr::null_mut();
        // SAFETY: Slurm fills the pointer, or fails.
        check("slurm_load_job", unsafe { load_job(&mut message, job) })?;
        // SAFETY: the message is Slurm's and whole; Slurm counts its records.
        let jobs = unsafe { slice((*message).job_array, (*message).record_count) };
        // A leader of a heterogeneous job comes with its components, an array with its tasks.
        let found = jobs.iter().find(|record| job_id(record) == job).map(read);
        // SAFETY: it came from slurm_load_job and is not used again.
        unsafe { sys::slurm_free_job_info_msg(message) };
        found.ok_or_else(|| SlurmError::new("slurm_load_job", format!("no job {job}")))
    }
}

impl Slurm for Host {
    fn say(&self, level: Level, text: &str) {
        let text = c_string(&format!("migshare: {text}"));
        let format = c"%s".as_ptr();
        match level {
            // SAFETY: the format takes one string, which lives until the call returns.
            Level::Error => unsafe { sys::slurm_error(format, text.as_ptr()) },
            // SAFETY: as above.
            Level::Info => unsafe { sys::slurm_info(format, text.as_ptr()) },
            // SAFETY: as above.
            Level::Debug => unsafe { sys::slurm_debug(format, text.as_ptr()) },
        }
    }

    fn process_env(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|v| v.to_string_lossy().into_owned())
    }

    fn item(&self, item: Item) -> Option<u32> {
        let (number, signed) = match item {
            Item::Job => (sys::S_JOB_ID, false),
            Item::Step => (sys::S_JOB_STEPID, false),
            Item::Uid => (sys::S_JOB_UID, false),
            Item::LocalTasks => (sys::S_JOB_LOCAL_TASK_COUNT, false),
            Item::Task => (sys::S_TASK_ID, true),
            Item::TaskPid => (sys::S_TASK_PID, true),
        };
        let mut value = 0u32;
        // SAFETY: spank.h documents a pointer to 32 bits (uid_t, uint32_t, int, pid_t) for each of these items.
        let code = unsafe { sys::spank_get_item(self.handle, number, ptr::from_mut(&mut value)) };
        (code == 0 && !(signed && (value as i32) < 0)).then_some(value)
    }

    fn getenv(&self, name: &str) -> Option<String> {
        let name = c_string(name);
        let mut value = vec![0u8; VALUE_LIMIT];
        let buffer = value.as_mut_ptr().cast::<c_char>();
        // SAFETY: the buffer has the length that is passed.
        let code = unsafe { sys::spank_getenv(self.handle, name.as_ptr(), buffer, VALUE_LIMIT as c_int) };
        let there = code == 0 || code == sys::ESPANK_NOSPACE;
        let text = CStr::from_bytes_until_nul(&value).ok().filter(|_| there)?;
        Some(text.to_string_lossy().into_owned())
    }

    fn setenv(&self, name: &str, value: &str) -> Result<(), SlurmError> {
        let (name, value) = (c_string(name), c_string(value));
        // SAFETY: both strings live until the call returns; Slurm copies them.
        let code = unsafe { sys::spank_setenv(self.handle, name.as_ptr(), value.as_ptr(), 1) };
        spank_result("spank_setenv", code)
    }

    fn unsetenv(&self, name: &str) -> Result<(), SlurmError> {
        let name = c_string(name);
        // SAFETY: the string lives until the call returns.
        let code = unsafe { sys::spank_unsetenv(self.handle, name.as_ptr()) };
        spank_result("spank_unsetenv", code)
    }

    fn job_option(&self) -> Option<String> {
        let mut asked = with_option(None);
        let mut value = ptr::null_mut();
        // SAFETY: the option and its strings outlive the call; the value stays Slurm's.
        let code = unsafe { sys::spank_option_getopt(self.handle, &mut asked, &mut value) };
        // SAFETY: Slurm returned null or a string of its own.
        (code == 0).then(|| unsafe { text(value) }.unwrap_or_default())
    }

    fn job(&self, job: u32) -> Result<Job, SlurmError> {
        let node = std::env::var("SLURMD_NODENAME").map_err(|e| SlurmError::new("SLURMD_NODENAME", e))?;
        // SAFETY: a record of a message that lives.
        self.with_job(job, |info| unsafe { job_of(info, job, &node) })?
    }

    fn step(&self, job: u32, step: u32) -> Result<Step, SlurmError> {
        self.client();
        let mut message = ptr::null_mut();
        // SAFETY: Slurm fills the pointer, or fails.
        check("slurm_get_job_steps", unsafe { get_steps(&mut message, job, step) })?;
        // SAFETY: the message is Slurm's, whole, and freed after the last use.
        let found = unsafe { find_step(&*message, job, step) };
        // SAFETY: it came from slurm_get_job_steps and is not used again.
        unsafe { sys::slurm_free_job_step_info_response_msg(message) };
        found.ok_or_else(|| SlurmError::new("slurm_get_job_steps", format!("no step {job}.{step}")))
    }

    fn drain(&self, node: &str, reason: &str) -> Result<(), SlurmError> {
        self.client();
        let (node, reason) = (c_string(node), c_string(reason));
        // SAFETY: a struct of numbers and pointers, for which zero is a value.
        let mut update: sys::update_node_msg_t = unsafe { std::mem::zeroed() };
        // SAFETY: it sets all fields to "no change".
        unsafe { sys::slurm_init_update_node_msg(&mut update) };
        update.node_names = node.as_ptr().cast_mut();
        update.reason = reason.as_ptr().cast_mut();
        update.node_state = sys::NODE_DRAIN;
        // From 26.05 on slurmctld takes the user from the message's credential.
        #[cfg(not(slurm_step_id_jobs))]
        // SAFETY: takes no argument, always succeeds.
        (update.reason_uid = unsafe { libc::geteuid() });
        // SAFETY: the message and its strings live until the call returns, which only reads them.
        check("slurm_update_node", unsafe { sys::slurm_update_node(&mut update) })
    }

    fn requeue(&self, job: u32) -> Result<(), SlurmError> {
        self.client();
        // SAFETY: numbers only.
        check("slurm_requeue", unsafe { requeue(job) })
    }

    fn excluded(&self, job: u32) -> Result<String, SlurmError> {
        // SAFETY: null or a string of the record.
        self.with_job(job, |info| unsafe { text(info.exc_nodes) }.unwrap_or_default())
    }

    fn keep_away(&self, job: u32, nodes: &str, why: &str) -> Result<(), SlurmError> {
        self.client();
        cluster::keep_away(job, nodes, why)
    }

    fn nodes(&self) -> Result<Vec<Node>, SlurmError> {
        self.client();
        cluster::nodes()
    }

    fn partitions(&self) -> Result<Vec<Partition>, SlurmError> {
        self.client();
        cluster::partitions()
    }

    fn option(&self, name: &str) -> Result<Option<String>, SlurmError> {
        command::Options::find()?.get(name)
    }

    fn set_option(&self, name: &str, value: &str) -> Result<(), SlurmError> {
        command::Options::find()?.set(name, value)
    }
}

/// The option's description, with or without a call-back.
pub(crate) fn with_option(call_back: sys::spank_opt_cb_f) -> sys::spank_option {
    sys::spank_option {
        name: OPTION.0.as_ptr().cast_mut(),
        arginfo: OPTION.1.as_ptr().cast_mut(),
        usage: OPTION.2.as_ptr().cast_mut(),
        // 2: the argument is optional.
        has_arg: 2,
        val: 0,
        cb: call_back,
    }
}

/// Name, argument and usage, as C strings that live as long as the process.
static OPTION: std::sync::LazyLock<(CString, CString, CString)> =
    std::sync::LazyLock::new(|| (c_string(option::NAME), c_string(option::ARGINFO), c_string(option::USAGE)));

/// # Safety
/// `info` is a record of what `slurm_load_job` returned.
unsafe fn job_of(info: &sys::job_info, job: u32, node: &str) -> Result<Job, SlurmError> {
    // SAFETY: null or a string of the record.
    let nodes = unsafe { text(info.nodes) }.unwrap_or_default();
    let at = index_of(node, &nodes).ok_or_else(|| {
        SlurmError::new("slurm_load_job", format!("node {node} is not among {nodes} of job {job}"))
    })?;
    // SAFETY: Slurm counts the strings, one per node.
    let details = unsafe { slice(info.gres_detail_str, info.gres_detail_cnt) };
    // SAFETY: null or a string of the record.
    let gres = details.get(at).and_then(|d| unsafe { text(*d) });
    let requests = [info.tres_per_job, info.tres_per_node, info.tres_per_socket, info.tres_per_task];
    // SAFETY: null or strings of the record.
    let asked: Vec<String> = requests.iter().filter_map(|r| unsafe { text(*r) }).collect();
    // SAFETY: null or strings of the record.
    let [partitions, required, excluded] = unsafe {
        [info.partition, info.req_nodes, info.exc_nodes].map(|list| text(list).unwrap_or_default())
    };
    let elsewhere = Elsewhere { partitions, nodes: info.num_nodes, required, excluded };
    let (start, uid, batch) = (info.start_time, info.user_id, info.batch_flag != 0);
    Ok(Job { start, uid, batch, gres, asked: asked.join(","), elsewhere })
}

/// # Safety
/// `message` is what `slurm_get_job_steps` returned.
unsafe fn find_step(message: &sys::job_step_info_response_msg_t, job: u32, step: u32) -> Option<Step> {
    // SAFETY: Slurm counts the records.
    let mut steps = unsafe { slice(message.job_steps, message.job_step_count) }.iter();
    let info = steps.find(|s| s.step_id.job_id == job && s.step_id.step_id == step)?;
    // SAFETY: null or strings of the record.
    Some(unsafe { Step { per_node: text(info.tres_per_node), per_task: text(info.tres_per_task) } })
}

/// Position of a node in a host list such as `n[1-3,7]`.
fn index_of(node: &str, nodes: &str) -> Option<usize> {
    let (node, nodes) = (c_string(node), c_string(nodes));
    // SAFETY: the strings live until the list is destroyed, which is before the end of this function.
    unsafe {
        let list = sys::slurm_hostlist_create(nodes.as_ptr());
        if list.is_null() {
            return None;
        }
        let at = sys::slurm_hostlist_find(list, node.as_ptr());
        sys::slurm_hostlist_destroy(list);
        usize::try_from(at).ok()
    }
}

#[cfg(not(slurm_step_id_jobs))]
fn job_id(job: &sys::job_info) -> u32 {
    job.job_id
}

#[cfg(slurm_step_id_jobs)]
fn job_id(job: &sys::job_info) -> u32 {
    job.step_id.job_id
}

/// # Safety
/// As `slurm_load_job`.
unsafe fn load_job(message: &mut *mut sys::job_info_msg_t, job: u32) -> c_int {
    #[cfg(not(slurm_step_id_jobs))]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_load_job(message, job, sys::SHOW_EVERYTHING) };
    #[cfg(slurm_step_id_jobs)]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_load_job(message, step_id(job, sys::NO_VAL), sys::SHOW_EVERYTHING) };
}

/// # Safety
/// As `slurm_get_job_steps`.
unsafe fn get_steps(message: &mut *mut sys::job_step_info_response_msg_t, job: u32, step: u32) -> c_int {
    #[cfg(not(slurm_step_id_steps))]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_get_job_steps(0, job, step, message, sys::SHOW_EVERYTHING) };
    #[cfg(slurm_step_id_steps)]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_get_job_steps(&mut step_id(job, step), message, sys::SHOW_EVERYTHING) };
}

/// # Safety
/// As `slurm_requeue`.
unsafe fn requeue(job: u32) -> c_int {
    #[cfg(not(slurm_step_id_jobs))]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_requeue(job, 0) };
    #[cfg(slurm_step_id_jobs)]
    // SAFETY: the caller vouches for it.
    return unsafe { sys::slurm_requeue(step_id(job, sys::NO_VAL), 0) };
}

#[cfg(slurm_step_id_steps)]
pub(crate) fn step_id(job: u32, step: u32) -> sys::slurm_step_id_t {
    // SAFETY: a struct of numbers; no slurm unique id (0) means that the job id counts.
    let mut id: sys::slurm_step_id_t = unsafe { std::mem::zeroed() };
    (id.job_id, id.step_id, id.step_het_comp) = (job, step, sys::NO_VAL);
    id
}

pub(crate) fn check(call: &'static str, code: c_int) -> Result<(), SlurmError> {
    if code == 0 {
        return Ok(());
    }
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or_default();
    // SAFETY: returns a static string for any number.
    let cause = unsafe { text(sys::slurm_strerror(errno)) };
    Err(SlurmError::new(call, cause.unwrap_or_default()))
}

fn spank_result(call: &'static str, code: sys::spank_err_t) -> Result<(), SlurmError> {
    if code == 0 || code == sys::ESPANK_ENV_NOEXIST {
        return Ok(());
    }
    // SAFETY: returns a static string for any number.
    let cause = unsafe { text(sys::spank_strerror(code)) };
    Err(SlurmError::new(call, cause.unwrap_or_default()))
}

/// A C string without what C cannot hold.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// # Safety
/// Null, or a string that nobody changes during the call.
pub(crate) unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: the caller vouches for it.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// # Safety
/// Null, or `length` values that nobody changes while the slice is used.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, length: u32) -> &'a [T] {
    // SAFETY: the caller vouches for it.
    if pointer.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(pointer, length as usize) } }
}
