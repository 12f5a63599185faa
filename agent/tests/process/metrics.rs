//! What others see of the node: figures, health pages, job files.

use crate::rig::{Ends, LONG, Rig, has, skip, tied};
use migshare_proto::Request;
use migshare_proto::admin::{GpuNote, Order, OrderRequest};
use nvidia_ml::fault::{Effect, Moment};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A node whose agent listens; its address.
fn rig(gpus: u32) -> (Rig, String) {
    // The port is free again when the agent binds it, unless somebody is faster: then the start fails and says so.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let rig = Rig::new(gpus);
    let dir = rig.path("jobs").display().to_string();
    let extra = format!(
        "[slurm]\ndrain = false\nsqueue = \"/bin/false\"\n[metrics]\nlisten = \"{address}\"\nhpc_job_dir = \"{dir}\"\n"
    );
    (rig.with(&extra), address)
}

/// Everything that comes back. No wait is longer than [`LONG`].
fn try_get(address: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.set_write_timeout(Some(LONG))?;
    let mut text = Vec::new();
    // A reader that breaks the rules is hung up on, in the middle of its request if need be.
    let done = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut text));
    match done {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(e),
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

/// Status line and body.
fn get(address: &str, request: &str) -> (String, String) {
    let text = try_get(address, request).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn page(address: &str, path: &str) -> (String, String) {
    get(address, &request(path))
}

#[test]
fn figures_follow_the_leases() {
    let (mut rig, address) = rig(1);
    rig.start();
    rig.open(4711, 2).unwrap();
    rig.open(4712, 6).unwrap_err();
    let gpu = rig.try_status().unwrap().gpus[0].uuid.clone();
    let order = Order::Cordon(GpuNote { gpu, note: "new fan".to_owned() });
    rig.ask(Request::Order(OrderRequest { order, force: false })).unwrap();
    rig.ask(Request::Order(OrderRequest { order: Order::Evict(4711), force: false })).unwrap_err();
    let (code, text) = page(&address, "/metrics");
    assert_eq!(code, "HTTP/1.1 200 OK");
    for line in [
        "migshare_refusals_total{reason=\"no_leaves\"} 1",
        "migshare_refusals_total{reason=\"needs_force\"} 1",
        "migshare_gpu_state{gpu=\"0\",state=\"cordoned\"} 1",
        "migshare_gpu_state{gpu=\"0\",state=\"serving\"} 0",
        "migshare_gpu_serving{gpu=\"0\"} 0",
        "migshare_leaves{gpu=\"0\",state=\"leased\"} 2",
        "migshare_leaves{gpu=\"0\",state=\"free\"} 5",
        "migshare_leaves_usable 0",
        "migshare_leaves_cordoned 7",
        "migshare_changes_deferred{gpu=\"0\"} 0",
        "migshare_leases 1",
        "migshare_gpu_stranded_compute_slices{gpu=\"0\"} 0",
        "migshare_rejected_total{why=\"permission\"} 0",
        "migshare_reconfig_total{change=\"make\",result=\"done\"} 7",
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert_eq!(text.matches("job_id=\"4711\"").count(), 2);
    assert!(text.contains(
        "migshare_nvml_call_duration_seconds_count{call=\"nvmlDeviceCreateGpuInstanceWithPlacement\"} 7"
    ));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_figures() {
    if !has("promtool") {
        return skip("promtool is not installed");
    }
    let (mut rig, address) = rig(2);
    rig.start();
    rig.open(4711, 9).unwrap();
    let mut promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(page(&address, "/metrics").1.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success());
}

#[test]
fn the_pages_say_alive_and_whether_the_node_serves() {
    let (mut rig, address) = rig(2);
    rig.start();
    assert_eq!(page(&address, "/live").0, "HTTP/1.1 200 OK");
    assert_eq!(page(&address, "/ready").0, "HTTP/1.1 200 OK");
    assert_eq!(page(&address, "/").0, "HTTP/1.1 404 Not Found");
    assert_eq!(get(&address, "POST /metrics HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(get(&address, &"x".repeat(100_000)).0, "", "no end of the head, no answer");
    rig.try_status().unwrap();
}

#[test]
fn readers_that_ask_nothing_keep_nobody_from_the_figures() {
    let (mut rig, address) = rig(1);
    rig.start();
    // Far more than there are places, all open and silent while the others ask.
    let silent: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for _ in 0..20 {
        assert_eq!(page(&address, "/metrics").0, "HTTP/1.1 200 OK");
    }
    assert!(rig.log().contains("readers of metrics are crowded"), "{}", rig.log());
    drop(silent);
}

#[test]
fn a_driver_that_hangs_is_a_figure_and_not_the_end_of_the_agent() {
    let (rig, address) = rig(1);
    let mut rig = rig.before("nvml_alarm = 1\n");
    rig.fault("nvmlDeviceGetCount_v2", 1, None, Moment::Before, Effect::Delay(3_600_000));
    rig.launch(rig.command());
    rig.until("the alarm", |s| s.problems.iter().any(|p| p.contains("does not return")));
    assert_eq!(page(&address, "/live").0, "HTTP/1.1 200 OK", "to start it anew would not help");
    assert_eq!(page(&address, "/ready").0, "HTTP/1.1 503 Service Unavailable");
    let (_, text) = page(&address, "/metrics");
    for line in ["migshare_nvml_hanging 1", "migshare_nvml_hangs_total{call=\"nvmlDeviceGetCount_v2\"} 1"] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    rig.clear_faults();
    rig.settled();
    assert!(page(&address, "/metrics").1.contains("\nmigshare_nvml_hanging 0\n"));
}

#[test]
fn job_files_for_dcgm_exporter_come_and_go_with_the_leases() {
    let (mut rig, _) = rig(1);
    rig.start();
    rig.open(4711, 2).unwrap();
    let files = |rig: &Rig| std::fs::read_dir(rig.path("jobs")).map_or(0, Iterator::count);
    let dir = rig.path("jobs");
    rig.until("job files", |_| std::fs::read_dir(&dir).is_ok_and(|d| d.count() == 2));
    let status = rig.try_status().unwrap();
    let leaf = status.gpus[0].leaves.iter().find(|l| l.job.is_some()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.join(format!("0.{}", leaf.gi))).unwrap(), "4711\n");
    rig.close(4711).unwrap();
    rig.until("no job files", |_| std::fs::read_dir(&dir).is_ok_and(|d| d.count() == 0));
    assert_eq!(files(&rig), 0);
}

#[test]
fn a_real_prometheus_scrapes_the_agent() {
    if !has("prometheus") {
        return skip("prometheus is not installed");
    }
    let (mut rig, address) = rig(1);
    rig.start();
    rig.open(4711, 2).unwrap();
    let mut prometheus = Prometheus::start(&rig, &address);
    let query = "/api/v1/query?query=sum(migshare_leaves%7Bstate%3D%22leased%22%7D)";
    prometheus.until(query, "\"2\"]");
    prometheus.until("/api/v1/targets", "\"health\":\"up\"");
}

/// A Prometheus that scrapes one agent every second.
struct Prometheus {
    process: Ends,
    address: String,
    log: PathBuf,
}

impl Prometheus {
    fn start(rig: &Rig, target: &str) -> Prometheus {
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: migshare\n    static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        std::fs::write(rig.path("prometheus.yml"), config).unwrap();
        let log = rig.path("prometheus.log");
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", rig.path("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", rig.path("tsdb").display()))
            .arg(format!("--web.listen-address={address}"));
        let file = std::fs::File::create(&log).unwrap();
        let process = Ends::start(tied(&command).stdout(Stdio::null()).stderr(file));
        Prometheus { process, address, log }
    }

    /// Waits until a page says what is wanted; at the deadline, or when Prometheus has ended, tells what both said.
    fn until(&mut self, path: &str, wanted: &str) {
        let deadline = Instant::now() + LONG;
        let mut said = String::new();
        while !said.contains(wanted) {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(end) = self.process.try_wait().unwrap() {
                panic!("prometheus ended ({end}):\n{}", log());
            }
            assert!(Instant::now() < deadline, "no {wanted} in {path}: \"{said}\"\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
            said = try_get(&self.address, &request(path)).unwrap_or_else(|e| e.to_string());
        }
    }
}
