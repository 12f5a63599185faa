//! Service mode acts with the caller's rights.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::rig::{Rig, can_mount};

const USER: u32 = 65534;
const GROUP: u32 = 4242;

/// Runs a shell line as an ordinary user with one supplementary group.
fn as_user(line: &str, dir: &Path) -> bool {
    let ids = [format!("--reuid={USER}"), format!("--regid={USER}"), format!("--groups={GROUP}")];
    let mut command = Command::new("setpriv");
    command.args(ids).args(["sh", "-c", line]).current_dir(dir);
    command.stderr(std::process::Stdio::null()).status().unwrap().success()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_a_user_makes_belong_to_them_and_protected_ones_stay_protected() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    let (mount, backend) = (rig.mount(), rig.backend());
    assert!(as_user("umask 027; echo a > made; mkdir dir; ln -s x link", &mount));
    let made = backend.join("made").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (USER, USER, 0o640));
    assert_eq!(backend.join("dir").metadata().unwrap().mode() & 0o777, 0o750);
    fs::write(backend.join("secret"), "s").unwrap();
    mode(&backend.join("secret"), 0o600);
    assert!(!as_user("cat secret", &mount) && !as_user("echo x > secret", &mount));
    assert!(!as_user("chmod 777 secret", &mount) && !as_user("chown 65534 secret", &mount));
}

#[test]
fn supplementary_groups_count() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o755);
    let shared = rig.backend().join("shared");
    fs::create_dir(&shared).unwrap();
    std::os::unix::fs::chown(&shared, Some(0), Some(GROUP)).unwrap();
    mode(&shared, 0o770);
    assert!(as_user("echo x > shared/file && cat shared/file", &rig.mount()));
    assert_eq!(shared.join("file").metadata().unwrap().uid(), USER);
}

#[test]
fn a_setuid_bit_is_cleared_by_a_write() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    assert!(as_user("cp /bin/true f && chmod 4777 f && echo x >> f", &rig.mount()));
    assert_eq!(rig.backend().join("f").metadata().unwrap().mode() & 0o7777, 0o777);
}

#[test]
fn a_closed_directory_protects_what_is_cached_below_it() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o755);
    let dir = rig.backend().join("private");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "s").unwrap();
    assert!(as_user("cat private/file", &rig.mount()));
    mode(&dir, 0o700);
    assert!(!as_user("cat private/file", &rig.mount()));
}

#[test]
fn the_cache_directory_is_closed_to_others_and_is_not_reached_through_links() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    assert_eq!(rig.cache().metadata().unwrap().mode() & 0o777, 0o700);
    assert!(!as_user("ls ../cache", &rig.mount()));
}

#[test]
fn only_the_owner_of_the_mount_changes_its_policy() {
    if !can_mount() {
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o777);
    let program = rig.program();
    let program = program.display();
    let says = "only the user who runs the sidecar";
    assert!(as_user(&format!("{program} policy . cache-only 2>&1 | grep \"{says}\""), &rig.mount()));
    rig.set_policy("orthus");
    assert!(as_user(&format!("{program} stats ."), &rig.mount()));
}

#[test]
fn access_control_lists_are_kept_and_inherited_by_the_backend() {
    if !can_mount() {
        return;
    }
    if Command::new("setfacl").arg("--version").output().is_err() {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs setfacl");
        println!("SKIP: needs setfacl of package acl");
        return;
    }
    let rig = Rig::new(&[]);
    mode(&rig.backend(), 0o755);
    let (dir, behind) = (rig.mount().join("dir"), rig.backend().join("dir"));
    fs::create_dir(&dir).unwrap();
    mode(&dir, 0o700);
    assert!(!as_user("echo x > dir/f", &rig.mount()));
    let set = |acl: &str| Command::new("setfacl").args(["-m", acl]).arg(&dir).status().unwrap().success();
    assert!(set(&format!("u:{USER}:rwx,d:u:{USER}:rw,d:g::-,d:o::-")));
    assert!(as_user("umask 0; echo x > dir/f && cat dir/f", &rig.mount()));
    let acl = |path: &Path| Command::new("getfacl").args(["-cn"]).arg(path).output().unwrap().stdout;
    assert_eq!(acl(&dir.join("f")), acl(&behind.join("f")));
    assert!(String::from_utf8_lossy(&acl(&behind.join("f"))).contains(&format!("user:{USER}:rw")));
    // What the list forbids stays forbidden, to a caller whom the mode bits alone would let in.
    fs::write(dir.join("g"), "s").unwrap();
    mode(&dir.join("g"), 0o666);
    assert!(
        Command::new("setfacl")
            .args(["-m", &format!("u:{USER}:-,g::r")])
            .arg(dir.join("g"))
            .status()
            .unwrap()
            .success()
    );
    assert!(!as_user("cat dir/g", &rig.mount()));
}

