//! srun, sbatch and salloc with `size=` or `mem=`: what is asked of Slurm, and what is refused before it is queued.

use crate::table::Table;
use migshare_spank::Plugin;
use migshare_spank::plugin::Context;
use migshare_spank::slurm::{Level, Node, Partition};
use std::path::Path;

const TABLE: &str = r#"# two kinds
{"node":"n[1-2]","leaves":14,"models":[{"model":"H100","prices":[{"profile":"1g.10gb","slices":1,"memory_mib":9984,"leaves":1},{"profile":"2g.20gb","slices":2,"memory_mib":20096,"leaves":2},{"profile":"3g.40gb","slices":3,"memory_mib":40448,"leaves":4}]}]}
{"node":"n3","leaves":14,"models":[{"model":"H200","prices":[{"profile":"1g.18gb","slices":1,"memory_mib":16384,"leaves":1},{"profile":"1g.35gb","slices":1,"memory_mib":33024,"leaves":2},{"profile":"2g.35gb","slices":2,"memory_mib":33024,"leaves":2}]}]}
"#;

/// A cluster of two H100 and one H200 node, and the command's options.
fn slurm(options: &[(&str, &str)]) -> Table {
    let slurm = Table::default();
    let node = |name: &str, feature: &str| Node {
        name: name.to_owned(),
        features: vec![feature.to_owned()],
        leaves: 14,
    };
    *slurm.nodes.borrow_mut() = vec![
        node("n1", "h100"),
        node("n2", "h100"),
        node("n3", "h200"),
        Node { name: "cpu1".to_owned(), ..Node::default() },
    ];
    let part = |name: &str, nodes: &str, default| Partition {
        name: name.to_owned(),
        nodes: nodes.to_owned(),
        default,
    };
    *slurm.partitions.borrow_mut() = vec![part("all", "n[1-3],cpu1", true), part("old", "n[1-2]", false)];
    let options = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    slurm.options.borrow_mut().extend(options);
    slurm
}

fn submit(table: Option<&Path>, option: &str, slurm: &Table) -> Result<(), String> {
    let mut plugin = Plugin::default();
    let words: Vec<String> = table.iter().map(|path| format!("prices={}", path.display())).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    plugin.init(Context::Command, &words, slurm).unwrap();
    plugin.option(Some(option), false, slurm).unwrap();
    plugin.init_post_opt(Context::Command, slurm)
}

/// Submits with the table in a file.
fn with_table(option: &str, slurm: &Table) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices");
    std::fs::write(&path, TABLE).unwrap();
    submit(Some(&path), option, slurm)
}

#[test]
fn a_size_alone_asks_for_the_leaves_of_its_tasks() {
    for (options, leaves, pins) in [
        (&[][..], "mig:2", &[("nodes", "1")][..]),
        (&[("ntasks", "3")], "mig:6", &[("nodes", "1")]),
        (&[("ntasks", "4"), ("nodes", "1-0")], "mig:8", &[("nodes", "1")]),
        (&[("ntasks", "6"), ("nodes", "2")], "mig:6", &[("nodes", "2"), ("ntasks-per-node", "3")]),
        (&[("ntasks", "6"), ("ntasks-per-node", "2"), ("nodes", "1-3")], "mig:4", &[("nodes", "1-3")]),
        (&[("ntasks", "2"), ("gres", "gres:nic:1")], "nic:1,mig:4", &[]),
    ] {
        let slurm = slurm(options);
        with_table("size=2g", &slurm).unwrap();
        let set = slurm.options.borrow();
        assert_eq!(set["gres"], leaves, "{options:?}");
        pins.iter().for_each(|(name, value)| assert_eq!(set[*name], *value, "{options:?}"));
    }
}

