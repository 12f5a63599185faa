//! One method per hook; which context does what.
//!
//! An `Err` here becomes `-1` for Slurm, its text (if any) an error message. Where that would harm the node, the
//! method returns nothing.

use crate::config::Config;
use crate::job_script;
use crate::local::{self, Decision, Mention};
use crate::option::{self, INHERITED, Spec};
use crate::remote::Step;
use crate::slurm::{Level, Slurm};
use crate::submit;

/// Where the plugin was loaded (`spank_context`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// srun, sbatch, salloc, scrontab.
    Command,
    /// slurmd.
    Slurmd,
    /// slurmstepd running a step.
    Step,
    /// slurmstepd running a prolog or epilog.
    JobScript,
}

/// What the plugin remembers from hook to hook within one process.
#[derive(Debug, Default)]
pub struct Plugin {
    config: Option<Result<Config, String>>,
    /// The mentions of the option for the job, or component of a heterogeneous job, at hand.
    mentions: Vec<Mention>,
    /// The option as it reached a step.
    remote: Option<Result<Spec, String>>,
    step: Option<Step>,
}

impl Plugin {
    /// `slurm_spank_init`: reads the words of plugstack.conf.
    pub fn init(&mut self, context: Context, words: &[&str], slurm: &dyn Slurm) -> Result<(), String> {
        let config = read(words, slurm);
        let result = config.as_ref().map(|_| ()).map_err(Clone::clone);
        self.config = Some(config);
        // A step keeps the error: from here it would lose the exit code of a job and drain the node of a batch job.
        if context == Context::Step { Ok(()) } else { result }
    }

    /// The option's call-back. A step may be called twice with the same text (Slurm before 24.05).
    pub fn option(&mut self, text: Option<&str>, remote: bool, slurm: &dyn Slurm) -> Result<(), String> {
        if remote {
            self.remote = Some(option::parse_inherited(text).map_err(|e| e.to_string()));
            return Ok(());
        }
        let handed_down = slurm.process_env(INHERITED);
        let first = self.mentions.is_empty();
        let mention = local::mention(text, handed_down.as_deref(), first).map_err(|e| e.to_string())?;
        self.mentions.push(mention);
        Ok(())
    }

    /// `slurm_spank_init_post_opt`.
    pub fn init_post_opt(&mut self, context: Context, slurm: &dyn Slurm) -> Result<(), String> {
        match context {
            Context::Command => self.ask_for_gres(slurm),
            Context::Step => {
                self.open_step(slurm);
                Ok(())
            }
            Context::Slurmd | Context::JobScript => Ok(()),
        }
    }

    /// `slurm_spank_job_prolog`. `init` does not run in this process.
    pub fn job_prolog(&mut self, words: &[&str], slurm: &dyn Slurm) {
        match read(words, slurm) {
            Ok(config) => job_script::prolog(&config, slurm),
            Err(e) => slurm.say(Level::Error, &e),
        }
    }

    /// `slurm_spank_job_epilog`.
    pub fn job_epilog(&mut self, words: &[&str], slurm: &dyn Slurm) {
        match read(words, slurm) {
            Ok(config) => job_script::epilog(&config, slurm),
            Err(e) => slurm.say(Level::Error, &e),
        }
    }

    /// `slurm_spank_task_init_privileged`.
    pub fn task_init_privileged(&mut self, slurm: &dyn Slurm) -> Result<(), String> {
        if let Some(Err(e)) = &self.config {
            return Err(e.clone());
        }
        self.step.as_ref().map_or(Ok(()), |step| step.check(slurm))
    }

    /// `slurm_spank_task_post_fork`.
    pub fn task_post_fork(&mut self, slurm: &dyn Slurm) {
        if let Some(step) = &mut self.step {
            step.guard(slurm);
        }
    }

    /// `slurm_spank_task_init`.
    pub fn task_init(&mut self, slurm: &dyn Slurm) -> Result<(), String> {
        self.step.as_ref().map_or(Ok(()), |step| step.environment(slurm))
    }

    /// `slurm_spank_task_exit`.
    pub fn task_exit(&mut self, slurm: &dyn Slurm) {
        if let Some(step) = &mut self.step {
            step.task_ended(slurm);
        }
    }

    /// `slurm_spank_exit`.
    pub fn exit(&mut self, slurm: &dyn Slurm) {
        if let (Some(mut step), Some(Ok(config))) = (self.step.take(), &self.config) {
            step.close(config, slurm);
        }
    }

    /// Turns the mentions into `--gres`. Called once per component of a heterogeneous job.
    fn ask_for_gres(&mut self, slurm: &dyn Slurm) -> Result<(), String> {
        let mentions = std::mem::take(&mut self.mentions);
        let Some(last) = mentions.last() else { return Ok(()) };
        let inside = slurm.process_env("SLURM_JOB_ID").is_some();
        let gres = match slurm.option("gres") {
            Ok(gres) => gres,
            Err(e) => return no_access_to_gres(last, &e.to_string()),
        };
        let decision = local::decide(&mentions, gres.as_deref(), inside).map_err(|e| e.to_string())?;
        // A step's instances were chosen when its job started.
        if let (Some(need), false) = (last.spec.need, inside) {
            let leaves = match &decision {
                Decision::Set(gres) => submit::leaves_in(Some(gres)),
                _ => submit::leaves_in(gres.as_deref()),
            };
            let table = self.config.as_ref().and_then(|c| c.as_ref().ok()).and_then(|c| c.prices.as_deref());
            submit::large(table, need, leaves, slurm)?;
        }
        match decision {
            Decision::Leave => Ok(()),
            Decision::Set(gres) => slurm.set_option("gres", &gres).map_err(|e| e.to_string()),
            Decision::Warn(text) => {
                slurm.say(Level::Info, &text);
                Ok(())
            }
        }
    }

    fn open_step(&mut self, slurm: &dyn Slurm) {
        let Some(Ok(config)) = &self.config else { return };
        // `sbatch --export=NONE` keeps the call-back from the batch step before 23.11; its variable is there.
        let inherited =
            || slurm.getenv(INHERITED).map(|t| option::parse_inherited(Some(&t)).map_err(|e| e.to_string()));
        let spec = self.remote.take().or_else(inherited).transpose();
        self.step = Some(Step::open(config, slurm, spec));
    }
}

/// The command does not let us see `--gres`: only a count that needs it is refused.
fn no_access_to_gres(last: &Mention, why: &str) -> Result<(), String> {
    match last.spec.count {
        Some(n) if !last.inherited => Err(format!(
            "--mig-share={n}: this command does not let a plugin ask for GRES ({why}); write --gres=mig:{n} and \
             --mig-share without a number"
        )),
        _ => Ok(()),
    }
}

fn read(words: &[&str], slurm: &dyn Slurm) -> Result<Config, String> {
    // Set by slurmd and slurmstepd in their own environment, which no user reaches.
    let node = slurm.process_env("SLURMD_NODENAME").unwrap_or_else(host);
    Config::parse(words.iter().copied(), &node).map_err(|e| e.to_string())
}

/// The short host name.
fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
