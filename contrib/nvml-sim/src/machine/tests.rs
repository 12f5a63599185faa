use proptest::prelude::*;

use super::*;

pub(crate) fn machine(model: &str, gi_order: GiOrder) -> Machine {
    let gpu = Gpu {
        serial: 1,
        model: model.to_owned(),
        uuid: "GPU-test".to_owned(),
        board: "1".to_owned(),
        bus: 1,
        minor: 0,
        numa_node: None,
        cpus: Vec::new(),
        gi_order,
        mig: MigMode { current: true, pending: true },
        condition: Condition::Healthy,
        holders: Vec::new(),
        processes: Vec::new(),
        instances: Vec::new(),
    };
    Machine {
        format: FORMAT,
        generation: 0,
        boot_id: String::new(),
        next_serial: 1,
        driver: "580.65.06".to_owned(),
        cuda: (13, 0),
        caps_major: 235,
        gpus: vec![gpu],
        faults: Vec::new(),
    }
}

/// The units that instances take, as the oracle counts them: one owner each.
fn units(machine: &Machine) -> Vec<Option<u32>> {
    let gpu = &machine.gpus[0];
    let mut units = vec![None; gpu.spec().unwrap().units as usize];
    for gi in &gpu.instances {
        for unit in gi.start..gi.start + gi.size {
            assert_eq!(units[unit as usize].replace(gi.serial), None, "two owners of unit {unit}");
        }
    }
    units
}

/// What the oracle says of a creation with placement: plain profiles need free units and nothing else.
fn oracle(machine: &Machine, profile: u32, start: u32) -> bool {
    let profile = machine.gpus[0].spec().unwrap().profile(profile).unwrap();
    let units = units(machine);
    (start..start + profile.units).all(|unit| units[unit as usize].is_none())
}

fn plain(model: &str) -> Vec<(u32, u32, u32)> {
    let model = models::find(model).unwrap();
    let plain = model.profiles.iter().filter(|p| !p.name.contains(['+', '-']));
    plain.flat_map(|p| p.starts.iter().map(move |start| (p.id, *start, p.units))).collect()
}

fn model_and_order() -> impl Strategy<Value = (&'static str, GiOrder)> {
    let models: Vec<&str> = models::all().iter().map(|m| m.alias.as_str()).collect();
    (prop::sample::select(models), prop::sample::select(vec![GiOrder::Direct, GiOrder::HalfSwapped]))
}

proptest! {
    #[test]
    fn creation_with_placement_agrees_with_the_oracle(
        (model, order) in model_and_order(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..60),
    ) {
        let mut m = machine(model, order);
        let places = plain(model);
        for (pick, create) in steps {
            if create {
                let (profile, start, size) = places[pick.index(places.len())];
                let allowed = oracle(&m, profile, start);
                let made = m.create_gpu_instance(0, profile, Some((start, size)));
                prop_assert_eq!(made.is_ok(), allowed);
                prop_assert!(allowed || made == Err(Code::INSUFFICIENT_RESOURCES));
            } else if !m.gpus[0].instances.is_empty() {
                let at = pick.index(m.gpus[0].instances.len());
                let serial = m.gpus[0].instances[at].serial;
                m.destroy_gpu_instance(0, serial).unwrap();
            }
            units(&m);
            let mut ids: Vec<u32> = m.gpus[0].instances.iter().map(|gi| gi.id).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), m.gpus[0].instances.len());
            prop_assert!(ids.iter().all(|id| *id <= 14), "beyond the capability minors");
        }
    }

    #[test]
    fn remaining_capacity_is_how_many_can_really_be_made(
        (model, order) in model_and_order(),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        profile in any::<prop::sample::Index>(),
    ) {
        let mut m = machine(model, order);
        let spec = m.gpus[0].spec().unwrap();
        for pick in picks {
            let p = &spec.profiles[pick.index(spec.profiles.len())];
            let _ = m.create_gpu_instance(0, p.id, None);
        }
        let profile = &spec.profiles[profile.index(spec.profiles.len())];
        let said = m.gpus[0].remaining(spec, profile);
        let mut made = 0;
        while m.create_gpu_instance(0, profile.id, None).is_ok() {
            made += 1;
        }
        prop_assert_eq!(said, made);
    }
}

#[test]
fn ids_of_both_orders_are_a_permutation_of_each_other() {
    for (units, size) in [(8, 1), (8, 2), (8, 4), (4, 1), (4, 2), (12, 3), (12, 6), (8, 8)] {
        let ids = |order: GiOrder| -> Vec<u32> {
            let mut ids: Vec<u32> =
                (0..units / size).map(|n| order.instance_id(units, n * size, size)).collect();
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids(GiOrder::Direct), ids(GiOrder::HalfSwapped));
    }
}

#[test]
fn name_uuids_are_well_formed_and_stable() {
    let uuid = name_uuid("a");
    assert_eq!(uuid, name_uuid("a"));
    assert_ne!(uuid, name_uuid("b"));
    let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(&uuid[14..15], "5");
}

#[test]
fn processes_that_ended_are_forgotten() {
    let mut m = machine("h100-sxm-80", GiOrder::Direct);
    let gi = m.create_gpu_instance(0, 19, None).unwrap();
    m.create_compute_instance(0, gi, 0, None).unwrap();
    let process = |number| Process { pid: Pid { number, started: 1 }, memory_mib: 10 };
    m.gpus[0].instances[0].compute[0].processes = vec![process(1), process(2)];
    m.gpus[0].holders = vec![
        Holder { pid: None, note: "for ever".into() },
        Holder { pid: Some(Pid { number: 2, started: 1 }), note: "until it ends".into() },
    ];
    m.forget_dead(|pid| pid.number == 1);
    assert_eq!(m.gpus[0].instances[0].used_mib(), 10);
    assert_eq!(m.gpus[0].holders.len(), 1);
}
