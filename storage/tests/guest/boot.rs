//! A guest: Debian's kernel as `contrib/scripts/install-needs.sh guest` unpacked it, an initial file system made of files of this
//! machine, and QEMU without hardware virtualisation, which every machine can run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Modules that the guest loads, in this order, each after what it needs.
const MODULES: &[&str] =
    &["crc32c_generic", "nvme", "nvme-tcp", "nvmet-tcp", "ext4", "fuse", "dm-log-writes", "tcp_diag"];
/// Programs of this machine that the guest uses, with their libraries.
const PROGRAMS: &[&str] = &["/sbin/mke2fs", "/sbin/dmsetup"];
/// Busybox for everything else.
const BUSYBOX: &str = "/bin/busybox";
const QEMU: &str = "qemu-system-x86_64";
const DEADLINE: Duration = Duration::from_secs(300);

/// Where the needed parts are.
pub(crate) struct Parts {
    kernel: PathBuf,
    modules: PathBuf,
}

impl Parts {
    /// What is missing here, or everything.
    pub(crate) fn find() -> Result<Self, String> {
        for program in PROGRAMS.iter().copied().chain([BUSYBOX]) {
            if !Path::new(program).exists() {
                return Err(format!("{program} is not installed"));
            }
        }
        if Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_err() {
            return Err(format!("{QEMU} is not installed"));
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let unpacked = target.join("guest");
        let missing =
            || format!("no kernel in {}: run contrib/scripts/install-needs.sh guest", unpacked.display());
        let release = only_entry(&unpacked.join("lib/modules")).ok_or_else(missing)?;
        let kernel = unpacked.join("boot").join(format!("vmlinuz-{release}"));
        let modules = unpacked.join("lib/modules").join(release);
        if !kernel.exists() || !modules.join("modules.dep").exists() {
            return Err(missing());
        }
        Ok(Self { kernel, modules })
    }

    /// Modules with what they need, in the order of loading.
    fn modules(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string(self.modules.join("modules.dep")).unwrap();
        let mut order: Vec<PathBuf> = Vec::new();
        for wanted in MODULES {
            let file = format!("/{wanted}.ko:");
            let line =
                table.lines().find(|l| l.contains(&file)).unwrap_or_else(|| panic!("no module {wanted}"));
            let (module, needs) = line.split_once(':').unwrap();
            // The last one named is needed by those before it.
            for path in needs.split_whitespace().rev().chain([module]) {
                let path = self.modules.join(path);
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        order
    }

    /// Packs `init`, the sidecar and all they use.
    fn pack(&self, dir: &Path, init: &str) -> PathBuf {
        let tree = dir.join("tree");
        let put = |from: &Path, to: &str| {
            let to = tree.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        };
        let sidecar = dir.join("migshare-storage");
        run(Command::new("strip").arg("-o").arg(&sidecar).arg(env!("CARGO_BIN_EXE_migshare-storage")));
        put(&sidecar, "bin/migshare-storage");
        put(Path::new(BUSYBOX), "bin/busybox");
        let mut libraries: BTreeSet<PathBuf> = libraries_of(&sidecar);
        for program in PROGRAMS {
            put(Path::new(program), program);
            libraries.extend(libraries_of(Path::new(program)));
        }
        for library in libraries {
            put(&library, library.to_str().unwrap());
        }
        let mut list = String::new();
        for module in self.modules() {
            let name = format!("/lib/{}", module.file_name().unwrap().to_str().unwrap());
            put(&module, &name);
            list.push_str(&format!("{name}\n"));
        }
        fs::write(tree.join("modules"), list).unwrap();
        fs::write(tree.join("init"), init).unwrap();
        run(Command::new("chmod").arg("755").arg(tree.join("init")));
        let image = dir.join("initrd");
        let pack = "find . | /bin/busybox cpio -o -H newc 2>/dev/null";
        run(Command::new("sh").args(["-c", pack]).current_dir(&tree).stdout(File::create(&image).unwrap()));
        image
    }

    /// Runs a guest with NVMe disks (image, serial number) until it ends; returns what it said, line by line.
    pub(crate) fn run(&self, dir: &Path, init: &str, disks: &[(&Path, &str)]) -> Vec<String> {
        let initrd = self.pack(dir, init);
        let mut qemu = Command::new(QEMU);
        qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"]);
        qemu.args(["-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"]);
        for (image, serial) in disks {
            let drive = format!("file={},format=raw,if=none,id={serial},cache=unsafe", image.display());
            qemu.arg("-drive").arg(drive);
            qemu.arg("-device").arg(format!("nvme,serial={serial},drive={serial}"));
        }
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(initrd);
        // no_timer_check: on a loaded machine the emulated timer is late, which the kernel takes for broken hardware.
        qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"]);
        let mut child =
            qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                let _ = tell.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        let mut said = Vec::new();
        let start = Instant::now();
        // The console closes when the guest is over.
        while let Ok(line) = told.recv_timeout(DEADLINE.saturating_sub(start.elapsed())) {
            let _ = writeln!(std::io::stderr(), "[{:5.1}] {line}", start.elapsed().as_secs_f32());
            said.push(line);
        }
        let _ = child.kill();
        child.wait().unwrap();
        said
    }
}

fn only_entry(dir: &Path) -> Option<String> {
    let mut entries = fs::read_dir(dir).ok()?;
    let name = entries.next()?.ok()?.file_name().into_string().ok();
    name.filter(|_| entries.next().is_none())
}

/// Libraries that a program loads, by ldd(1).
fn libraries_of(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from).collect()
}

pub(crate) fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}");
}
