use super::*;
use migshare_proto::prices::ModelPrices;

fn price(profile: &str, slices: u8, memory_mib: u64, leaves: u32) -> PriceStatus {
    PriceStatus { profile: profile.to_owned(), slices, memory_mib, leaves }
}

/// Prices of published profiles, shortened.
fn table() -> Vec<NodePrices> {
    let h100 =
        vec![price("1g.10gb", 1, 9984, 1), price("2g.20gb", 2, 20096, 2), price("3g.40gb", 3, 40448, 4)];
    let h200 =
        vec![price("1g.18gb", 1, 16384, 1), price("1g.35gb", 1, 33024, 2), price("2g.35gb", 2, 33024, 2)];
    let a30 = vec![price("1g.6gb", 1, 5952, 1), price("2g.12gb", 2, 11968, 2)];
    let line = |node: &str, model: &str, prices| NodePrices {
        node: node.to_owned(),
        leaves: 14,
        models: vec![ModelPrices { model: model.to_owned(), prices }],
    };
    vec![line("h[1-2]", "H100", h100), line("k[1-2]", "H200", h200), line("a1", "A30", a30)]
}

fn node(name: &str, features: &[&str]) -> Node {
    Node { name: name.to_owned(), features: features.iter().map(|f| (*f).to_owned()).collect(), leaves: 14 }
}

fn refusal(need: Need, nodes: &[Node]) -> String {
    let table = table();
    Choice::new(need, &table, nodes).price().unwrap_err()
}

#[test]
fn one_price_on_all_nodes_is_the_price() {
    let nodes = [node("h1", &[]), node("k1", &[]), node("x1", &[])];
    let table = table();
    let choice = Choice::new(Need::Slices(2), &table, &nodes);
    assert_eq!(choice.price().unwrap().map(|p| p.leaves), Some(2));
    let unknown = Choice::new(Need::Slices(2), &table, &nodes[2..]);
    assert_eq!(unknown.price(), Ok(None), "nothing is known of a node without a line");
}

#[test]
fn different_prices_are_refused_with_models_ways_and_what_costs_the_same() {
    let nodes = [node("h1", &["gpu", "h100"]), node("h2", &["gpu", "h100"]), node("k1", &["gpu", "h200"])];
    assert_eq!(
        refusal(Need::MemoryMib(30 << 10), &nodes),
        "--mig-share=mem=30G costs 2 leaves on H200 (k1), and 4 leaves on H100 (h1,h2): no one --gres=mig:N is right on all of them; \
         let the job go to one kind only, --constraint=h200 with --gres=mig:2 for each instance, or --constraint=h100 with \
         --gres=mig:4 for each instance; or ask for what costs the same everywhere: mem=20096M (2 each)"
    );
}

#[test]
fn without_features_nodes_are_chosen_by_name() {
    let said = refusal(Need::MemoryMib(30 << 10), &[node("h1", &[]), node("h2", &[]), node("k1", &[])]);
    assert!(said.contains("-w k1 with --gres=mig:2") && said.contains("-x k1 with --gres=mig:4"), "{said}");
}

#[test]
fn a_model_without_such_an_instance_makes_a_difference_too() {
    let said = refusal(Need::MemoryMib(15 << 10), &[node("h1", &["h100"]), node("a1", &["a30"])]);
    assert!(said.contains("costs 2 leaves on H100 (h1), and cannot be had on A30 (a1):"), "{said}");
    assert!(said.contains("--constraint=h100") && !said.contains("--constraint=a30"), "{said}");
    assert!(said.contains("mem=11968M (2 each)"), "{said}");
    let said = refusal(Need::Slices(8), &[node("h1", &[]), node("a1", &[])]);
    assert!(said.contains("the largest is 3g.40gb with 3 slices and 40448 MiB"), "{said}");
}

fn left(options: &[(&str, &str)]) -> Vec<String> {
    let nodes = vec![node("h1", &["a", "b"]), node("h2", &["a"]), node("k1", &["b"])];
    let given = |name: &str| options.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    narrow(nodes, &given).into_iter().map(|node| node.name).collect()
}

#[test]
fn options_leave_the_nodes_that_slurm_could_choose() {
    for (options, wanted) in [
        (&[][..], &["h1", "h2", "k1"][..]),
        (&[("exclude", "h[1-2]")], &["k1"]),
        (&[("nodelist", "h[1-2]")], &["h1", "h2"]),
        (&[("nodelist", "h1"), ("nodes", "1-0")], &["h1"]),
        (&[("nodelist", "h1"), ("nodes", "2")], &["h1", "h2", "k1"]),
        (&[("constraint", "a")], &["h1", "h2"]),
        (&[("constraint", "a&b")], &["h1"]),
        (&[("constraint", "a|b")], &["h1", "h2", "k1"]),
        (&[("constraint", "c")], &[]),
        (&[("constraint", "[c|d]")], &[]),
        (&[("constraint", "[a|c]")], &["h1", "h2"]),
        (&[("constraint", "(a|c)&b")], &["h1"]),
        (&[("constraint", "[(a&b)|(c&d)]")], &["h1"]),
        (&[("constraint", " b & ( a | c ) ")], &["h1"]),
        (&[("constraint", "a&b|b")], &["h1", "k1"]),
        (&[("constraint", "b|c&a")], &["h1", "k1"]),
        (&[("constraint", "(c")], &["h1", "h2", "k1"]),
        (&[("constraint", "c&")], &["h1", "h2", "k1"]),
        (&[("constraint", "c)")], &["h1", "h2", "k1"]),
        (&[("constraint", "a*1&b*1")], &["h1", "h2", "k1"]),
        (&[("constraint", "a"), ("exclude", "h1")], &["h2"]),
    ] {
        assert_eq!(left(options), wanted, "{options:?}");
    }
}
