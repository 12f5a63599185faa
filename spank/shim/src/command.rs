//! `--gres` of the running srun, sbatch or salloc.
//!
//! SPANK has no call for it. The three commands export their options as `opt`, libslurmfull exports
//! `slurm_option_get` and `slurm_option_set` (src/common/slurm_opt.h, the same from 20.11 to 25.11). They are looked
//! up at run time, because no other program has them: a missing one becomes a message, not a failed load.

use crate::host::{c_string, text};
use migshare_spank::slurm::SlurmError;
use std::ffi::{CStr, c_char, c_int, c_void};

type Get = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_char;
type Set = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, bool) -> c_int;

/// The options of the command.
pub(crate) struct Options {
    options: *mut c_void,
    get: Get,
    set: Set,
}

impl Options {
    pub(crate) fn find() -> Result<Options, SlurmError> {
        let options = symbol(c"opt")?;
        // SAFETY: the types are those of slurm_opt.h.
        let get = unsafe { std::mem::transmute::<*mut c_void, Get>(symbol(c"slurm_option_get")?) };
        // SAFETY: as above.
        let set = unsafe { std::mem::transmute::<*mut c_void, Set>(symbol(c"slurm_option_set")?) };
        Ok(Options { options, get, set })
    }

    /// The value of an option; `None` where it is not set. Slurm's copy is leaked, once per command: its free is not
    /// a public call.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, SlurmError> {
        let name = c_string(name);
        // SAFETY: `options` is the command's slurm_opt_t; the returned string is ours.
        let value = unsafe { text((self.get)(self.options, name.as_ptr())) };
        Ok(value.filter(|v| !matches!(v.as_str(), "" | "unset" | "(null)")))
    }

    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), SlurmError> {
        let (name, value) = (c_string(name), c_string(value));
        // SAFETY: `options` is the command's slurm_opt_t; Slurm copies the value.
        match unsafe { (self.set)(self.options, name.as_ptr(), value.as_ptr(), false) } {
            0 => Ok(()),
            code => Err(SlurmError::new("slurm_option_set", format!("code {code}"))),
        }
    }
}

fn symbol(name: &CStr) -> Result<*mut c_void, SlurmError> {
    // SAFETY: looks a name up in what is loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    let missing = || SlurmError::new("dlsym", format!("{} is not there", name.to_string_lossy()));
    if found.is_null() { Err(missing()) } else { Ok(found) }
}
