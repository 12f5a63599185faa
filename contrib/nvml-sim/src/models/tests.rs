use super::*;

#[test]
fn every_model_has_a_source_and_one_whole_profile_at_zero() {
    assert_eq!(all().len(), 12);
    for model in all() {
        assert!(!model.source.is_empty(), "{}", model.alias);
        let whole = model.whole();
        assert_eq!(
            (whole.units, whole.starts.as_slice(), whole.max),
            (model.units, &[0][..], 1),
            "{}",
            model.alias
        );
        assert_eq!(whole.slices, model.slices, "{}", model.alias);
    }
}

#[test]
fn every_placement_lies_inside_the_gpu_and_is_aligned_to_its_size() {
    for model in all() {
        for p in &model.profiles {
            for start in &p.starts {
                assert!(start + p.units <= model.units && start % p.units == 0, "{} {}", model.alias, p.name);
            }
        }
    }
}

#[test]
fn ids_and_enum_numbers_are_unique_in_a_model() {
    for model in all() {
        for (n, p) in model.profiles.iter().enumerate() {
            let others = &model.profiles[n + 1..];
            assert!(
                others.iter().all(|q| q.id != p.id && q.number != p.number),
                "{} {}",
                model.alias,
                p.name
            );
        }
    }
}

#[test]
fn nothing_is_left_at_zero_that_a_gpu_cannot_lack() {
    for model in all() {
        for p in &model.profiles {
            assert!(p.memory_mib > 0 && p.sm > 0 && p.engines.ce > 0, "{} {}", model.alias, p.name);
            assert!(p.memory_mib <= model.memory_mib, "{} {}", model.alias, p.name);
        }
    }
}

#[test]
fn models_are_found_by_alias_product_and_listing() {
    for model in all() {
        for name in [&model.alias, &model.product, &model.listing] {
            assert_eq!(find(&name.to_uppercase()).map(|m| m.alias.as_str()), Some(model.alias.as_str()));
        }
    }
    assert!(find("NVIDIA T4").is_none());
}

#[test]
fn measured_models_are_not_marked_inferred_and_b200_is() {
    assert!(find("h100-nvl-94").unwrap().inferred.iter().all(|line| line.starts_with("engines")));
    let b200 = &find("b200").unwrap().inferred;
    assert!(b200.iter().any(|line| line.starts_with("placements: inferred")));
    assert!(b200.iter().any(|line| line == "7g.180gb: MiB 181248"), "{b200:?}");
}
