//! Slurm as a table: what it answers is put in, what it was told is read out.

use migshare_spank::slurm::{Item, Job, Level, Node, Partition, Slurm, SlurmError, Step};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
pub(crate) struct Table {
    pub(crate) items: RefCell<HashMap<Item, u32>>,
    pub(crate) env: RefCell<BTreeMap<String, String>>,
    pub(crate) process_env: RefCell<BTreeMap<String, String>>,
    pub(crate) job: RefCell<Option<Job>>,
    pub(crate) step: RefCell<Option<Step>>,
    pub(crate) job_option: RefCell<Option<String>>,
    pub(crate) options: RefCell<BTreeMap<String, String>>,
    pub(crate) nodes: RefCell<Vec<Node>>,
    pub(crate) partitions: RefCell<Vec<Partition>>,
    pub(crate) said: RefCell<Vec<(Level, String)>>,
    /// What the prologs of other nodes write over each list of nodes to avoid, the last first.
    pub(crate) rivals: RefCell<Vec<String>>,
    /// Whether another node's prolog has queued the job again before.
    pub(crate) is_pending: Cell<bool>,
    /// `drain n1: reason` and `requeue 7`, in order.
    pub(crate) done: RefCell<Vec<String>>,
}

impl Table {
    pub(crate) fn with(items: &[(Item, u32)]) -> Table {
        let table = Table::default();
        table.items.borrow_mut().extend(items.iter().copied());
        table.process_env.borrow_mut().insert("SLURMD_NODENAME".to_owned(), "n1".to_owned());
        table
    }

    pub(crate) fn errors(&self) -> Vec<String> {
        let said = self.said.borrow();
        said.iter().filter(|(level, _)| *level == Level::Error).map(|(_, text)| text.clone()).collect()
    }
}

impl Slurm for Table {
    fn say(&self, level: Level, text: &str) {
        self.said.borrow_mut().push((level, text.to_owned()));
    }
    fn process_env(&self, name: &str) -> Option<String> {
        self.process_env.borrow().get(name).cloned()
    }
    fn item(&self, item: Item) -> Option<u32> {
        self.items.borrow().get(&item).copied()
    }
    fn getenv(&self, name: &str) -> Option<String> {
        self.env.borrow().get(name).cloned()
    }
    fn setenv(&self, name: &str, value: &str) -> Result<(), SlurmError> {
        self.env.borrow_mut().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
    fn unsetenv(&self, name: &str) -> Result<(), SlurmError> {
        self.env.borrow_mut().remove(name);
        Ok(())
    }
    fn job_option(&self) -> Option<String> {
        self.job_option.borrow().clone()
    }
    fn job(&self, _: u32) -> Result<Job, SlurmError> {
        self.job
            .borrow()
            .clone()
            .ok_or_else(|| SlurmError::new("slurm_load_job", "Unable to contact slurm controller"))
    }
    fn step(&self, _: u32, _: u32) -> Result<Step, SlurmError> {
        self.step.borrow().clone().ok_or_else(|| SlurmError::new("slurm_get_job_steps", "no step"))
    }
    fn drain(&self, node: &str, reason: &str) -> Result<(), SlurmError> {
        self.done.borrow_mut().push(format!("drain {node}: {reason}"));
        Ok(())
    }
    fn requeue(&self, job: u32) -> Result<(), SlurmError> {
        if self.is_pending.get() {
            return Err(SlurmError::new("slurm_requeue", "Job is pending execution"));
        }
        self.done.borrow_mut().push(format!("requeue {job}"));
        Ok(())
    }
    fn excluded(&self, job: u32) -> Result<String, SlurmError> {
        self.job(job).map(|job| job.elsewhere.excluded)
    }
    fn keep_away(&self, job: u32, nodes: &str, why: &str) -> Result<(), SlurmError> {
        self.done.borrow_mut().push(format!("keep {job} away from {nodes}: {why}"));
        let now = self.rivals.borrow_mut().pop().unwrap_or_else(|| nodes.to_owned());
        self.job.borrow_mut().iter_mut().for_each(|job| job.elsewhere.excluded.clone_from(&now));
        Ok(())
    }
    fn nodes(&self) -> Result<Vec<Node>, SlurmError> {
        Ok(self.nodes.borrow().clone())
    }
    fn partitions(&self) -> Result<Vec<Partition>, SlurmError> {
        Ok(self.partitions.borrow().clone())
    }
    fn option(&self, name: &str) -> Result<Option<String>, SlurmError> {
        Ok(self.options.borrow().get(name).cloned())
    }
    fn set_option(&self, name: &str, value: &str) -> Result<(), SlurmError> {
        self.options.borrow_mut().insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}
