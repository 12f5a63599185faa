use super::*;
use crate::fixture;
use crate::geometry::Units;
use std::collections::BTreeSet;

fn starts(layout: &Layout) -> Vec<(u8, u8, u8)> {
    let Layout::Custom(slots) = layout else { panic!() };
    slots.iter().map(|s| (s.slices, s.placement.start, s.placement.size)).collect()
}

#[test]
fn counts_become_places_even_where_a_greedy_order_fails() {
    let gpu = fixture::h100(0);
    // NVIDIA's guide: `-cgi 19,19,14,9` fails on an empty GPU, although the four fit.
    let layout = fit(&gpu, &[("1g.10gb", 2), ("2g.20gb", 1), ("3g.40gb", 1)]).unwrap();
    assert_eq!(layout.cut(&gpu).len(), 4);
    assert_eq!(layout.check(&gpu), Ok(()));
    assert_eq!(starts(&fit(&gpu, &[("1g.10gb", 6), ("1g.20gb", 1)]).unwrap())[6], (1, 6, 2));
    let all = fit(&gpu, &[("4g.40gb", 1), ("3g.40gb", 1)]).unwrap();
    assert_eq!(starts(&all), [(4, 0, 4), (3, 4, 4)]);
}

#[test]
fn names_of_another_driver_mean_the_profile_next_to_them() {
    let gpu = fixture::h100(0);
    assert_eq!(fit(&gpu, &[("1g.12gb", 1)]), fit(&gpu, &[("1g.10gb", 1)]));
    let error = fit(&gpu, &[("1g.5gb", 1)]).unwrap_err().to_string();
    assert!(
        error.starts_with("NVIDIA H100 80GB HBM3 has no plain profile 1g.5gb; it has 1g.10gb, 1g.20gb"),
        "{error}"
    );
    assert!(fit(&gpu, &[("1g.10gb+me", 1)]).is_err());
}

#[test]
fn what_does_not_fit_is_said_so() {
    let gpu = fixture::h100(0);
    assert!(matches!(fit(&gpu, &[("1g.20gb", 4), ("1g.10gb", 3)]), Err(Misfit::TooMany { .. })));
    // As a list the last one would take more memory than there is addresses for.
    for counts in [&[("1g.10gb", 8), ("1g.10gb", 1)][..], &[("1g.10gb", u32::MAX); 3]] {
        assert!(matches!(fit(&gpu, counts), Err(Misfit::TooMany { .. })), "{counts:?}");
    }
    let many = Layout::Custom(vec![Slot { slices: 1, placement: Placement { start: 0, size: 1 } }; 9]);
    assert!(matches!(many.check(&gpu), Err(Misfit::TooMany { .. })));
    let slot = |slices, start, size| Slot { slices, placement: Placement { start, size } };
    assert!(matches!(Layout::Custom(vec![slot(2, 6, 2)]).check(&gpu), Err(Misfit::NoPlace { .. })));
    let both = Layout::Custom(vec![slot(4, 0, 4), slot(1, 3, 1)]);
    assert!(matches!(both.check(&gpu), Err(Misfit::Overlap(..))));
}

#[test]
fn every_multiset_of_disjoint_instances_is_fitted_and_no_other() {
    for (gpu, layouts, multisets) in [(fixture::h100(0), 723, 78), (fixture::a30(0), 26, 10)] {
        let places: Vec<(&str, Units)> =
            gpu.profiles.iter().filter(|p| p.plain).flat_map(all_places).collect();
        let mut reachable: Vec<Vec<&str>> = Vec::new();
        grow(&places, 0, &mut Vec::new(), &mut reachable);
        // The number of layouts of NVIDIA's placement table, the empty one included.
        assert_eq!(reachable.len(), layouts, "{}", gpu.model);
        let distinct: BTreeSet<Vec<(&str, u32)>> = reachable.iter().map(|names| counted(names)).collect();
        assert_eq!(distinct.len(), multisets, "{}", gpu.model);
        for counts in &distinct {
            let layout = fit(&gpu, counts).unwrap();
            assert_eq!(layout.cut(&gpu).len() as u32, counts.iter().map(|c| c.1).sum::<u32>());
            let mut more = counts.clone();
            more.push(("1g.10gb", 1));
            if gpu.profile(19).is_some() {
                let mut names: Vec<&str> =
                    counts.iter().flat_map(|c| std::iter::repeat_n(c.0, c.1 as usize)).collect();
                names.push("1g.10gb");
                assert_eq!(fit(&gpu, &more).is_ok(), distinct.contains(&counted(&names)), "{more:?}");
            }
        }
    }
}

fn all_places(profile: &Profile) -> impl Iterator<Item = (&str, Units)> {
    profile.placements.iter().map(|at| (profile.name.as_str(), at.mask()))
}

fn grow<'a>(places: &[(&'a str, Units)], used: Units, names: &mut Vec<&'a str>, out: &mut Vec<Vec<&'a str>>) {
    out.push(names.clone());
    for (i, (name, mask)) in places.iter().enumerate().filter(|(_, (_, mask))| mask & used == 0) {
        names.push(name);
        grow(&places[i + 1..], used | mask, names, out);
        names.pop();
    }
}

fn counted<'a>(names: &[&'a str]) -> Vec<(&'a str, u32)> {
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    distinct.into_iter().map(|n| (n, names.iter().filter(|m| **m == n).count() as u32)).collect()
}
