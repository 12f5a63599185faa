//! What is installed: slurm.conf and the files that it leads to.

use crate::conf::{self, Line, ReadError};
use migshare_proto::hostlist;
use std::io;
use std::path::{Path, PathBuf};

/// The files, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// slurm.conf with its includes.
    pub slurm: Vec<Line>,
    /// gres.conf; empty where there is none.
    pub gres: Vec<Line>,
    /// plugstack.conf; empty where there is none.
    pub plugstack: Vec<Line>,
    /// cgroup.conf; empty where there is none.
    pub cgroup: Vec<Line>,
    /// Where they are.
    pub paths: Paths,
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// slurm.conf.
    pub slurm: PathBuf,
    /// gres.conf, beside it.
    pub gres: PathBuf,
    /// plugstack.conf, beside it or where `PlugStackConfig` says.
    pub plugstack: PathBuf,
}

impl Installed {
    /// Reads slurm.conf, which has to be there, and the others, which may be missing.
    pub fn read(slurm: &Path) -> Result<Installed, ReadError> {
        let lines = conf::read(slurm)?;
        let beside = |name: &str| slurm.parent().unwrap_or(Path::new("/")).join(name);
        let plugstack = lines.iter().rev().find_map(|l| l.get("PlugStackConfig")).map(PathBuf::from);
        let paths = Paths {
            slurm: slurm.to_owned(),
            gres: beside("gres.conf"),
            plugstack: plugstack.unwrap_or_else(|| beside("plugstack.conf")),
        };
        let (gres, cgroup) = (may_miss(&paths.gres)?, may_miss(&beside("cgroup.conf"))?);
        Ok(Installed { slurm: lines, gres, plugstack: may_miss(&paths.plugstack)?, cgroup, paths })
    }

    /// The last value of a setting of slurm.conf.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.slurm.iter().rev().find_map(|line| line.get(key))
    }

    /// The line of slurm.conf for a node, and its value of a key, which may come from an earlier `NodeName=DEFAULT`.
    pub fn node(&self, node: &str, key: &str) -> Option<(&Line, Option<&str>)> {
        let mut default = None;
        for line in &self.slurm {
            match line.get("NodeName") {
                Some(name) if name.eq_ignore_ascii_case("default") => default = line.get(key).or(default),
                Some(list) if hostlist::names(list, node) => return Some((line, line.get(key).or(default))),
                _ => {}
            }
        }
        None
    }

    /// The lines of gres.conf that name device files of a node. With `ConstrainDevices=yes` Slurm filters them itself.
    pub fn device_lines(&self, node: &str) -> Vec<&Line> {
        let mut lines = self.gres(node, None);
        lines.retain(|line| line.get("File").or(line.get("MultipleFiles")).is_some());
        lines
    }

    /// The lines of gres.conf that let Slurm look for the devices of a node by itself.
    pub fn detecting_lines(&self, node: &str) -> Vec<&Line> {
        let mut lines = self.gres(node, None);
        lines.retain(|line| line.get("AutoDetect").is_some_and(|how| !how.eq_ignore_ascii_case("off")));
        lines
    }

    /// The lines of gres.conf for a node and a GRES, of any GRES where `name` is `None`. One without `NodeName` is for
    /// all nodes.
    pub fn gres(&self, node: &str, name: Option<&str>) -> Vec<&Line> {
        let of_node = |line: &&Line| line.get("NodeName").is_none_or(|list| hostlist::names(list, node));
        let of_name =
            |line: &&Line| name.is_none_or(|n| line.get("Name").is_some_and(|l| l.eq_ignore_ascii_case(n)));
        self.gres.iter().filter(of_node).filter(of_name).collect()
    }
}

fn may_miss(path: &Path) -> Result<Vec<Line>, ReadError> {
    match conf::read(path) {
        Err(e) if e.source.kind() == io::ErrorKind::NotFound && e.path == path => Ok(Vec::new()),
        other => other,
    }
}
