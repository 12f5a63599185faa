//! Which object storage target of a Lustre file system holds which bytes of a file, from its layout.
//!
//! ```text
//!   lustre.lov   plain:      head | target of stripe 0 | of stripe 1 | …          bytes go round the stripes
//!                composite:  head | component: [start, end), where its plain layout is | … | plain layouts
//! ```
//! Structures and magic numbers are those of lustre_user.h (lov_user_md_v1, lov_user_md_v3, lov_comp_md_v1). Of mirrors the
//! first one counts. What is not understood is target 0: then all targets share one window, as for other backends. The
//! layout is asked for when a file is opened; one that changes meanwhile (migration, mirroring) makes decisions worse, never
//! bytes wrong.

use std::os::fd::AsFd;

use rustix::fs::fgetxattr;

use crate::policy::TargetId;

const ATTRIBUTE: &str = "lustre.lov";
const PLAIN_V1: u32 = 0x0BD1_0BD0;
const PLAIN_V3: u32 = 0x0BD3_0BD0;
const COMPOSITE: u32 = 0x0BD6_0BD0;
/// A layout of 2000 stripes takes 48 KB; the kernel gives no attribute larger than this.
const LARGEST: usize = 64 << 10;

/// Stripes of a range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Component {
    end: u64,
    stripe: u64,
    targets: Vec<u32>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout(Vec<Component>);

impl Layout {
    /// Layout of an open file; that of one target where the backend has none. May block.
    pub(super) fn of(file: impl AsFd) -> Self {
        // Most files have a few stripes; asking twice is for those that have thousands.
        for size in [4096, LARGEST] {
            let mut bytes = vec![0; size];
            match fgetxattr(&file, ATTRIBUTE, &mut bytes[..]) {
                Ok(len) => return Self::parse(&bytes[..len]).unwrap_or_default(),
                Err(rustix::io::Errno::RANGE) => {}
                Err(_) => break,
            }
        }
        Self::default()
    }

    /// The target that holds the byte at `offset`.
    pub(super) fn target(&self, offset: u64) -> TargetId {
        let found = self.0.iter().find(|c| offset < c.end).and_then(|c| {
            let stripe = (offset / c.stripe) as usize % c.targets.len();
            c.targets.get(stripe)
        });
        TargetId(found.copied().unwrap_or(0))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if number(bytes, 0, 4)? != u64::from(COMPOSITE) {
            return Some(Self(vec![plain(bytes, u64::MAX)?]));
        }
        let mut components: Vec<Component> = Vec::new();
        for entry in 0..number(bytes, 14, 2)? as usize {
            let at = 32 + entry * 48;
            let (start, end) = (number(bytes, at + 8, 8)?, number(bytes, at + 16, 8)?);
            let (from, len) = (number(bytes, at + 24, 4)? as usize, number(bytes, at + 28, 4)? as usize);
            // Other mirrors begin at 0 again. Components without targets yet have no data either.
            if start != components.last().map_or(0, |c| c.end) {
                break;
            }
            match plain(bytes.get(from..from.checked_add(len)?)?, end) {
                Some(component) => components.push(component),
                None => break,
            }
        }
        Some(Self(components))
    }
}

/// A plain layout that ends at `end`.
fn plain(bytes: &[u8], end: u64) -> Option<Component> {
    let objects = match u32::try_from(number(bytes, 0, 4)?).ok()? {
        PLAIN_V1 => 32,
        // The name of a pool comes between.
        PLAIN_V3 => 48,
        _ => return None,
    };
    let (stripe, count) = (number(bytes, 24, 4)?, number(bytes, 28, 2)? as usize);
    let target = |i: usize| u32::try_from(number(bytes, objects + i * 24 + 20, 4)?).ok();
    let targets: Vec<u32> = (0..count).map(target).collect::<Option<_>>()?;
    (stripe > 0 && !targets.is_empty()).then_some(Component { end, stripe, targets })
}

