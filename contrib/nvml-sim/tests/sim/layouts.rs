//! Every layout that create calls can reach, by exhaustive search through the C ABI.
//!
//! The expected numbers are those of an enumeration of the published placement tables (plain profiles only).

use std::collections::BTreeSet;

use crate::library::{Device, INSUFFICIENT_RESOURCES, Nvml, Span};
use crate::node::{Node, on};

/// A layout: profile and start of each instance.
type Layout = BTreeSet<(u32, u32)>;

struct Search<'a> {
    nvml: &'a Nvml,
    gpu: Device,
    places: Vec<(u32, Span)>,
    layouts: BTreeSet<Layout>,
    maximal: usize,
}

impl Search<'_> {
    /// Visits the layout that stands and all that contain it.
    fn visit(&mut self, standing: &Layout) {
        if !self.layouts.insert(standing.clone()) {
            return;
        }
        let mut grew = false;
        for (profile, at) in self.places.clone() {
            match self.nvml.create_at(self.gpu, profile, at) {
                Ok(gi) => {
                    grew = true;
                    let info = self.nvml.gi_info(gi).unwrap();
                    assert_eq!((info.placement.start, info.placement.size), at);
                    let mut larger = standing.clone();
                    larger.insert((profile, at.0));
                    self.visit(&larger);
                    self.nvml.destroy(gi).unwrap();
                }
                Err(code) => assert_eq!(code, INSUFFICIENT_RESOURCES, "{profile} at {at:?} on {standing:?}"),
            }
        }
        self.maximal += usize::from(!grew);
    }
}

/// Numbers of placements, layouts (the empty one counted) and maximal layouts of the profiles with these numbers.
fn search(nvml: &Nvml, numbers: &[u32]) -> (usize, usize, usize) {
    let gpu = nvml.gpu(0).unwrap();
    let ids = numbers.iter().map(|n| nvml.profile(gpu, *n).unwrap().id);
    let places: Vec<(u32, Span)> =
        ids.flat_map(|id| nvml.placements(gpu, id).unwrap().into_iter().map(move |at| (id, at))).collect();
    let mut search = Search { nvml, gpu, places, layouts: BTreeSet::new(), maximal: 0 };
    search.visit(&Layout::new());
    assert!(nvml.instances(gpu).unwrap().is_empty());
    (search.places.len(), search.layouts.len(), search.maximal)
}

/// 1g, 2g, 3g, 4g, 7g; and 1g with double memory.
const CLASSIC: &[u32] = &[0, 1, 2, 3, 4];
const WITH_DOUBLE: &[u32] = &[0, 1, 2, 3, 4, 9];
/// 1g, 2g, 4g.
const FOUR_SLICES: &[u32] = &[0, 1, 3];

fn gpu(model: &str, order: &str) -> Node {
    Node::new(&format!("[[gpu]]\nmodel = \"{model}\"\nmig = true\ngi_order = \"{order}\""))
}

#[test]
fn seven_slices_with_double_memory_have_723_layouts_78_maximal() {
    on(
        "layouts::seven_slices_with_double_memory_have_723_layouts_78_maximal",
        || gpu("h100-sxm-80", "direct"),
        |nvml| assert_eq!(search(nvml, WITH_DOUBLE), (18, 723, 78)),
    );
}

#[test]
fn seven_slices_have_the_same_layouts_when_ids_are_half_swapped() {
    on(
        "layouts::seven_slices_have_the_same_layouts_when_ids_are_half_swapped",
        || gpu("a100-80", "half-swapped"),
        |nvml| assert_eq!(search(nvml, WITH_DOUBLE), (18, 723, 78)),
    );
}

#[test]
fn seven_slices_without_double_memory_have_298_layouts_19_maximal() {
    on(
        "layouts::seven_slices_without_double_memory_have_298_layouts_19_maximal",
        || gpu("a100-40", "direct"),
        |nvml| assert_eq!(search(nvml, CLASSIC), (14, 298, 19)),
    );
}

#[test]
fn an_a30_has_26_layouts_5_maximal() {
    on(
        "layouts::an_a30_has_26_layouts_5_maximal",
        || gpu("a30", "direct"),
        |nvml| assert_eq!(search(nvml, FOUR_SLICES), (7, 26, 5)),
    );
}

#[test]
fn an_rtx_pro_6000_has_26_layouts_5_maximal() {
    on(
        "layouts::an_rtx_pro_6000_has_26_layouts_5_maximal",
        || gpu("rtx-pro-6000", "half-swapped"),
        |nvml| assert_eq!(search(nvml, FOUR_SLICES), (7, 26, 5)),
    );
}
