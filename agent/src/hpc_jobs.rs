//! Which job uses which instance, as files for dcgm-exporter's `--hpc-job-mapping-dir`: one file per leased leaf, named
//! `<gpu>.<GPU instance id>`, holding the job's id. The exporter adds the id to its series as the label `hpc_job`.
//!
//! Written to a hidden file and renamed, so that the exporter never reads half of one. Only files of this form are touched.

use crate::driver::{Event, Inbox};
use migshare_proto::status::Status;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::{oneshot, watch};

/// Keeps the directory as the node is, until the driver is gone. `changes` moves whenever leases may have changed.
pub async fn keep(dir: PathBuf, mut changes: watch::Receiver<u64>, inbox: Inbox) {
    let mut written = None;
    loop {
        let (sender, receiver) = oneshot::channel();
        inbox.send(Event::Status(sender));
        let Ok(status) = receiver.await else { return };
        let wanted = mapping(&status);
        if written.as_ref() != Some(&wanted) {
            match write(&dir, &wanted) {
                Ok(()) => written = Some(wanted),
                Err(error) => tracing::warn!(dir = %dir.display(), %error, "job mapping cannot be written"),
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// File name to job id.
fn mapping(status: &Status) -> BTreeMap<String, u32> {
    let leaves = status.gpus.iter().flat_map(|gpu| gpu.leaves.iter().map(move |leaf| (gpu.index, leaf)));
    leaves.filter_map(|(gpu, leaf)| Some((format!("{gpu}.{}", leaf.gi), leaf.job?.job))).collect()
}

fn write(dir: &Path, wanted: &BTreeMap<String, u32>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    // The exporter need not be root, whatever the agent's umask is.
    std::fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_ours(&name) && !wanted.contains_key(&name) {
            std::fs::remove_file(dir.join(name))?;
        }
    }
    for (name, job) in wanted {
        let (new, path) = (dir.join(format!(".{name}.new")), dir.join(name));
        let text = format!("{job}\n");
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        std::fs::write(&new, text)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o644))?;
        std::fs::rename(&new, &path)?;
    }
    Ok(())
}

/// Whether a name has the form `<gpu>.<GPU instance id>`.
fn is_ours(name: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split_once('.').is_some_and(|(gpu, gi)| number(gpu) && number(gi))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_the_leases_and_those_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("1"), "900\n").unwrap();
        let map = |pairs: &[(&str, u32)]| pairs.iter().map(|(n, j)| ((*n).to_owned(), *j)).collect();
        write(dir.path(), &map(&[("0.7", 812), ("0.8", 812)])).unwrap();
        write(dir.path(), &map(&[("0.8", 813)])).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.8", "1"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("0.8")).unwrap(), "813\n");
    }
}
