//! The C border of the SPANK plugin: `spank_migshare.so`.
//!
//! Every function that Slurm calls goes through `guard`: a panic must not cross into C, where it would abort
//! srun, slurmd or slurmstepd. What the hooks do is in the crate `migshare_spank`.

mod cluster;
mod command;
mod host;
mod sys;

use host::Host;
use migshare_spank::Plugin;
use migshare_spank::plugin::Context;
use migshare_spank::slurm::{Item, Level, Slurm};
use std::ffi::{c_char, c_int, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Slurm loads a plugin by these; the version must be of its own series.
#[unsafe(no_mangle)]
pub static plugin_name: [u8; 9] = *b"migshare\0";
/// See [`plugin_name`].
#[unsafe(no_mangle)]
pub static plugin_type: [u8; 6] = *b"spank\0";
/// See [`plugin_name`].
#[unsafe(no_mangle)]
pub static plugin_version: c_uint = sys::SLURM_VERSION_NUMBER;
/// Version of the plugin's own interface.
#[unsafe(no_mangle)]
pub static spank_plugin_version: c_uint = 1;
/// `ESPANK_JOB_FAILURE`: from 25.05 on, an error of `slurm_spank_init` in a step fails the job and not the node.
#[unsafe(no_mangle)]
pub static slurm_spank_init_failure_mode: c_int = 3012;

/// What is kept from hook to hook. Slurm calls hooks one after the other, and forks only between them, so the lock is
/// never waited for and never held in a fork; a panic poisons it, which the task hooks look at.
static PLUGIN: LazyLock<Mutex<Plugin>> = LazyLock::new(Mutex::default);

/// Slurm's word for failure; positive values are ignored before 25.05.
const FAILED: c_int = -1;
const INTERNAL: &str = "internal error; the log of slurmd has it";

/// Runs one hook. An error becomes a message and -1, a panic `on_panic`.
fn guard(
    handle: sys::spank_t,
    on_panic: c_int,
    body: impl FnOnce(&mut Plugin, &Host) -> Result<(), String>,
) -> c_int {
    let host = Host::new(handle);
    let result = catch_unwind(AssertUnwindSafe(|| {
        body(&mut PLUGIN.lock().unwrap_or_else(PoisonError::into_inner), &host)
    }));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(text)) => {
            if !text.is_empty() {
                host.say(Level::Error, &text);
            }
            FAILED
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic");
            host.say(Level::Error, &format!("internal error: {text}"));
            on_panic
        }
    }
}

/// The words of plugstack.conf as the hook gets them.
///
/// # Safety
/// `count` strings at `words`, as Slurm passes them to every hook.
unsafe fn words(count: c_int, words: *mut *mut c_char) -> Vec<String> {
    // SAFETY: the caller vouches for it.
    (0..usize::try_from(count).unwrap_or(0)).filter_map(|i| unsafe { host::text(*words.add(i)) }).collect()
}

fn context() -> Context {
    // SAFETY: takes no argument.
    match unsafe { sys::spank_context() } {
        sys::S_CTX_REMOTE => Context::Step,
        sys::S_CTX_JOB_SCRIPT => Context::JobScript,
        sys::S_CTX_SLURMD => Context::Slurmd,
        _ => Context::Command,
    }
}

extern "C" fn on_option(_value: c_int, argument: *const c_char, remote: c_int) -> c_int {
    guard(std::ptr::null_mut(), FAILED, |plugin, host| {
        // SAFETY: Slurm passes null or a string.
        let text = unsafe { host::text(argument) };
        plugin.option(text.as_deref(), remote != 0, host)
    })
}

/// All contexts but prolog and epilog: registers the option, reads the plugin's words.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init(handle: sys::spank_t, ac: c_int, av: *mut *mut c_char) -> c_int {
    guard(handle, FAILED, |plugin, host| {
        let mut option = host::with_option(Some(on_option));
        // SAFETY: Slurm copies the option, and calls back only while the plugin is loaded.
        unsafe { sys::spank_option_register(handle, &mut option) };
        // SAFETY: Slurm's arguments.
        let words = unsafe { words(ac, av) };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        plugin.init(context(), &words, host)
    })
}

/// Commands: `--gres`. Steps: leaves.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init_post_opt(
    handle: sys::spank_t,
    _: c_int,
    _: *mut *mut c_char,
) -> c_int {
    let context = context();
    // A step's panic is told by its task hooks.
    let on_panic = if context == Context::Step { 0 } else { FAILED };
    guard(handle, on_panic, |plugin, host| plugin.init_post_opt(context, host))
}

/// Before the first step of a job on this node.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_job_prolog(
    handle: sys::spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    guard(handle, 0, |plugin, host| {
        // SAFETY: Slurm's arguments.
        let words = unsafe { words(ac, av) };
        plugin.job_prolog(&words.iter().map(String::as_str).collect::<Vec<_>>(), host);
        Ok(())
    })
}

/// After the last step of a job on this node.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_job_epilog(
    handle: sys::spank_t,
    ac: c_int,
    av: *mut *mut c_char,
) -> c_int {
    guard(handle, 0, |plugin, host| {
        // SAFETY: Slurm's arguments.
        let words = unsafe { words(ac, av) };
        plugin.job_epilog(&words.iter().map(String::as_str).collect::<Vec<_>>(), host);
        Ok(())
    })
}

/// In the task, still root: raises what went wrong before.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_init_privileged(
    handle: sys::spank_t,
    _: c_int,
    _: *mut *mut c_char,
) -> c_int {
    guard(handle, FAILED, |plugin, host| match PLUGIN.is_poisoned() {
        true => Err(INTERNAL.to_owned()),
        false => plugin.task_init_privileged(host),
    })
}

/// In slurmstepd, root, the task has not called exec: device filter.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_post_fork(
    handle: sys::spank_t,
    _: c_int,
    _: *mut *mut c_char,
) -> c_int {
    let code = guard(handle, FAILED, |plugin, host| {
        plugin.task_post_fork(host);
        Ok(())
    });
    if code != 0
        && let Some(pid) = Host::new(handle).item(Item::TaskPid)
    {
        // SAFETY: the task waits for slurmstepd, so the id is its own. Unguarded it must not run.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    }
    0
}

/// In the task, as the user: environment.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_init(handle: sys::spank_t, _: c_int, _: *mut *mut c_char) -> c_int {
    guard(handle, FAILED, |plugin, host| plugin.task_init(host))
}

/// In slurmstepd, a task ended.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_exit(handle: sys::spank_t, _: c_int, _: *mut *mut c_char) -> c_int {
    guard(handle, 0, |plugin, host| {
        plugin.task_exit(host);
        Ok(())
    })
}

/// The end of a command, a step, or slurmd's use of the plugin.
///
/// # Safety
/// Called by Slurm, with its handle and words.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_exit(handle: sys::spank_t, _: c_int, _: *mut *mut c_char) -> c_int {
    guard(handle, 0, |plugin, host| {
        plugin.exit(host);
        Ok(())
    })
}
