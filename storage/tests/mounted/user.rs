//! Without root: one user, one mount, and nothing left behind however it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::rig::{BINARY, can_mount};

const USER: u32 = 65534;

/// Runs shell lines as a user, in a mount namespace with a /dev/fuse that users may open, as on most systems. `start` mounts
/// b at m and waits for it; `gone` waits until m is no mount point.
fn as_user(lines: &str) {
    with_script("", lines);
}

/// The same with a file `script` beside b and m.
fn with_script(text: &str, lines: &str) {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // A user may not be able to walk to the build directory.
    let program = dir.path().join("migshare-storage");
    fs::write(&program, "").unwrap();
    let program = program.display();
    fs::write(dir.path().join("script"), text.replace("BINARY", &program.to_string())).unwrap();
    let prelude = format!(
        "sidecar() {{ exec {program} mount b m --cache c --size 32M \"$@\"; }}
         until_true() {{ n=0; until \"$@\" 2>/dev/null; do n=$((n+1)); [ $n -lt 600 ] || exit 9; sleep 0.1; done; }}
         start() {{ sidecar & pid=$!; until_true mountpoint -q m; }}
         is_gone() {{ ! grep -q \" $PWD/m \" /proc/self/mountinfo; }}
         mkdir b m && echo old > b/old || exit 8"
    );
    let lines = lines.replace("BINARY", &program.to_string());
    let script = format!(
        "mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse && mount --bind {BINARY} {program} && \
         exec setpriv --reuid={USER} --regid={USER} --clear-groups sh -c '{prelude}\n{lines}'"
    );
    let status = Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(dir.path()).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_user_mounts_reads_writes_and_unmounts() {
    as_user(
        "start; read line < m/old && [ \"$line\" = old ] && echo new > m/new && [ \"$(cat b/new)\" = new ] || exit 2
         kill $pid && wait $pid || exit 3
         is_gone",
    );
}

/// The kernel asks for 128 KiB at a time, because its window is root's to widen: 64 reads of such a file at the backend. On a
/// machine that is busy enough, what was read ahead is too old when it is asked for; hence several files.
#[test]
fn a_user_is_read_ahead_of() {
    as_user(
        "for i in 1 2 3 4 5; do head -c 8M /dev/urandom > b/f$i; done; sleep 2; start; reads=0
         few() {
             cmp b/$1 m/$1 || exit 2
             before=$reads
             reads=$(BINARY stats m --json | grep -o \"backend_reads_total.:[0-9]*\" | cut -d: -f2)
             [ $((reads - before)) -gt 0 ] && [ $((reads - before)) -le 24 ]
         }
         few f1 || few f2 || few f3 || few f4 || few f5 || exit 3
         kill $pid && wait $pid && is_gone",
    );
}

/// Also what a killed sidecar left in its journal is the user's to bring to the backend.
#[test]
fn a_user_writes_back() {
    as_user(
        "back() { sidecar --writes back --dirty 16M --fsync local; }
         back & pid=$!; until_true mountpoint -q m
         head -c 2M /dev/urandom > made; cp made m/f && sync m/f && cmp made m/f || exit 2
         kill -9 $pid; until_true is_gone
         back & pid=$!; until_true mountpoint -q m; cmp made m/f || exit 3
         echo end >> m/f; echo end >> made; kill $pid && wait $pid && cmp made b/f && is_gone",
    );
}

#[test]
fn a_killed_daemon_leaves_no_mount() {
    as_user("start; kill -9 $pid; until_true is_gone; [ -z \"$(ls m)\" ]");
}

#[test]
fn a_killed_process_group_leaves_no_mount_also_while_files_are_open() {
    as_user(
        "setsid BINARY mount b m --cache c --size 32M & group=$!
         until_true mountpoint -q m; exec 3< m/old
         kill -9 -$group; until_true is_gone",
    );
}

#[test]
fn a_dead_mount_that_nobody_could_clean_up_is_replaced_by_the_next_start() {
    as_user(
        "start; until_true pgrep -P $pid -f janitor; kill -9 $(pgrep -P $pid -f janitor); kill -9 $pid; wait $pid
         until_true sh -c \"ls m 2>&1 | grep -q connected\"
         sidecar & pid=$!; until_true grep -q old m/old; kill $pid && wait $pid && is_gone",
    );
}

#[test]
fn a_namespace_of_its_own_holds_the_mount_and_takes_it_along() {
    as_user(
        "unshare -cm --keep-caps sh -c \"BINARY mount b m --cache c --size 32M & daemon=\\$!
             until mountpoint -q m; do kill -0 \\$daemon || exit 2; done; cat m/old > seen
             until pgrep -P \\$daemon; do sleep 0.1; done; kill -9 \\$(pgrep -P \\$daemon) \\$daemon\" & wait $!
         [ \"$(cat seen)\" = old ] && is_gone",
    );
}

#[test]
fn a_user_cannot_share_the_mount() {
    as_user(
        "sidecar --allow-other 2> says & wait $!; [ $? = 1 ] && grep -q \"let root run the mount\" says && is_gone",
    );
}

/// The lines of the documentation, with a program that leaves dirty data. What a batch script leaves running when it ends is
/// killed, as slurmstepd does it; a job that is cancelled gets SIGTERM first.
#[test]
fn the_recipe_for_a_batch_script_unmounts_and_flushes_however_the_job_ends() {
    let readme = include_str!("../../README.md");
    let recipe = readme.split("```bash\n").nth(1).and_then(|text| text.split("```").next()).unwrap();
    let adapted = [
        ("migshare-storage mount /mnt/lustre/project", "BINARY mount b"),
        ("200G", "32M --writes back --dirty 16M"),
        ("srun ./program \"$TMPDIR/project\"", "echo new > m/new; [ -z \"$1\" ] || sleep 600; exit 7"),
        ("$TMPDIR/project", "m"),
        ("$TMPDIR/cache", "c"),
    ];
    let script = adapted.iter().fold(recipe.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} in {text}");
        text.replace(from, to)
    });
    with_script(
        &script,
        "setsid bash script & job=$!; wait $job; [ $? = 7 ] || exit 2
         kill -9 -$job; [ \"$(cat b/new)\" = new ] && is_gone || exit 3
         rm b/new; setsid bash script longer & job=$!; until_true grep -q new m/new
         kill -TERM -$job; wait $job; [ \"$(cat b/new)\" = new ] && is_gone",
    );
}
