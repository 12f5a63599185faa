//! The session on the simulated NVML, on both orders of GPU instance ids.
//!
//! The simulator is configured by an environment variable of the process that loads it, so each test runs itself again as a
//! process of its own.
#![allow(clippy::unwrap_used)]

use migshare_nvml::{MigChange, Session};
use migshare_policy::topology::{GpuReport, Health};
use migshare_proto::Placement;
use nvidia_ml::code::Code;
use nvidia_ml::config::Config;
use nvidia_ml::fault::{Effect, Fault, Moment};
use nvidia_ml::machine::{Condition, Machine};
use nvidia_ml::store::Store;
use std::path::{Path, PathBuf};
use std::process::Command;

const VARIABLE: &str = "NVML_SIM_CONFIG";

/// A simulated node and a session on it.
struct Bench {
    session: Session,
    sim: Store,
}

impl Bench {
    fn scan(&self) -> Vec<GpuReport> {
        self.session.scan().unwrap()
    }

    fn fault(&self, call: &str, moment: Moment, effect: Effect) {
        let state = self.sim.config().state.clone();
        let armed = self.sim.update(|machine: &mut Machine| {
            let id = machine.serial();
            let fault =
                Fault { id, call: call.to_owned(), gpu: None, nth: 1, times: Some(1), moment, effect };
            fault.arm(&state)?;
            machine.faults.push(fault);
            Ok::<_, std::io::Error>(())
        });
        armed.unwrap().unwrap();
    }
}

/// Runs `body` in a process of its own for each order of ids, on a node with two of `model`.
fn on_both_orders(test: &str, model: &str, body: impl Fn(&Bench)) {
    if let Some(config) = std::env::var_os(VARIABLE) {
        let sim = Store::open(Config::locate(Some(Path::new(&config))).unwrap()).unwrap();
        let proc_root = sim.config().root.join("proc");
        return body(&Bench { session: Session::open(Some(&library()), &proc_root).unwrap(), sim });
    }
    for order in ["direct", "half-swapped"] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("sim.toml");
        let text = format!(
            "state = \"nvml\"\nroot = \"root\"\ndriver = \"550.54.15\"\ncuda = \"12.4\"\ncaps_major = 235\n\
             enforce_caps = false\n[[gpu]]\nmodel = \"{model}\"\ncount = 2\ngi_order = \"{order}\"\nmig = true\nnuma_node = 1\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut again = Command::new(std::env::current_exe().unwrap());
        let out = again.args(["--exact", test, "--nocapture"]).env(VARIABLE, &config).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{order}: {}{text}", String::from_utf8_lossy(&out.stdout));
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("1 passed"),
            "{test} is not the name of a test"
        );
    }
}

/// The simulated library: cargo puts it beside the test or one folder up.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let mut places = test.ancestors().skip(1).take(2).map(|dir| dir.join("libnvidia_ml.so"));
    places.find(|path| path.exists()).unwrap()
}

fn at(start: u8, size: u8) -> Placement {
    Placement { start, size }
}

#[test]
fn a_gpu_is_described_with_all_it_offers() {
    on_both_orders("a_gpu_is_described_with_all_it_offers", "h100-sxm-80", |bench| {
        let versions = bench.session.versions().unwrap();
        assert_eq!((versions.driver.as_str(), versions.cuda), ("550.54.15", (12, 4)));
        assert_eq!(bench.session.caps_major(), Some(235));
        let reports = bench.scan();
        assert_eq!(reports.len(), 2);
        let gpu = &reports[1].gpu;
        assert_eq!((gpu.index, gpu.units, gpu.slices, gpu.numa), (1, 8, 7, Some(1)));
        assert_eq!(gpu.model, "NVIDIA H100 80GB HBM3");
        let offers: Vec<(&str, u8, u64, usize, bool)> = gpu
            .profiles
            .iter()
            .map(|p| (p.name.as_str(), p.slices, p.memory_mib, p.placements.len(), p.plain))
            .collect();
        assert!(offers.contains(&("1g.10gb", 1, 9984, 7, true)), "{offers:?}");
        assert!(offers.contains(&("1g.20gb", 1, 20096, 4, true)), "{offers:?}");
        assert!(offers.contains(&("3g.40gb", 3, 40448, 2, true)), "{offers:?}");
        assert!(offers.iter().any(|o| o.0 == "1g.10gb+me" && !o.4), "{offers:?}");
    });
}

#[test]
fn an_instance_stands_where_it_was_asked_for_and_is_gone_when_destroyed() {
    on_both_orders(
        "an_instance_stands_where_it_was_asked_for_and_is_gone_when_destroyed",
        "h100-sxm-80",
        |bench| {
            let gpu = bench.scan()[1].gpu.clone();
            let made = bench.session.create(&gpu.uuid, 9, at(4, 4)).unwrap();
            assert_eq!((made.placement, made.profile), (at(4, 4), 9));
            let full = made.full_compute().unwrap();
            assert!(full.uuid.starts_with("MIG-"));
            let minors = (made.cap.unwrap(), full.cap.unwrap());
            assert_eq!(
                minors,
                (3 + 135 + 9 * made.gi, 3 + 135 + 9 * made.gi + 1),
                "as nv-caps.c counts them"
            );
            let reports = bench.scan();
            assert_eq!(reports[1].instances, std::slice::from_ref(&made));
            assert!(reports[0].instances.is_empty());
            assert!(bench.session.create(&gpu.uuid, 19, at(5, 1)).unwrap_err().insufficient());
            bench.session.destroy(&gpu.uuid, made.gi).unwrap();
            assert!(bench.scan()[1].instances.is_empty());
            assert!(bench.session.destroy(&gpu.uuid, made.gi).unwrap_err().not_found());
        },
    );
}

