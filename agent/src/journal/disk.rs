//! Records as they are on disk, and the only place where they turn into the policy's records and back. The two are kept apart
//! so that the policy can change its words without changing what older files mean.

use migshare_policy::layout::{Layout, Slot};
use migshare_policy::record::{Cause, Ending, Grant, Holder, LeafId, Pick, Place, Record};
use migshare_proto::message::Reason;
use migshare_proto::{GpuUuid, JobKey, Placement, StepId};
use serde::{Deserialize, Serialize};

/// An entry of the journal. Field by field as [`Record`] and [`Told`], where each is described.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are those of the policy's record of the same name")]
pub enum DiskRecord {
    Boot {
        boot: String,
    },
    Enrol {
        gpu: GpuUuid,
        index: u32,
        leaves: u32,
    },
    Forget {
        gpu: GpuUuid,
    },
    Reserve {
        leaf: DiskLeaf,
        profile: u32,
    },
    Remove {
        leaf: DiskLeaf,
    },
    Stand {
        leaf: DiskLeaf,
        profile: u32,
    },
    Gone {
        leaf: DiskLeaf,
    },
    Generation {
        leaf: DiskLeaf,
    },
    Open {
        job: JobKey,
        leaves: Vec<DiskPick>,
        charged: u32,
        at: i64,
    },
    Close {
        job: JobKey,
        how: DiskEnding,
    },
    Grant {
        job: JobKey,
        step: StepId,
        grant: DiskGrant,
    },
    Release {
        job: JobKey,
        step: StepId,
    },
    Quarantine {
        gpu: GpuUuid,
        place: Placement,
        cause: DiskCause,
        note: String,
    },
    Unquarantine {
        gpu: GpuUuid,
        place: Placement,
    },
    Cordon {
        gpu: GpuUuid,
        note: String,
        #[serde(default)]
        at: i64,
    },
    Uncordon {
        gpu: GpuUuid,
    },
    Target {
        gpu: GpuUuid,
        layout: Option<DiskLayout>,
    },
    Reshape {
        uid: u32,
        at: i64,
        until: i64,
    },
    Told {
        job: u32,
        at: i64,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What an entry of the journal means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A change of the durable truth.
    Record(Record),
    /// A decision and its reason, which changes nothing.
    Told(Told),
}

/// A decision about a job, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Slurm's job id.
    pub job: u32,
    /// When, seconds since the epoch.
    pub at: i64,
    /// What, and why.
    pub text: String,
    /// The kind of refusal, where it was one.
    pub reason: Option<Reason>,
}

impl From<&Told> for DiskRecord {
    fn from(told: &Told) -> DiskRecord {
        let Told { job, at, text, reason } = told.clone();
        DiskRecord::Told { job, at, text, reason: reason.map(Reason::name) }
    }
}

/// One making of an instance at a place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskLeaf {
    gpu: GpuUuid,
    place: Placement,
    generation: u64,
}

/// A leaf of a lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPick {
    leaf: DiskLeaf,
    profile: u32,
}

/// A step's part of a lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskGrant {
    leaves: Vec<DiskLeaf>,
    tasks: Vec<Vec<u32>>,
    shared: u32,
    pid: u32,
    born: u64,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the policy's enum")]
pub enum DiskEnding {
    Epilog,
    Reaper,
    Admin,
    Reconcile,
}

/// Why a place is kept out of use.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the policy's enum")]
pub enum DiskCause {
    Foreign,
    Partial,
    Failed,
    Admin,
}

/// How a GPU is cut.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the policy's enum")]
pub enum DiskLayout {
    Uniform,
    FullMemory,
    Custom(Vec<DiskSlot>),
}

/// An instance of a custom layout.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSlot {
    slices: u8,
    place: Placement,
}

impl From<&Record> for DiskRecord {
    fn from(record: &Record) -> DiskRecord {
        use DiskRecord as D;
        match record.clone() {
            Record::Boot { boot } => D::Boot { boot },
            Record::Enrol { gpu, index, leaves } => D::Enrol { gpu, index, leaves },
            Record::Forget { gpu } => D::Forget { gpu },
            Record::Reserve { leaf, profile } => D::Reserve { leaf: leaf.into(), profile },
            Record::Remove { leaf } => D::Remove { leaf: leaf.into() },
            Record::Stand { leaf, profile } => D::Stand { leaf: leaf.into(), profile },
            Record::Gone { leaf } => D::Gone { leaf: leaf.into() },
            Record::Generation { leaf } => D::Generation { leaf: leaf.into() },
            Record::Open { job, leaves, charged, at } => D::Open { job, leaves: all(leaves), charged, at },
            Record::Reshape { uid, at, until } => D::Reshape { uid, at, until },
            Record::Close { job, how } => D::Close { job, how: how.into() },
            Record::Grant { job, step, grant } => D::Grant { job, step, grant: grant.into() },
            Record::Release { job, step } => D::Release { job, step },
            Record::Quarantine { place: Place { gpu, placement }, cause, note } => {
                D::Quarantine { gpu, place: placement, cause: cause.into(), note }
            }
            Record::Unquarantine { place: Place { gpu, placement } } => {
                D::Unquarantine { gpu, place: placement }
            }
            Record::Cordon { gpu, note, at } => D::Cordon { gpu, note, at },
            Record::Uncordon { gpu } => D::Uncordon { gpu },
            Record::Target { gpu, layout } => D::Target { gpu, layout: layout.map(Into::into) },
        }
    }
}