/// A number of `len` bytes in the machine's order, as the attribute gives it to users.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let mut wide = [0; 8];
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    if cfg!(target_endian = "little") {
        wide[..len].copy_from_slice(bytes);
    } else {
        wide[8 - len..].copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(wide))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As lustre_user.h lays it out.
    fn plain_bytes(magic: u32, stripe: u32, targets: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(magic.to_ne_bytes());
        bytes.extend(1u32.to_ne_bytes());
        bytes.extend([7; 16]);
        bytes.extend(stripe.to_ne_bytes());
        bytes.extend((targets.len() as u16).to_ne_bytes());
        bytes.extend(0u16.to_ne_bytes());
        if magic == PLAIN_V3 {
            bytes.extend(*b"flash\0\0\0\0\0\0\0\0\0\0\0");
        }
        for target in targets {
            bytes.extend([9; 16]);
            bytes.extend(0u32.to_ne_bytes());
            bytes.extend(target.to_ne_bytes());
        }
        bytes
    }

    fn composite_bytes(parts: &[(u64, u64, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(COMPOSITE.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend((parts.len() as u16).to_ne_bytes());
        bytes.extend([0; 16]);
        let mut at = 32 + parts.len() * 48;
        for (start, end, blob) in parts {
            bytes.extend([0; 8]);
            bytes.extend(start.to_ne_bytes());
            bytes.extend(end.to_ne_bytes());
            bytes.extend((at as u32).to_ne_bytes());
            bytes.extend((blob.len() as u32).to_ne_bytes());
            bytes.extend([0; 16]);
            at += blob.len();
        }
        parts.iter().for_each(|(_, _, blob)| bytes.extend(blob));
        bytes
    }

    fn targets(layout: &Layout, offsets: &[u64]) -> Vec<u32> {
        offsets.iter().map(|o| layout.target(*o).0).collect()
    }

    #[test]
    fn bytes_go_round_the_stripes() {
        for magic in [PLAIN_V1, PLAIN_V3] {
            let layout = Layout::parse(&plain_bytes(magic, 1 << 20, &[4, 17, 2])).unwrap();
            let at = [0, (1 << 20) - 1, 1 << 20, 2 << 20, 3 << 20, 7 << 20];
            assert_eq!(targets(&layout, &at), [4, 4, 17, 2, 4, 17]);
        }
    }

    #[test]
    fn components_have_their_own_stripes_and_the_first_mirror_counts() {
        let (small, large) = (plain_bytes(PLAIN_V1, 1 << 20, &[3]), plain_bytes(PLAIN_V3, 4 << 20, &[5, 6]));
        let mirror = plain_bytes(PLAIN_V1, 1 << 20, &[9]);
        let parts = [(0, 1 << 20, small), (1 << 20, u64::MAX, large), (0, u64::MAX, mirror)];
        let layout = Layout::parse(&composite_bytes(&parts)).unwrap();
        assert_eq!(targets(&layout, &[0, 1 << 20, 4 << 20, 8 << 20]), [3, 5, 6, 5]);
    }

    #[test]
    fn a_component_without_targets_ends_what_is_known() {
        let parts = [(0, 1 << 20, plain_bytes(PLAIN_V1, 1 << 20, &[3])), (1 << 20, u64::MAX, vec![])];
        let layout = Layout::parse(&composite_bytes(&parts)).unwrap();
        assert_eq!(targets(&layout, &[0, 5 << 20]), [3, 0]);
    }

    #[test]
    fn a_file_of_another_file_system_is_on_one_target() {
        let layout = Layout::of(tempfile::tempfile().unwrap());
        assert_eq!(targets(&layout, &[0, 1 << 40]), [0, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..3usize, offset: u64) {
            let magic = [PLAIN_V1, PLAIN_V3, COMPOSITE][kind].to_ne_bytes();
            let head = bytes.len().min(4);
            bytes[..head].copy_from_slice(&magic[..head]);
            if let Some(layout) = Layout::parse(&bytes) {
                layout.target(offset);
            }
        }
    }
}