#[test]
fn a_size_alone_is_refused_where_its_leaves_cannot_be_counted() {
    for (options, says) in [
        (&[("ntasks", "5"), ("nodes", "2")][..], "5 tasks do not lie evenly on 2 nodes"),
        (&[("ntasks", "4"), ("nodes", "1-2")], "-N1-2 has is not known"),
        (&[("ntasks", "8")], "8 tasks on a node need 16 leaves"),
        (&[("gres", "gres:none")], "--gres=gres:none asks for none"),
    ] {
        let slurm = slurm(options);
        let said = with_table("size=2g", &slurm).unwrap_err();
        assert!(
            said.contains(says) && said.contains("--mig-share") || said.contains("--ntasks-per-node"),
            "{said}"
        );
        assert!(slurm.options.borrow().get("gres").is_none_or(|gres| gres == "gres:none"));
    }
}

#[test]
fn a_price_that_differs_between_the_nodes_is_refused_unless_the_job_goes_to_one_kind() {
    for gres in [&[("gres", "gres:mig:4")][..], &[]] {
        let said = with_table("mem=30G", &slurm(gres)).unwrap_err();
        assert!(
            said.contains("2 leaves on H200 (n3)") && said.contains("4 leaves on H100 (n1,n2)"),
            "{said}"
        );
        assert!(said.contains("--constraint=h100") && said.contains("mem=20096M"), "{said}");
        for narrower in [
            ("constraint", "h100"),
            ("nodelist", "n1"),
            ("exclude", "n3"),
            ("partition", "old"),
            ("constraint", "h200"),
        ] {
            let slurm = slurm(&[gres, &[narrower]].concat());
            with_table("mem=30G", &slurm).unwrap();
            let cost = if gres.is_empty() && narrower.1 == "h200" { "mig:2" } else { "mig:4" };
            assert_eq!(slurm.options.borrow()["gres"].trim_start_matches("gres:"), cost, "{narrower:?}");
        }
    }
}

#[test]
fn leaves_that_pay_for_no_whole_instance_are_refused_before_the_job_is_queued() {
    for (option, gres) in [("size=2g", Some("gres:mig:3")), ("3,size=2g", None)] {
        let options: Vec<(&str, &str)> = gres.map(|gres| ("gres", gres)).into_iter().collect();
        let said = with_table(option, &slurm(&options)).unwrap_err();
        assert!(said.contains("charged 2 leaves") && said.contains("mig:2 or 4"), "{said}");
    }
    with_table("4,size=2g", &slurm(&[])).unwrap();
}

#[test]
fn without_a_table_only_what_needs_one_is_refused() {
    let gone = Path::new("/nonexistent/prices");
    for table in [None, Some(gone)] {
        for (option, gres) in
            [("4", None), ("pack", Some("gres:mig:4")), ("mem=30G", Some("gres:mig:4")), ("4,mem=30G", None)]
        {
            let options: Vec<(&str, &str)> = gres.map(|gres| ("gres", gres)).into_iter().collect();
            let slurm = slurm(&options);
            submit(table, option, &slurm).unwrap();
            assert_eq!(slurm.options.borrow()["gres"].trim_start_matches("gres:"), "mig:4", "{option}");
            assert!(slurm.said.borrow().iter().all(|(level, _)| *level == Level::Debug));
        }
        let said = submit(table, "mem=30G", &slurm(&[])).unwrap_err();
        assert!(said.contains("price table") || said.contains("/nonexistent/prices"), "{said}");
        assert!(said.contains("--gres=mig:N"), "{said}");
    }
}

#[test]
fn a_damaged_table_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices");
    std::fs::write(&path, "# x\n{\"node\":3}\n").unwrap();
    let said = submit(Some(&path), "size=2g", &slurm(&[])).unwrap_err();
    assert!(said.contains("prices line 2: "), "{said}");
    submit(Some(&path), "size=2g", &slurm(&[("gres", "gres:mig:2")])).unwrap();
}

#[test]
fn inside_a_job_nothing_is_priced_again() {
    let slurm = slurm(&[]);
    slurm.process_env.borrow_mut().insert("SLURM_JOB_ID".to_owned(), "7".to_owned());
    with_table("mem=30G", &slurm).unwrap();
    assert!(slurm.options.borrow().is_empty());
}
