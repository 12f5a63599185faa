use super::super::BackendState;
use super::*;

const STATE: &str = include_str!("../../../tests/samples/lustre-2.10/state");
const IMPORT: &str = include_str!("../../../tests/samples/lustre-2.10/import");
const STATS: &str = include_str!("../../../tests/samples/lustre-2.10/stats");
const LOST: &str = include_str!("../../../tests/samples/lustre-lost.state");

#[test]
fn files_of_a_real_client_are_read() {
    assert_eq!(parse::current_state(STATE).as_deref(), Some("FULL"));
    assert_eq!(parse::import_state(IMPORT).as_deref(), Some("FULL"));
    assert_eq!(parse::connection(IMPORT).as_deref(), Some("172.20.20.5@o2ib"));
    let waits = parse::waits(STATS).unwrap();
    assert_eq!(waits, parse::Waits { count: 18_215_581, micros: 110_282_569_237 });
    // The client's own mean over its life.
    assert!(IMPORT.contains(&format!("avg_waittime: {} usec", waits.micros / waits.count)));
    assert_eq!(parse::current_state(LOST).as_deref(), Some("DISCONN"));
}

#[test]
fn cut_files_are_read_without_harm() {
    for text in [STATE, IMPORT, STATS, LOST] {
        for cut in 0..text.len() {
            let text = &text[..cut];
            let _ = (parse::current_state(text), parse::import_state(text), parse::connection(text));
            assert!(parse::waits(text).is_none_or(|w| w.count == 18_215_581));
        }
    }
}

fn put(root: &Root, target: u32, file: &str, text: &str) {
    let dir = root.at(ROOTS[0]).join(format!("lustrefs-OST{target:04x}-osc-ffff88105db50000"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(file), text).unwrap();
}

/// Two targets; `broken` never was connected.
fn client(dir: &Path, broken: bool) -> (Root, Client) {
    let root = Root(dir.to_owned());
    assert!(Client::find(&root, "lustrefs").is_none());
    for target in 0..2 {
        put(&root, target, "state", if broken && target == 1 { LOST } else { STATE });
        put(&root, target, "import", IMPORT);
        put(&root, target, "stats", STATS);
    }
    // Neither a server's import nor another file system.
    for other in ["lustrefs-OST0000-osc-MDT0000", "lustrefs2-OST0000-osc-ffff88105db50000"] {
        fs::create_dir_all(root.at(ROOTS[0]).join(other)).unwrap();
        fs::write(root.at(ROOTS[0]).join(other).join("state"), LOST).unwrap();
    }
    let client = Client::find(&root, "lustrefs").unwrap();
    assert_eq!(client.watches(), "2 targets of Lustre lustrefs");
    (root, client)
}

#[test]
fn a_lost_target_makes_the_backend_gone_until_it_is_back_or_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (root, mut client) = client(dir.path(), false);
    assert_eq!(client.ways(), (Vec::new(), true));
    let now = Instant::now();
    assert_eq!(client.look(now), Finding::live());
    put(&root, 1, "state", LOST);
    assert_eq!(client.look(now), Finding::gone("lustrefs-OST0001 is DISCONN".into()));
    put(&root, 1, "state", "current_state: IDLE\n");
    assert_eq!(client.look(now), Finding::live());
    put(&root, 1, "state", LOST);
    assert_eq!(client.look(now).state, BackendState::Gone);
    assert_eq!(client.look(now + GIVEN_UP), Finding::live());
}

#[test]
fn a_target_that_never_was_connected_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let (_root, mut client) = client(dir.path(), true);
    assert_eq!(client.look(Instant::now()), Finding::live());
}

#[test]
fn requests_that_wait_far_longer_than_lately_degrade_the_backend() {
    let dir = tempfile::tempdir().unwrap();
    let (root, mut client) = client(dir.path(), false);
    let (mut count, mut micros) = (18_215_581_u64, 110_282_569_237_u64);
    let mut interval = |mean: u64| {
        (count, micros) = (count + 100, micros + 100 * mean);
        put(&root, 0, "stats", &format!("req_waittime   {count} samples [usecs] 69 1348857 {micros} 1\n"));
        client.look(Instant::now())
    };
    assert_eq!(interval(600), Finding::live());
    assert_eq!(interval(600), Finding::live());
    let slow = interval(6000);
    assert_eq!(slow.state, BackendState::Degraded);
    assert!(slow.signal.is_some_and(|s| s.contains("wait 6000 us, 600 us at best")));
    assert_eq!(interval(700), Finding::live());
}
