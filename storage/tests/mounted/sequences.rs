//! Random sequences of operations, with changes behind the sidecar's back, policy flips, eviction and crashes, against a
//! reference model: a map from names to bytes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use super::rig::{Rig, can_mount, content, read};

/// xorshift64: the seed names the sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

const LARGEST: u64 = 1 << 20;
const POLICIES: [&str; 4] = ["cache-only", "backend-only", "orthus", "window"];

fn splice(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn step(rig: &mut Rig, model: &mut BTreeMap<String, Vec<u8>>, random: &mut Random) {
    let name = format!("f{}", random.below(6));
    let path = rig.mount().join(&name);
    let (offset, len) = (random.below(LARGEST) as usize, 1 + random.below(200_000) as usize);
    let bytes = content(len, random.below(256) as u8);
    match random.below(16) {
        0..=2 => {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
            file.write_all_at(&bytes, offset as u64).unwrap();
            splice(model.entry(name).or_default(), offset, &bytes);
        }
        3 => {
            // Another node writes.
            let behind = rig.backend().join(&name);
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(behind).unwrap();
            file.write_all_at(&bytes, offset as u64).unwrap();
            splice(model.entry(name).or_default(), offset, &bytes);
        }
        4 if model.contains_key(&name) => {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(offset as u64).unwrap();
            model.get_mut(&name).unwrap().resize(offset, 0);
        }
        5 if model.contains_key(&name) => {
            let to = format!("f{}", random.below(6));
            fs::rename(&path, rig.mount().join(&to)).unwrap();
            let bytes = model.remove(&name).unwrap();
            model.insert(to, bytes);
        }
        6 if model.contains_key(&name) && random.below(3) == 0 => {
            fs::remove_file(&path).unwrap();
            model.remove(&name);
        }
        7 => rig.set_policy(POLICIES[random.below(4) as usize]),
        8 if random.below(8) == 0 => {
            rig.crash();
            rig.start();
        }
        9 if random.below(4) == 0 => {
            // Time for files to settle, so that they are admitted and served from the cache.
            let settled = model.keys().next().cloned();
            if let Some(name) = settled.filter(|n| !model[n].is_empty()) {
                rig.warm(&rig.mount().join(name));
            }
        }
        _ => match model.get(&name) {
            Some(want) => {
                assert!(fs::read(&path).unwrap() == *want, "{name} differs through the page cache");
                assert!(read(&path) == *want, "{name} differs past the page cache");
            }
            None => assert!(fs::read(&path).is_err(), "{name} should not exist"),
        },
    }
}

fn run(seed: u64, steps: u32) {
    let mut rig = Rig::new(&[]);
    let (mut model, mut random) = (BTreeMap::new(), Random(seed));
    for at in 0..steps {
        println!("seed {seed} step {at}");
        step(&mut rig, &mut model, &mut random);
    }
    let mut names: Vec<_> =
        fs::read_dir(rig.mount()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
    for (name, want) in &model {
        assert!(
            read(&rig.mount().join(name)) == *want && fs::read(rig.backend().join(name)).unwrap() == *want
        );
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    if can_mount() {
        for seed in [1, 77, 4711] {
            run(seed, 250);
        }
    }
}
