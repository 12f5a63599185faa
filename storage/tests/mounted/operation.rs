//! What an administrator sees: metrics, jobs, the service manager's view, the configuration check.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{BINARY, Rig, can_mount, content, read, wait_for};

/// An address that was free a moment ago.
fn address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn page(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Value of the first line that starts so.
fn value(page: &str, start: &str) -> Option<u64> {
    page.lines().find(|l| l.starts_with(start))?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_tell_hits_latency_and_state_and_promtool_finds_nothing_wrong() {
    if !can_mount() {
        return;
    }
    let address = address();
    let listen = address.to_string();
    let rig = Rig::new(&["--metrics-listen", &listen, "--policy", "cache-only"]);
    let path = rig.put("f", &content(1 << 20, 1));
    rig.warm(&path);
    read(&path);
    let text = page(address);
    for start in [
        "migshare_storage_hit_bytes_total{",
        "migshare_storage_saved_backend_bytes_total{",
        "migshare_storage_miss_bytes_total{",
        "migshare_storage_cache_used_bytes ",
        "migshare_storage_job_hit_bytes_total{",
    ] {
        assert!(value(&text, start).is_some_and(|v| v > 0), "{start} in {text}");
    }
    assert!(text.contains("side=\"cache\",le=\"+Inf\"}"), "{text}");
    assert!(text.contains("state=\"live\"} 1") && text.contains("state=\"gone\"} 0"), "{text}");
    assert!(text.contains("source=\"timing\"} 0"), "{text}");
    assert!(text.contains("job_id=\"none\""), "{text}");
    let status = |more: &[&str]| {
        let output = Command::new(BINARY).arg("status").arg(rig.mount()).args(more).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = status(&[]);
    assert!(shown.contains("policy cache-only") && shown.contains("backend live"), "{shown}");
    let line: serde_json::Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!(line["backend"]["state"], "live");
    let Ok(mut promtool) = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn()
    else {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "promtool is not installed");
        return println!("SKIP: promtool is not installed");
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success());
}

#[test]
fn a_job_is_counted_by_its_cgroup_and_disappears_with_it() {
    if !can_mount() {
        return;
    }
    let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu"].map(std::path::Path::new);
    let Some(root) = groups.into_iter().find(|g| g.join("cgroup.procs").exists()) else {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "needs cgroups");
        return println!("SKIP: needs cgroups");
    };
    let address = address();
    let rig = Rig::new(&["--metrics-listen", &address.to_string()]);
    let path = rig.put("f", &content(1 << 20, 1));
    let job = root.join(format!("job_{}", 900_000 + std::process::id()));
    std::fs::create_dir(&job).unwrap();
    let id = job.file_name().unwrap().to_str().unwrap().strip_prefix("job_").unwrap().to_owned();
    let read = "echo $$ >$0/cgroup.procs && exec cat $1 >/dev/null";
    assert!(Command::new("sh").args(["-c", read]).args([&job, &path]).status().unwrap().success());
    let text = page(address);
    let line = text.lines().find(|l| l.contains("_job_miss_bytes_total{") && l.contains(&id));
    assert!(line.is_some_and(|l| l.ends_with(&format!(" {}", 1 << 20))), "{text}");
    wait_for("the end of the cgroup", || std::fs::remove_dir(&job).is_ok());
    wait_for("the end of the job's metrics", || !page(address).contains(&id));
}

#[test]
fn an_address_in_use_is_named_with_the_way_out() {
    if !can_mount() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let [backend, at] = ["b", "m"].map(|name| dir.path().join(name));
    std::fs::create_dir(&backend).unwrap();
    std::fs::create_dir(&at).unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(BINARY);
    command.arg("mount").args([&backend, &at]).arg("--cache").arg(dir.path().join("c"));
    let output = command.args(["--size", "32M", "--metrics-listen", &listen]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("--metrics-listen"), "{error}");
    assert!(error.contains("free address"), "{error}");
    // What was mounted before the failure is gone again.
    assert!(std::fs::read_dir(&at).unwrap().next().is_none());
}

#[test]
fn the_service_manager_hears_ready_after_the_mount_life_signs_and_the_end() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let [backend, at] = ["b", "m"].map(|name| dir.path().join(name));
    std::fs::create_dir(&backend).unwrap();
    std::fs::create_dir(&at).unwrap();
    let mut command = Command::new(BINARY);
    command.arg("mount").args([&backend, &at]).arg("--cache").arg(dir.path().join("c"));
    command.args(["--size", "32M"]).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut daemon = command.spawn().unwrap();
    let hear = |wanted: &str| {
        wait_for(wanted, || {
            let mut message = [0; 4096];
            let len = manager.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..len]).contains(wanted)
        });
    };
    hear("STATUS=mounted: ");
    hear("READY=1");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(mounts.contains(at.to_str().unwrap()), "ready before the mount");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    hear("STOPPING=1");
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn a_configuration_is_checked_without_mounting() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b", "m", "full"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
    }
    std::fs::write(dir.path().join("full/else"), "").unwrap();
    let file = dir.path().join("storage.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(BINARY).args(["check-config", "--config"]).arg(&file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let root = dir.path().display();
    let good = format!(
        "[cache]\ndir = \"{root}/c\"\nsize = \"1G\"\n[[mount]]\nbackend = \"{root}/b\"\nat = \"{root}/m\"\n"
    );
    let (accepted, said) = check(&good);
    assert!(accepted && said.contains("good") && said.contains("policy window"), "{said}");
    assert!(!dir.path().join("c").exists(), "a check makes nothing");
    for (text, key, way_out) in [
        (good.replace("\"1G\"", "\"1X\""), "size", "200G"),
        (good.replace("size", "sise"), "sise", "expected"),
        (format!("metrics_listen = \"9847\"\n{good}"), "metrics_listen", "socket address"),
        (format!("{good}polite = 1\n"), "polite", "boolean"),
        (format!("{good}policy = \"fast\"\n"), "policy", "window"),
        (format!("{good}soft_timeout_s = -1\n"), "soft_timeout_s", "integer"),
        (good.replace("\"1G\"", "\"1M\""), "--size", "16 MiB"),
        (good.replace("/c\"", "/full\""), "--cache", "empty directory"),
        (good.replace("/m\"", "/none\""), "MOUNT", "mkdir"),
        (good.replace("/b\"", "/none\""), "BACKEND", "mount the remote file system first"),
    ] {
        let (accepted, said) = check(&text);
        assert!(!accepted && said.contains(key) && said.contains(way_out), "{text}\ngave {said}");
    }
}

#[test]
fn the_unit_is_hardened_as_far_as_mounts_allow() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/systemd/migshare-storage@.service");
    let text = std::fs::read_to_string(unit).unwrap();
    // Each of these would hide the unit's mounts from everybody else.
    for hiding in [
        "ProtectSystem=",
        "ProtectHome=",
        "PrivateTmp=",
        "PrivateDevices=",
        "ProtectKernel",
        "PrivateMounts=",
    ] {
        assert!(!text.lines().any(|l| l.starts_with(hiding)), "{hiding}");
    }
    let mut rate = Command::new("systemd-analyze");
    let Ok(output) = rate.args(["security", "--offline=true", "--threshold=55", unit]).output() else {
        assert_ne!(
            std::env::var("MIGSHARE_REQUIRE").as_deref(),
            Ok("all"),
            "systemd-analyze is not installed"
        );
        return println!("SKIP: systemd-analyze is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn alerts_fire_when_a_side_or_a_flush_fails_and_not_before() {
    let rules =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/prometheus/migshare-storage-alerts.test.yml");
    let Ok(output) = Command::new("promtool").args(["test", "rules", rules]).output() else {
        assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "promtool is not installed");
        return println!("SKIP: promtool is not installed");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}