/// A backend that gives root no more rights than anybody, as NFS with root_squash does: the sidecar is root without the
/// capabilities that pass over permissions.
#[test]
fn a_backend_that_squashes_root_serves_callers_and_fills_through_their_files() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&["--policy", "cache-only"]);
    rig.run_through(&["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]);
    mode(&rig.backend(), 0o755);
    let home = rig.backend().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("file"), vec![7; 1 << 20]).unwrap();
    for path in [&home, &home.join("file")] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    mode(&home, 0o700);
    mode(&home.join("file"), 0o600);
    super::rig::wait_for("hits of the caller's file", || {
        assert!(as_user("dd if=home/file of=/dev/null bs=64k iflag=direct", &rig.mount()));
        rig.stats("hit_bytes_total") >= 1 << 20
    });
    assert!(as_user("echo more >> home/file && mkdir home/dir && rm -r home/dir", &rig.mount()));
    assert!(fs::read(rig.mount().join("home/file")).is_err(), "root came by its rights at the backend");
}

/// The kernel names no writer of pages of a shared mapping.
const MAP: &str = "import mmap, os, sys
os.setgroups([])
os.setegid(65534)
os.seteuid(65534)
fd = os.open(sys.argv[1], os.O_RDWR)
size = int(sys.argv[2])
os.ftruncate(fd, size)
with mmap.mmap(fd, size) as m:
    m[:] = b'x' * size
    m.flush()";

#[test]
fn what_was_written_through_a_mapping_is_flushed_with_the_rights_of_who_opened_the_file() {
    if !can_mount() {
        return;
    }
    let mut rig = Rig::new(&["--writes", "back", "--fsync", "local"]);
    // No file of the user's can be written with the rights of root, also not after a crash.
    rig.run_through(&["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]);
    mode(&rig.backend(), 0o755);
    let (home, file) = (rig.backend().join("home"), rig.backend().join("home/file"));
    fs::create_dir(&home).unwrap();
    fs::write(&file, b"old").unwrap();
    for path in [&home, &file] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    mode(&home, 0o700);
    mode(&file, 0o600);
    let mapped = rig.mount().join("home/file");
    let status = Command::new("python3").args(["-c", MAP]).arg(&mapped).arg("8192").status();
    assert!(status.unwrap().success());
    rig.crash();
    rig.start();
    super::rig::wait_for("the bytes at the backend", || {
        rig.stats("flush_errors_total") == 0 && fs::read(&file).unwrap() == vec![b'x'; 8192]
    });
}

/// Space that ext4 keeps for root is refused to others by the same test of fsuid and CAP_SYS_RESOURCE as a quota, which this
/// kernel may lack.
#[test]
fn what_the_backend_refuses_a_caller_is_not_had_through_the_sidecar() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
    fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    fs::create_dir(&disk).unwrap();
    let run = |line: String| Command::new("sh").args(["-c", &line]).status().unwrap().success();
    assert!(run(format!("PATH=$PATH:/sbin mkfs.ext4 -q -m 50 -O ^has_journal {}", image.display())));
    if !run(format!("mount -o loop {} {}", image.display(), disk.display())) {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs loop devices and ext4");
        println!("SKIP: needs loop devices and ext4");
        return;
    }
    fs::create_dir(disk.join("open")).unwrap();
    mode(&disk.join("open"), 0o777);
    let rig = Rig::over_directory(&disk.join("open"));
    let full = !as_user("dd if=/dev/zero of=f bs=64k count=512", &rig.mount());
    let written = rig.backend().join("f").metadata().map_or(0, |m| m.len());
    fs::File::create(rig.backend().join("f")).unwrap();
    assert!(as_user("touch g", &rig.mount()));
    let size = (24 << 20).to_string();
    let mapped = Command::new("python3").args(["-c", MAP]).arg(rig.mount().join("g")).arg(size).output();
    let mapped = String::from_utf8(mapped.unwrap().stderr).unwrap();
    drop(rig);
    assert!(run(format!("umount -l {}", disk.display())));
    assert!(
        full && written > 8 << 20 && written < 18 << 20,
        "{written} bytes of 32 MiB, half of them kept for root"
    );
    assert!(mapped.contains("OSError"), "a mapping wrote what its user may not: {mapped}");
}
