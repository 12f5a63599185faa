//! The command on whole configurations: what it prints passes its own check, each single mistake is named once.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const STATUS: &str = r#"{"node":"n2","version":"0.1.0","driver":"550.54.15","cuda":"12.4","layout":"uniform",
"counted":14,"usable":13,"gpus":[
{"index":0,"uuid":"GPU-a","model":"NVIDIA H100 80GB HBM3","pci_bus_id":"00000000:17:00.0","numa":0,"units":8,"state":"serving","leaves":[],
"prices":[{"profile":"1g.10gb","slices":1,"memory_mib":9984,"leaves":1},{"profile":"3g.40gb","slices":3,"memory_mib":40448,"leaves":4}]},
{"index":1,"uuid":"GPU-b","model":"NVIDIA H100 80GB HBM3","pci_bus_id":"00000000:65:00.0","numa":0,"units":8,"state":"lost","leaves":[],
"prices":[{"profile":"1g.10gb","slices":1,"memory_mib":9984,"leaves":1},{"profile":"3g.40gb","slices":3,"memory_mib":40448,"leaves":4}]},
{"index":2,"uuid":"GPU-c","model":"NVIDIA H100 80GB HBM3","pci_bus_id":"00000000:ca:00.0","numa":1,"units":8,"state":"mig_off","leaves":[]}],
"leases":[],"problems":[]}"#;

/// A configuration without fault, in the ways that admins write them.
const FILES: [(&str, &str); 6] = [
    (
        "slurm.conf",
        "ClusterName=c\nGresTypes=gpu,mig\nPrologFlags=Alloc,X11\nPrologEpilogTimeout=60\nInclude nodes.conf\n",
    ),
    (
        "nodes.conf",
        "NodeName=DEFAULT Gres=mig:14 State=UNKNOWN\nNodeName=login CPUs=1 Gres=none\nnodename=n[1-3] \\\n  CPUs=64\n",
    ),
    (
        "gres.conf",
        "NodeName=n[1-3] Name=mig Count=14\nNodeName=n[1-3] Name=gpu File=/dev/nvidia2\nNodeName=big Name=gpu AutoDetect=nvml\n",
    ),
    ("plugstack.conf", "optional other.so\ninclude plugstack.conf.d/*.conf\n"),
    ("plugstack.conf.d/migshare.conf", "required spank_migshare.so socket=/run/%n.sock prices=prices\n"),
    (
        "prices",
        "# alike nodes\n{\"node\":\"n[1-3]\",\"leaves\":14,\"models\":[{\"model\":\"NVIDIA H100 80GB HBM3\",\"prices\":[\
         {\"profile\":\"1g.10gb\",\"slices\":1,\"memory_mib\":9984,\"leaves\":1},\
         {\"profile\":\"3g.40gb\",\"slices\":3,\"memory_mib\":40448,\"leaves\":4}]}]}\n",
    ),
];

struct Site(TempDir);

impl Site {
    fn new() -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        fs::create_dir(site.0.path().join("plugstack.conf.d")).unwrap();
        FILES.iter().for_each(|(name, text)| site.put(name, text));
        site.put("status.json", STATUS);
        site
    }
    fn put(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshare-gres"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("SLURM_CONF")
            .env_remove("MIGSHARE_SOCKET");
        command.output().unwrap()
    }
    fn check(&self, more: &[&str]) -> (i32, String) {
        let base = ["check", "--inventory", "status.json", "--slurm-conf", "slurm.conf"];
        let out = self.run(&[&base[..], more].concat());
        (out.status.code().unwrap(), text(&out.stdout) + &text(&out.stderr))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_and_a_full_disk_is() {
    let site = Site::new();
    let run = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migshare-gres"));
        let render = ["render", "--inventory", "status.json"];
        command.args(render).current_dir(site.0.path()).stdout(out).stderr(Stdio::piped());
        let done = command.spawn().unwrap().wait_with_output().unwrap();
        (done.status.code(), text(&done.stderr))
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(writer.into()), (Some(0), String::new()));
    let (code, said) = run(fs::File::options().write(true).open("/dev/full").unwrap().into());
    assert!(code == Some(2) && said.contains("cannot print"), "{said}");
}

