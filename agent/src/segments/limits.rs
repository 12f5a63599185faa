//! How much memory segments may have: the site's word, in agent.toml.
//!
//! ```toml
//! [segments]
//! default = "256M"     # of a step with two or more leaves that says nothing; "off" for none
//! max = "8G"           # of one step, whatever it asks for
//! total = "64G"        # of all steps on the node together; not given: half of the node's memory
//! per_user = "32G"     # of all steps of one user on the node; not given: half of total, and max at least
//! huge_pages = "try"   # from the pool of huge pages where it has enough, otherwise ordinary ones; not given: "never"
//! ```
//! The sizes bound addresses, not memory in use: a page is taken when a rank first writes to it, and is charged to the
//! cgroup of that rank's job. Half of the memory is what tmpfs(5) takes as its own default for the same reason.

use migshare_proto::size;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Segments are whole huge pages, so that each can be one where the system gives them for shared memory.
pub const GRAIN: u64 = 2 << 20;
/// What is taken for the node's memory where the kernel does not tell.
const UNKNOWN_MEMORY: u64 = 4 << 30;

/// A number of bytes that is written like `256M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// What a step gets that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// No segment.
    Off,
    /// A segment of this size, where it has two or more leaves.
    Size(Bytes),
}

/// The site's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// What a step with two or more leaves gets that says nothing.
    pub default: Unasked,
    /// Most bytes of one segment.
    pub max: Bytes,
    /// Most bytes of all segments together.
    pub total: Option<Bytes>,
    /// Most bytes of all segments of one user, so that nobody takes the others' share.
    pub per_user: Option<Bytes>,
    /// Whether their pages come from the node's pool of huge pages.
    pub huge_pages: HugePages,
}

/// Whether pages come from the pool that hugetlbfs serves (Documentation/admin-guide/mm/hugetlbpage.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// Ordinary pages, which the kernel may merge.
    #[default]
    Never,
    /// Where enough of them are free.
    Try,
}

impl Default for Limits {
    fn default() -> Limits {
        let default = Unasked::Size(Bytes(256 << 20));
        Limits { default, max: Bytes(8 << 30), total: None, per_user: None, huge_pages: HugePages::Never }
    }
}

impl Limits {
    /// Most bytes of all segments together.
    pub fn total(&self) -> u64 {
        self.total.map_or_else(|| memory() / 2, |bytes| bytes.0)
    }

    /// Most bytes of all segments of one user.
    pub fn per_user(&self) -> u64 {
        self.per_user.map_or_else(|| (self.total() / 2).max(self.max.0), |bytes| bytes.0)
    }

    /// What is wrong with the values, with the key that has it.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        if let Unasked::Size(Bytes(default)) = self.default
            && default > self.max.0
        {
            let (default, max) = (size::show(default), size::show(self.max.0));
            return Some(("segments.default", format!("{default} is more than segments.max = {max}")));
        }
        if let Some(Bytes(per_user)) = self.per_user
            && per_user < self.max.0
        {
            let (per_user, max) = (size::show(per_user), size::show(self.max.0));
            return Some(("segments.per_user", format!("{per_user} is less than segments.max = {max}")));
        }
        let total = self.total?.0;
        (total < self.max.0).then(|| {
            let (total, max) = (size::show(total), size::show(self.max.0));
            ("segments.total", format!("{total} is less than segments.max = {max}"))
        })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        let size = size::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("\"{text}\" is no size: a number with K, M, G or T, like \"256M\""))
        })?;
        Ok(Bytes(size))
    }
}

impl<'de> Deserialize<'de> for Unasked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Unasked, D::Error> {
        let text = String::deserialize(from)?;
        match (text.as_str(), size::parse(&text)) {
            ("off", _) => Ok(Unasked::Off),
            (_, Some(size)) => Ok(Unasked::Size(Bytes(size))),
            _ => Err(D::Error::custom(format!("\"{text}\" is neither \"off\" nor a size like \"256M\""))),
        }
    }
}

/// The node's memory in bytes, by `MemTotal` of proc(5).
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.map_or(UNKNOWN_MEMORY, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Limits, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let limits = read("default = \"64M\"\nmax = \"1G\"\ntotal = \"4G\"\n").unwrap();
        assert_eq!(limits.default, Unasked::Size(Bytes(64 << 20)));
        assert_eq!((limits.max, limits.total()), (Bytes(1 << 30), 4 << 30));
        assert_eq!(read("default = \"off\"\n").unwrap().default, Unasked::Off);
        assert!(limits.fault().is_none() && Limits::default().fault().is_none());
    }

    #[test]
    fn without_a_total_it_is_half_of_the_memory() {
        assert_eq!(Limits::default().total(), memory() / 2);
    }

    #[test]
    fn a_user_has_half_of_all_and_what_one_step_may_have_at_least() {
        assert_eq!(read("max = \"1G\"\ntotal = \"4G\"\n").unwrap().per_user(), 2 << 30);
        assert_eq!(read("max = \"3G\"\ntotal = \"4G\"\n").unwrap().per_user(), 3 << 30);
        assert_eq!(read("max = \"1G\"\nper_user = \"1G\"\n").unwrap().per_user(), 1 << 30);
    }

    #[test]
    fn huge_pages_are_asked_for_by_name() {
        assert_eq!(read("").unwrap().huge_pages, HugePages::Never);
        assert_eq!(read("huge_pages = \"try\"\n").unwrap().huge_pages, HugePages::Try);
        let said = read("huge_pages = \"always\"\n").unwrap_err();
        assert!(said.contains("always") && said.contains("never") && said.contains("try"), "{said}");
    }

    #[test]
    fn what_is_no_size_is_named() {
        assert!(read("default = \"lots\"\n").unwrap_err().contains("\"lots\" is neither"));
        assert!(read("max = \"1.5G\"\n").unwrap_err().contains("\"1.5G\" is no size"));
        assert!(read("maximum = \"1G\"\n").unwrap_err().contains("maximum"));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let fault = |text| read(text).unwrap().fault().map(|(key, _)| key);
        assert_eq!(fault("default = \"2G\"\nmax = \"1G\"\n"), Some("segments.default"));
        assert_eq!(fault("max = \"2G\"\ntotal = \"1G\"\n"), Some("segments.total"));
        assert_eq!(fault("max = \"2G\"\nper_user = \"1G\"\n"), Some("segments.per_user"));
    }
}
