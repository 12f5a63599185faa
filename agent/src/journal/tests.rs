use super::*;
use migshare_policy::layout::{Layout, Slot};
use migshare_policy::record::{Cause, Ending, Grant, Holder, LeafId, Pick, Place};
use migshare_proto::message::Reason;
use migshare_proto::{GpuUuid, JobKey, Placement, StepId};

fn leaf(start: u8) -> LeafId {
    let placement = Placement { start, size: 1 };
    LeafId { place: Place { gpu: GpuUuid::new("GPU-1"), placement }, generation: 3 }
}

fn job() -> JobKey {
    JobKey { job: 812, start: 1_700_000_000, uid: 1000 }
}

fn told() -> Told {
    Told { job: 812, at: 5, text: "refused: no leaf is free".to_owned(), reason: Some(Reason::NoLeaves) }
}

/// One record of every kind.
fn every_kind() -> Vec<Record> {
    let gpu = GpuUuid::new("GPU-1");
    let grant = Grant {
        leaves: vec![leaf(0)],
        tasks: vec![vec![0]],
        shared: 0,
        holder: Holder { pid: 77, born: 99 },
    };
    let custom = Layout::Custom(vec![Slot { slices: 3, placement: Placement { start: 4, size: 4 } }]);
    let mut all = vec![
        Record::Boot { boot: "b".to_owned() },
        Record::Enrol { gpu: gpu.clone(), index: 0, leaves: 7 },
        Record::Generation { leaf: leaf(2) },
        Record::Reserve { leaf: leaf(0), profile: 19 },
        Record::Stand { leaf: leaf(0), profile: 19 },
        Record::Open { job: job(), leaves: vec![Pick { leaf: leaf(0), profile: 19 }], charged: 1, at: 5 },
        Record::Reshape { uid: 1000, at: 5, until: 3605 },
        Record::Grant { job: job(), step: StepId(0), grant },
        Record::Release { job: job(), step: StepId(0) },
        Record::Remove { leaf: leaf(0) },
        Record::Gone { leaf: leaf(0) },
        Record::Cordon { gpu: gpu.clone(), note: "fan".to_owned(), at: 7 },
        Record::Uncordon { gpu: gpu.clone() },
        Record::Unquarantine { place: leaf(1).place },
        Record::Forget { gpu: gpu.clone() },
    ];
    for how in [Ending::Epilog, Ending::Reaper, Ending::Admin, Ending::Reconcile] {
        all.push(Record::Close { job: job(), how });
    }
    for cause in [Cause::Foreign, Cause::Partial, Cause::Failed, Cause::Admin] {
        all.push(Record::Quarantine { place: leaf(1).place, cause, note: "why".to_owned() });
    }
    for layout in [None, Some(Layout::Uniform), Some(Layout::FullMemory), Some(custom)] {
        all.push(Record::Target { gpu: gpu.clone(), layout });
    }
    all
}

fn reopened(dir: &Path) -> Replay {
    Journal::open(dir).unwrap().1
}

#[test]
fn every_kind_of_record_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, replay) = Journal::open(dir.path()).unwrap();
    assert!(replay.records.is_empty());
    for record in every_kind() {
        journal.append(&[record], &[]).unwrap();
    }
    drop(journal);
    assert_eq!(reopened(dir.path()).records, every_kind());
}

#[test]
fn a_compacted_journal_holds_what_it_was_given_and_takes_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.append(&every_kind(), &[]).unwrap();
    journal.compact(&every_kind()[..2], &[told()]).unwrap();
    journal.append(&every_kind()[2..3], &[told()]).unwrap();
    drop(journal);
    let replay = reopened(dir.path());
    assert_eq!(replay.records, every_kind()[..3]);
    assert_eq!(replay.told, [told(), told()]);
}

/// What a crash leaves of a journal of so many bytes: it ends there, or zeros follow where room was made.
fn cut(whole: &[u8], at: usize) -> [Vec<u8>; 2] {
    let mut zeros = whole[..at].to_vec();
    zeros.resize(whole.len() + 5000, 0);
    [whole[..at].to_vec(), zeros]
}