impl From<DiskRecord> for Entry {
    fn from(record: DiskRecord) -> Entry {
        use DiskRecord as D;
        Entry::Record(match record {
            D::Told { job, at, text, reason } => {
                let reason = reason.as_deref().map(Reason::of_name);
                return Entry::Told(Told { job, at, text, reason });
            }
            D::Reshape { uid, at, until } => Record::Reshape { uid, at, until },
            D::Boot { boot } => Record::Boot { boot },
            D::Enrol { gpu, index, leaves } => Record::Enrol { gpu, index, leaves },
            D::Forget { gpu } => Record::Forget { gpu },
            D::Reserve { leaf, profile } => Record::Reserve { leaf: leaf.into(), profile },
            D::Remove { leaf } => Record::Remove { leaf: leaf.into() },
            D::Stand { leaf, profile } => Record::Stand { leaf: leaf.into(), profile },
            D::Gone { leaf } => Record::Gone { leaf: leaf.into() },
            D::Generation { leaf } => Record::Generation { leaf: leaf.into() },
            D::Open { job, leaves, charged, at } => Record::Open { job, leaves: all(leaves), charged, at },
            D::Close { job, how } => Record::Close { job, how: how.into() },
            D::Grant { job, step, grant } => Record::Grant { job, step, grant: grant.into() },
            D::Release { job, step } => Record::Release { job, step },
            D::Quarantine { gpu, place, cause, note } => {
                Record::Quarantine { place: Place { gpu, placement: place }, cause: cause.into(), note }
            }
            D::Unquarantine { gpu, place } => Record::Unquarantine { place: Place { gpu, placement: place } },
            D::Cordon { gpu, note, at } => Record::Cordon { gpu, note, at },
            D::Uncordon { gpu } => Record::Uncordon { gpu },
            D::Target { gpu, layout } => Record::Target { gpu, layout: layout.map(Into::into) },
        })
    }
}

fn all<A: Into<B>, B>(from: Vec<A>) -> Vec<B> {
    from.into_iter().map(Into::into).collect()
}

impl From<LeafId> for DiskLeaf {
    fn from(LeafId { place: Place { gpu, placement }, generation }: LeafId) -> DiskLeaf {
        DiskLeaf { gpu, place: placement, generation }
    }
}

impl From<DiskLeaf> for LeafId {
    fn from(DiskLeaf { gpu, place, generation }: DiskLeaf) -> LeafId {
        LeafId { place: Place { gpu, placement: place }, generation }
    }
}

impl From<Pick> for DiskPick {
    fn from(pick: Pick) -> DiskPick {
        DiskPick { leaf: pick.leaf.into(), profile: pick.profile }
    }
}

impl From<DiskPick> for Pick {
    fn from(pick: DiskPick) -> Pick {
        Pick { leaf: pick.leaf.into(), profile: pick.profile }
    }
}

impl From<Grant> for DiskGrant {
    fn from(Grant { leaves, tasks, shared, holder: Holder { pid, born } }: Grant) -> DiskGrant {
        DiskGrant { leaves: all(leaves), tasks, shared, pid, born }
    }
}

impl From<DiskGrant> for Grant {
    fn from(DiskGrant { leaves, tasks, shared, pid, born }: DiskGrant) -> Grant {
        Grant { leaves: all(leaves), tasks, shared, holder: Holder { pid, born } }
    }
}

impl From<Layout> for DiskLayout {
    fn from(layout: Layout) -> DiskLayout {
        match layout {
            Layout::Uniform => DiskLayout::Uniform,
            Layout::FullMemory => DiskLayout::FullMemory,
            Layout::Custom(slots) => DiskLayout::Custom(
                slots.into_iter().map(|s| DiskSlot { slices: s.slices, place: s.placement }).collect(),
            ),
        }
    }
}

impl From<DiskLayout> for Layout {
    fn from(layout: DiskLayout) -> Layout {
        match layout {
            DiskLayout::Uniform => Layout::Uniform,
            DiskLayout::FullMemory => Layout::FullMemory,
            DiskLayout::Custom(slots) => Layout::Custom(
                slots.into_iter().map(|s| Slot { slices: s.slices, placement: s.place }).collect(),
            ),
        }
    }
}

/// Two enums of the same names, both ways.
macro_rules! same_names {
    ($ours:ident, $theirs:ident: $($name:ident),*) => {
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> $ours {
                match value { $($theirs::$name => $ours::$name),* }
            }
        }
        impl From<$ours> for $theirs {
            fn from(value: $ours) -> $theirs {
                match value { $($ours::$name => $theirs::$name),* }
            }
        }
    };
}

same_names!(DiskEnding, Ending: Epilog, Reaper, Admin, Reconcile);
same_names!(DiskCause, Cause: Foreign, Partial, Failed, Admin);