#[test]
fn a_configuration_without_fault_is_said_to_be_one() {
    let (code, said) = Site::new().check(&[]);
    assert_eq!((code, said.as_str()), (0, "n2: 14 leaves, Slurm is set up for them\n"));
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let cases = [
        ("slurm.conf", "GresTypes=gpu,mig", "GresTypes=gpu", "wrong   slurm.conf: GresTypes=gpu has no mig"),
        ("nodes.conf", "Gres=mig:14", "Gres=mig:7", "wrong   nodes.conf:3: n2 has Gres=mig:7 and 14 leaves"),
        ("nodes.conf", "Gres=mig:14", "Gres=gpu:2", "wrong   nodes.conf:3: n2 has Gres=mig:0 and 14 leaves"),
        ("nodes.conf", "Gres=mig:14", "Gres=mig:1g.10gb:7,gpu:1,mig:1g.20gb:6", "n2 has Gres=mig:13 and 14"),
        ("nodes.conf", "n[1-3]", "n[3-9]", "wrong   slurm.conf: no NodeName line is for n2"),
        ("gres.conf", "Count=14", "Count=6", "wrong   gres.conf:1: n2 has mig Count=6 and 14 leaves"),
        (
            "gres.conf",
            "Count=14",
            "File=/dev/nvidia-caps/x[1-14] Count=14",
            "wrong   gres.conf:1: mig on n2 has device files",
        ),
        ("gres.conf", "Name=mig", "Name=gig", "wrong   gres.conf: no line is for mig on n2"),
        (
            "gres.conf",
            "/dev/nvidia2",
            "/dev/nvidia[1-2]",
            "wrong   gres.conf:2: File=/dev/nvidia[1-2] gives GPU 1",
        ),
        ("gres.conf", "NodeName=big ", "", "wrong   gres.conf:3: AutoDetect=nvml gives the GPUs of n2"),
        ("plugstack.conf", "include", "#", "wrong   plugstack.conf: no line loads spank_migshare.so"),
        (
            "plugstack.conf",
            "optional other.so",
            "required /x/spank_migshare.so",
            "2 lines load spank_migshare.so",
        ),
        (
            "plugstack.conf.d/migshare.conf",
            "required",
            "optional",
            "migshare.conf:1: optional spank_migshare.so",
        ),
        (
            "prices",
            "\"leaves\":4}",
            "\"leaves\":3}",
            "wrong   prices: the line for n2 is not what its agent charges",
        ),
        ("prices", "n[1-3]", "n1", "wrong   prices: no line is for n2"),
        ("prices", "\"models\"", "\"modles\"", "wrong   prices: line 2: "),
        ("plugstack.conf.d/migshare.conf", "prices=prices", "prices=gone", "wrong   gone: No such file"),
        (
            "plugstack.conf.d/migshare.conf",
            "required ",
            "required /no/such/",
            "/no/such/spank_migshare.so does not exist",
        ),
    ];
    for (file, from, to, says) in cases {
        let site = Site::new();
        let before = FILES.iter().find(|(name, _)| *name == file).unwrap().1;
        assert!(before.contains(from), "{from}");
        site.put(file, &before.replacen(from, to, 1));
        let (code, said) = site.check(&[]);
        assert_eq!((code, said.lines().count()), (1, 1), "{to}: {said}");
        assert!(said.contains(says), "{to}: {said}");
    }
}

#[test]
fn a_device_filter_of_slurms_own_is_a_conflict() {
    let site = Site::new();
    site.put("cgroup.conf", "ConstrainCores=yes\nConstrainDevices=yes\n");
    let (code, said) = site.check(&[]);
    assert!(
        code == 1 && said.contains("cgroup.conf:2: ConstrainDevices=yes with device files at gres.conf:2"),
        "{said}"
    );
    site.put("cgroup.conf", "ConstrainDevices=yes\nCgroupPlugin=cgroup/v1\n");
    assert_eq!(site.check(&[]).0, 0);
    site.put("cgroup.conf", "ConstrainDevices=yes\n");
    site.put("gres.conf", "Name=mig Count=14\n");
    assert_eq!(site.check(&[]).0, 0);
}

#[test]
fn advice_alone_is_no_failure() {
    let site = Site::new();
    site.put("slurm.conf", "GresTypes=mig\nInclude nodes.conf\n");
    let (code, said) = site.check(&[]);
    assert_eq!(code, 0);
    assert!(said.contains("advice  slurm.conf: PrologFlags has no Alloc"), "{said}");
    assert!(said.contains("advice  slurm.conf: PrologEpilogTimeout is not set"), "{said}");
    site.put("plugstack.conf.d/migshare.conf", "required spank_migshare.so\n");
    let (code, said) = site.check(&[]);
    assert!(
        code == 0 && said.contains("advice  plugstack.conf.d/migshare.conf:1: no prices= names"),
        "{said}"
    );
}

#[test]
fn differences_come_as_json() {
    let site = Site::new();
    site.put("gres.conf", "");
    let (code, said) = site.check(&["--json"]);
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &found[0]["weight"], &found[0]["at"]), (1, &"wrong".into(), &"gres.conf".into()));
}

#[test]
fn what_is_rendered_passes_the_check() {
    let site = Site::new();
    let out = site.run(&["render", "--inventory", "status.json", "--json"]);
    let rendered: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    for (key, file) in [("gres", "gres.conf"), ("slurm", "slurm.conf"), ("prices", "prices")] {
        site.put(file, rendered[key].as_str().unwrap());
    }
    let plugstack = rendered["plugstack"].as_str().unwrap();
    assert!(plugstack.contains(" prices=/etc/slurm/migshare-prices\n"), "{plugstack}");
    site.put("plugstack.conf", &plugstack.replace("/etc/slurm/migshare-prices", "prices"));
    assert_eq!(site.check(&[]), (0, "n2: 14 leaves, Slurm is set up for them\n".to_owned()));
    let plain = text(&site.run(&["render", "--inventory", "status.json"]).stdout);
    assert!(plain.contains("## gres.conf\n") && plain.contains("NodeName=n2 Name=mig Count=14\n"), "{plain}");
}

#[test]
fn what_cannot_be_told_is_a_third_exit_code() {
    let site = Site::new();
    site.put("broken.json", "{\"node\":3}");
    for arguments in [
        &["check", "--inventory", "status.json", "--slurm-conf", "no.conf"][..],
        &["check", "--inventory", "broken.json", "--slurm-conf", "slurm.conf"],
        &["render", "--inventory", "no.json"],
        &["render", "--socket", "no.sock"],
        &["render", "--nonsense"],
    ] {
        let out = site.run(arguments);
        assert_eq!(out.status.code(), Some(2), "{arguments:?}");
        assert!(!out.stderr.is_empty() && out.stdout.is_empty(), "{arguments:?}");
    }
}
