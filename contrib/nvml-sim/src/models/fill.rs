//! Fills in what no public listing gives, by rules that are stated here and reported with each model.
//!
//! | missing | rule |
//! |---|---|
//! | memory of 3g, 4g | twice the double-memory 1g |
//! | memory of the whole | four times the double-memory 1g |
//! | multiprocessors of 3g, 4g, 7g | twice 2g less 2, twice 2g, four times 2g |
//! | copy engines, decoders, JPEG | one to a slice (whole: 8, 7, 7), as the H100 listing has it |
//! | optical flow | 1 to `+me` profiles and to the whole, else 0 |
//!
//! None of the rules decides where an instance can lie: placements are always in the data file.

use super::{Engines, Model, Profile, RawModel, RawProfile};

/// Turns the transcribed model into one without holes.
pub(super) fn complete(raw: RawModel) -> Model {
    let mut inferred = doubtful(&raw);
    let profiles: Vec<Profile> = raw.profiles.iter().map(|p| profile(&raw, p, &mut inferred)).collect();
    let whole_mib = profiles.iter().map(|p| p.memory_mib).max().unwrap_or(0);
    let memory_mib = raw.memory_mib.unwrap_or_else(|| {
        inferred.push(format!("memory of the whole GPU: {whole_mib} MiB, as its largest profile"));
        whole_mib
    });
    Model {
        alias: raw.alias,
        product: raw.product,
        listing: raw.listing,
        architecture: raw.architecture,
        compute_capability: raw.compute_capability,
        pci_device_id: raw.pci_device_ids.first().copied().unwrap_or(0),
        min_driver: raw.min_driver,
        memory_mib,
        slices: raw.compute_slices,
        units: raw.placement_units,
        max_instances: raw.max_instances,
        profiles,
        source: raw.source,
        notes: raw.notes,
        confidence: raw.confidence,
        inferred,
    }
}

/// Kinds of fact that the data file itself does not call measured.
fn doubtful(raw: &RawModel) -> Vec<String> {
    let c = &raw.confidence;
    let kinds = [
        ("names", Some(&c.names)),
        ("ids", Some(&c.ids)),
        ("memory", Some(&c.memory)),
        ("multiprocessors", Some(&c.sm)),
        ("engines", Some(&c.engines)),
        ("placements", Some(&c.placements)),
        ("profile enum numbers", c.nvml_enum.as_ref()),
    ];
    let known = |text: &&String| !text.starts_with("measured");
    kinds.iter().filter_map(|(kind, text)| text.filter(known).map(|t| format!("{kind}: {t}"))).collect()
}

fn profile(model: &RawModel, p: &RawProfile, inferred: &mut Vec<String>) -> Profile {
    let sibling = |slices, units| model.profiles.iter().find(|q| q.slices == slices && q.units == units);
    let whole = p.units == model.placement_units;
    let mut note = |what: &str, value: u64| inferred.push(format!("{}: {what} {value}", p.name));
    let memory_mib = p.mem.unwrap_or_else(|| {
        let double = sibling(1, 2).and_then(|q| q.mem).unwrap_or(0);
        let mib = double * if whole { 4 } else { 2 };
        note("MiB", mib);
        mib
    });
    let sm = p.sm.unwrap_or_else(|| {
        let two = sibling(2, 2).and_then(|q| q.sm).unwrap_or(0);
        let sm = if whole { two * 4 } else { two * 2 - if p.slices == 3 { 2 } else { 0 } };
        note("SM", u64::from(sm));
        sm
    });
    let mut engine = |what: &str, given: Option<u32>, rule: u32| {
        given.unwrap_or_else(|| {
            note(what, u64::from(rule));
            rule
        })
    };
    let media = whole || p.name.contains("+me");
    Profile {
        id: p.id,
        number: p.number,
        name: p.name.clone(),
        slices: p.slices,
        units: p.units,
        max: p.max,
        memory_mib,
        sm,
        engines: Engines {
            ce: engine("copy engines", p.ce, if whole { p.slices + 1 } else { p.slices }),
            dec: engine("decoders", p.dec, p.slices),
            enc: engine("encoders", p.enc, 0),
            jpeg: engine("JPEG engines", p.jpeg, p.slices),
            ofa: engine("optical flow", p.ofa, u32::from(media)),
        },
        starts: p.starts.clone(),
        rev1_compute: model.rev1_compute.contains(&p.id),
    }
}
