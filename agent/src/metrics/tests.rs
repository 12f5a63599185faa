use super::*;

const STATUS: &str = include_str!("../../proto/tests/golden/reply/status.json");

const SEGMENTS: migshare_proto::status::SegmentsStatus =
    migshare_proto::status::SegmentsStatus { steps: 1, promised: 256 << 20, limit: 1 << 30 };

fn status() -> Status {
    match serde_json::from_str(STATUS).unwrap() {
        migshare_proto::Reply::Status(status) => Status { segments: Some(SEGMENTS), ..*status },
        other => panic!("{other:?}"),
    }
}

fn text(meters: &Meters) -> String {
    String::from_utf8(meters.render(&status()).unwrap()).unwrap()
}

#[test]
fn every_metric_of_the_table_appears_and_no_other() {
    let meters = Meters::new().unwrap();
    meters.nvml("nvmlGpuInstanceDestroy", 19, Duration::from_millis(3));
    meters.reconfigured("make", true, Duration::from_millis(3));
    meters.refused(Reason::NoLeaves);
    meters.rejected("permission", 1);
    meters.renamed("minor");
    meters.hangs(Some("nvmlGpuInstanceDestroy"));
    meters.journal(true, Duration::from_millis(1));
    meters.request("open_lease", Duration::from_millis(1));
    let text = text(&meters);
    let mut shown: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let table: Vec<&str> = table::TABLE.iter().map(|r| r.name).collect();
    assert!(table.is_sorted());
    shown.sort_unstable();
    assert_eq!(shown, table);
    assert!(text.contains("migshare_refusals_total{reason=\"no_leaves\"} 1"), "{text}");
    assert!(
        text.contains("migshare_nvml_errors_total{call=\"nvmlGpuInstanceDestroy\",code=\"19\"} 1"),
        "{text}"
    );
}

#[test]
fn leaves_carry_the_labels_of_dcgm_exporter() {
    let text = text(&Meters::new().unwrap());
    let leaf = text.lines().find(|l| l.starts_with("migshare_leaf_info")).unwrap();
    assert!(leaf.contains("GPU_I_ID=\"10\"") && leaf.contains("GPU_I_PROFILE=\"1g.10gb\""), "{leaf}");
    assert!(leaf.contains("gpu=\"0\"") && leaf.contains("leaf=\"0/3:1\""), "{leaf}");
    let job = text.lines().find(|l| l.starts_with("migshare_lease_job_info")).unwrap();
    assert!(job.contains("job_id=\"812\""), "{job}");
}

#[test]
fn enumerations_that_end_are_no_errors() {
    let meters = Meters::new().unwrap();
    for code in [0, 2, 3, 6] {
        meters.nvml("nvmlDeviceGetGpuInstanceProfileInfoV", code, Duration::from_micros(5));
    }
    assert!(!text(&meters).contains("migshare_nvml_errors_total{"));
}