#[test]
fn the_full_compute_profile_is_found_by_its_slices() {
    on_both_orders("the_full_compute_profile_is_found_by_its_slices", "gh200-96", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        let wide =
            gpu.profiles.iter().find(|p| p.plain && p.slices == 1 && p.placements[0].size == 2).unwrap();
        let made = bench.session.create(&gpu.uuid, wide.id, at(6, 2)).unwrap();
        assert!(made.full_compute().is_some());
    });
}

#[test]
fn a_creation_that_fails_half_way_leaves_nothing() {
    on_both_orders("a_creation_that_fails_half_way_leaves_nothing", "h100-sxm-80", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        bench.fault(
            "nvmlGpuInstanceCreateComputeInstance",
            Moment::Before,
            Effect::Return(Code::INSUFFICIENT_RESOURCES.0),
        );
        let e = bench.session.create(&gpu.uuid, 19, at(0, 1)).unwrap_err();
        assert!(e.insufficient() && e.left.is_none(), "{e}");
        assert!(bench.scan()[0].instances.is_empty());
    });
}

#[test]
fn what_undoing_leaves_is_named() {
    on_both_orders("what_undoing_leaves_is_named", "h100-sxm-80", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        bench.fault("nvmlGpuInstanceCreateComputeInstance", Moment::Before, Effect::Return(Code::UNKNOWN.0));
        bench.fault("nvmlGpuInstanceDestroy", Moment::Before, Effect::Return(Code::IN_USE.0));
        let e = bench.session.create(&gpu.uuid, 19, at(0, 1)).unwrap_err();
        let stands = bench.scan()[0].instances.clone();
        assert_eq!(e.left, Some(stands[0].gi));
        assert!(stands[0].compute.is_empty(), "a gpu instance without compute instance is seen");
    });
}

#[test]
fn an_instance_that_is_in_use_is_told_apart() {
    on_both_orders("an_instance_that_is_in_use_is_told_apart", "h100-sxm-80", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        let made = bench.session.create(&gpu.uuid, 19, at(0, 1)).unwrap();
        bench.fault("nvmlGpuInstanceDestroy", Moment::Before, Effect::Return(Code::IN_USE.0));
        let e = bench.session.destroy(&gpu.uuid, made.gi).unwrap_err();
        assert!(e.in_use(), "{e}");
        assert_eq!(e.left, Some(made.gi), "its compute instance is gone already");
        bench.session.destroy(&gpu.uuid, made.gi).unwrap();
    });
}

#[test]
fn a_lost_gpu_is_reported_with_what_was_known_of_it() {
    on_both_orders("a_lost_gpu_is_reported_with_what_was_known_of_it", "h100-sxm-80", |bench| {
        let before = bench.scan();
        let lose = |m: &mut Machine| m.gpu_mut(0).map(|g| g.condition = Condition::Lost);
        bench.sim.update(lose).unwrap().unwrap();
        let after = bench.scan();
        assert_eq!((&after[0].gpu, after[0].health), (&before[0].gpu, Health::Lost));
        assert_eq!(after[1], before[1]);
        assert!(bench.session.create(&before[0].gpu.uuid, 19, at(0, 1)).unwrap_err().is_gone());
    });
}

#[test]
fn a_reset_may_change_the_minor_number() {
    on_both_orders("a_reset_may_change_the_minor_number", "h100-sxm-80", |bench| {
        bench.scan();
        bench.sim.update(|m: &mut Machine| m.reset(0, Some(9))).unwrap().unwrap();
        let report = bench.scan()[0].clone();
        assert_eq!((report.gpu.minor, report.health), (9, Health::Mig));
        let made = bench.session.create(&report.gpu.uuid, 19, at(0, 1)).unwrap();
        assert_eq!(made.cap, Some(3 + 135 * 9 + 9 * made.gi));
    });
}

#[test]
fn a_mode_change_says_what_it_came_to() {
    on_both_orders("a_mode_change_says_what_it_came_to", "h100-sxm-80", |bench| {
        let gpu = bench.scan()[0].gpu.uuid.clone();
        assert_eq!(bench.session.set_mig(&gpu, false), Ok(MigChange::Active));
        assert_eq!(bench.scan()[0].health, Health::MigOff);
        bench.fault("nvmlDeviceSetMigMode", Moment::Before, Effect::Activation(Code::RESET_REQUIRED.0));
        assert_eq!(bench.session.set_mig(&gpu, true), Ok(MigChange::ResetRequired));
        assert_ne!(bench.scan()[0].health, Health::Mig);
    });
}

#[test]
fn processes_on_an_instance_are_seen() {
    on_both_orders("processes_on_an_instance_are_seen", "h100-sxm-80", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        bench.session.create(&gpu.uuid, 19, at(0, 1)).unwrap();
        let pid = nvidia_ml::process::Pid::find(std::process::id()).unwrap();
        let add = |m: &mut Machine| {
            let process = nvidia_ml::machine::Process { pid, memory_mib: 10 };
            m.gpu_mut(0).map(|g| g.instances[0].compute[0].processes.push(process))
        };
        bench.sim.update(add).unwrap().unwrap();
        let report = bench.scan()[0].clone();
        assert_eq!(report.instances[0].full_compute().unwrap().processes, [std::process::id()]);
    });
}

#[test]
fn a_four_unit_gpu_is_described() {
    on_both_orders("a_four_unit_gpu_is_described", "a30", |bench| {
        let gpu = bench.scan()[0].gpu.clone();
        assert_eq!((gpu.units, gpu.slices), (4, 4));
        let made = bench.session.create(&gpu.uuid, 14, at(3, 1)).unwrap();
        assert_eq!(made.placement, at(3, 1), "id 14 is 1g here and 2g on an H100");
    });
}