#[test]
fn a_journal_cut_at_any_byte_holds_exactly_the_appends_before_the_cut() {
    // Thousands of syncs: in memory, where there is such a disk.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let mut ends = vec![(journal.len, 0)];
    for (at, pair) in every_kind().chunks(2).enumerate() {
        journal.append(pair, &[]).unwrap();
        ends.push((journal.len, 2 * (at + 1)));
    }
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for (at, left) in (0..=whole.len()).flat_map(|at| cut(&whole, at).map(|left| (at, left))) {
        std::fs::write(&path, &left).unwrap();
        let expected = ends.iter().rev().find(|(end, _)| *end <= at as u64).map_or(0, |(_, n)| *n);
        let expected = expected.min(every_kind().len());
        let (mut journal, replay) = Journal::open(dir.path()).unwrap();
        assert_eq!(replay.records, every_kind()[..expected], "cut at {at} of {}", left.len());
        journal.append(&every_kind()[..1], &[]).unwrap();
        drop(journal);
        assert_eq!(reopened(dir.path()).records.len(), expected + 1, "appended after a cut at {at}");
    }
}

#[test]
fn room_is_no_torn_tail_and_is_used_before_the_file_grows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.make_room();
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(size, journal.len + ROOM);
    journal.append(&every_kind(), &[]).unwrap();
    drop(journal);
    let (mut journal, replay) = Journal::open(dir.path()).unwrap();
    assert_eq!((replay.records, replay.torn), (every_kind(), 0));
    journal.make_room();
    let mut appends = 1;
    while journal.end - journal.len >= LITTLE {
        journal.append(&every_kind(), &[]).unwrap();
        appends += 1;
    }
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    journal.make_room();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size + ROOM);
    drop(journal);
    assert_eq!(reopened(dir.path()).records.len(), appends * every_kind().len());
}

#[test]
fn an_append_larger_than_the_room_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.make_room();
    let many: Vec<Record> = (0..100).flat_map(|_| every_kind()).collect();
    journal.append(&many, &[]).unwrap();
    assert!(journal.len > ROOM && journal.end == journal.len);
    journal.append(&every_kind(), &[]).unwrap();
    drop(journal);
    assert_eq!(reopened(dir.path()).records.len(), many.len() + every_kind().len());
}

#[test]
fn a_hole_before_a_whole_line_is_damage_and_no_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let begin = journal.len as usize;
    journal.append(&every_kind()[..1], &[]).unwrap();
    let end = journal.len as usize;
    journal.append(&every_kind()[1..2], &[]).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[begin..end].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let e = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(e, JournalError::Damaged { line: 2, .. }), "{e}");
}

#[test]
fn a_damaged_line_before_whole_ones_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    for record in &every_kind()[..3] {
        journal.append(std::slice::from_ref(record), &[]).unwrap();
    }
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    let third = bytes.split_inclusive(|b| *b == b'\n').take(2).map(<[u8]>::len).sum::<usize>();
    bytes[third + 12] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let e = Journal::open(dir.path()).unwrap_err();
    assert!(matches!(e, JournalError::Damaged { line: 3, .. }), "{e}");
}

#[test]
fn a_newer_format_is_refused_with_the_way_out_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let newer = line::encode(&Header { format: FORMAT + 1, writer: "migshared 9.0".to_owned() }).unwrap();
    std::fs::write(&path, &newer).unwrap();
    let e = Journal::open(dir.path()).unwrap_err().to_string();
    assert!(
        e.contains(&format!("format {}", FORMAT + 1))
            && e.contains("migshared 9.0")
            && e.contains("move the file away"),
        "{e}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), newer);
}

/// Lines as the first release wrote them.
#[test]
fn a_journal_of_format_1_is_read_and_written_anew_so_that_an_older_agent_refuses_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let lines = [
        r#"{"format":1,"writer":"migshared 0.1.0"}"#,
        r#"[{"boot":{"boot":"b"}},{"enrol":{"gpu":"GPU-1","index":0,"leaves":7}}]"#,
        r#"[{"told":{"job":812,"at":5,"text":"lease refused: 3 leaves asked for, 1 free"}}]"#,
    ];
    let line = |json: &str| format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    std::fs::write(&path, lines.map(line).concat()).unwrap();
    let (mut journal, replay) = Journal::open(dir.path()).unwrap();
    assert_eq!((replay.format, replay.records.len(), replay.told.len()), (1, 2, 1));
    journal.append(&[Record::Reshape { uid: 1000, at: 5, until: 3605 }], &[]).unwrap();
    drop(journal);
    let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    assert!(first.contains(&format!("{{\"format\":{FORMAT},")), "{first}");
    let again = reopened(dir.path());
    assert_eq!((again.format, again.records.len(), again.told), (FORMAT, 3, replay.told));
}

#[test]
fn a_second_agent_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Journal::open(dir.path()).unwrap();
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Locked(_))));
}
