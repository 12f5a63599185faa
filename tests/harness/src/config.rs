//! The configuration files of a cluster, as text.

use crate::node::Home;
use crate::ports::Ports;
use crate::site::Site;
use std::fmt::Write;
use std::path::Path;

/// slurm.conf of a cluster below `dir` whose nodes have `leaves` leaves each.
///
/// `SlurmdParameters=config_overrides` lets a node have more cores than this machine.
pub fn slurm_conf(dir: &Path, site: &Site, ports: &Ports, leaves: u32) -> String {
    let d = dir.display();
    let (controller, first_job) = (ports.get(0), ports.first_job());
    let tracking = if site.contain {
        "ProctrackType=proctrack/cgroup\nPrologFlags=Alloc,Contain"
    } else {
        "ProctrackType=proctrack/linuxproc\nPrologFlags=Alloc"
    };
    let health = if site.health_check {
        format!("HealthCheckProgram={d}/bin/health-check\nHealthCheckInterval=3")
    } else {
        "HealthCheckInterval=0".to_owned()
    };
    let mut text = format!(
        "ClusterName=throwaway
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
FirstJobId={first_job}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={d}/run/munge.socket
StateSaveLocation={d}/slurmctld
SlurmdSpoolDir={d}/spool/%n
SlurmctldPidFile={d}/run/slurmctld.pid
SlurmdPidFile={d}/run/slurmd.%n.pid
SlurmctldLogFile={d}/log/slurmctld.log
SlurmdLogFile={d}/log/slurmd.%n.log
SlurmdDebug=verbose
PlugStackConfig={d}/etc/plugstack.conf
{tracking}
{health}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=1
KillWait=3
PrologEpilogTimeout=60
MessageTimeout=20
SlurmdParameters=config_overrides
GresTypes=mig
"
    );
    for (i, name) in site.node_names().into_iter().enumerate() {
        let (port, feature) = (ports.get(i as u16 + 1), site.model(i));
        let _ = writeln!(
            text,
            "NodeName={name} NodeAddr=127.0.0.1 NodeHostname=localhost Port={port} CPUs=32 Sockets=1 \
             CoresPerSocket=32 ThreadsPerCore=1 RealMemory=4000 Gres=mig:{leaves} Feature={feature} State=UNKNOWN"
        );
    }
    let all = site.node_names().join(",");
    let _ = writeln!(text, "PartitionName=main Nodes={all} Default=YES MaxTime=INFINITE State=UP");
    text
}

/// The program that Slurm runs on every node, as root, to see how it is.
pub fn health_check(dir: &Path) -> String {
    let d = dir.display();
    format!("#!/bin/sh\nexec {d}/bin/migshare health --config {d}/nodes/$SLURMD_NODENAME/agent.toml\n")
}

/// gres.conf: the leaves are counted, never listed as files.
pub fn gres_conf(site: &Site, leaves: u32) -> String {
    format!("NodeName={} Name=mig Count={leaves}\n", site.node_names().join(","))
}

/// plugstack.conf with one line that serves all nodes: the plugin expands `%n`.
pub fn plugstack_conf(dir: &Path) -> String {
    let d = dir.display();
    format!(
        "required {d}/lib/spank_migshare.so socket={d}/nodes/%n/agent.sock proc={d}/nodes/%n/root/proc \
         run={d}/nodes/%n/run prices={d}/etc/prices\n"
    )
}

/// cgroup.conf: the hierarchy that is mounted is used as it is.
pub fn cgroup_conf() -> &'static str {
    "CgroupAutomount=no\nConstrainCores=no\nConstrainDevices=no\nConstrainRAMSpace=no\n"
}

/// Description of a node's simulated GPUs.
pub fn nvml_toml(home: &Home, site: &Site, model: &str) -> String {
    let (state, root) = (home.nvml_state(), home.root());
    let mut text = format!(
        "state = {:?}\nroot = {:?}\ndriver = \"550.54.15\"\ncuda = \"12.4\"\ncaps_major = 235\nenforce_caps = true\n",
        state.display(),
        root.display()
    );
    for gpu in 0..site.gpus {
        let numa = gpu % 2;
        let _ = write!(
            text,
            "\n[[gpu]]\nmodel = \"{model}\"\ncount = 1\nmig = true\nnuma_node = {numa}\ncpu_affinity = \"0-3\"\n"
        );
    }
    text
}

/// Configuration of a node's agent.
pub fn agent_toml(home: &Home, site: &Site, slurm_conf: &Path, library: &Path) -> String {
    format!(
        "node = {:?}\nlayout = {:?}\nstate_dir = {:?}\nsocket = {:?}\nnvml_library = {:?}\nproc_root = {:?}\n\n\
         [reshape]\nno_place = {:?}\n\n[slurm]\nconf = {:?}\ninterval = 2\n",
        home.node(),
        site.layout,
        home.agent_state().display(),
        home.socket().display(),
        library.display(),
        home.root().join("proc").display(),
        site.no_place,
        slurm_conf.display(),
    )
}
