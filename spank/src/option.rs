//! `--mig-share[=SPEC]`: the text a user may give, and what it means.
//!
//! The grammar is closed: what is not listed is refused, with a message that names the option and lists what is
//! allowed. Bounds are generous, the agent knows how many leaves there are.

use migshare_proto::message::{Need, Shape, Spread};
use migshare_proto::size;

/// The option's name without the dashes.
pub const NAME: &str = "mig-share";
/// One word for `--help`.
pub const ARGINFO: &str = "[N][,pack|,spread][,size=Kg|,mem=SIZE][,segment=SIZE|,segment=off]";
/// The line for `--help`.
pub const USAGE: &str = "[migshare] use several MIG instances (leaves) per node: N asks for gres mig:N, \
                         pack puts them on one GPU, spread on many, size=2g or mem=30G \
                         gives each rank a larger instance made of several, segment=SIZE \
                         lets the ranks of a step share so much host memory";
/// Most leaves that a job may ask for per node: 16 GPUs of 14 slices, and far below what a marker or message holds.
pub const MOST: u32 = 224;
/// The variable by which a job's steps inherit the option, as `spank_process_env_options` in Slurm reads it.
pub const INHERITED: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_migshare_mig_share";

/// What SPEC says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spec {
    /// Leaves per node, where given.
    pub count: Option<u32>,
    /// How the leaves should lie.
    pub spread: Spread,
    /// The least that each instance must have, where a leaf is not enough.
    pub need: Option<Need>,
    /// Memory that the ranks of a step share.
    pub segment: Segment,
}

impl Spec {
    /// What of it the agent must know to choose leaves.
    pub fn shape(&self) -> Shape {
        Shape { spread: self.spread, need: self.need }
    }
}

/// Memory that the ranks of a step share on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segment {
    /// What the site gives.
    #[default]
    Default,
    /// None.
    Off,
    /// This much.
    Bytes(u64),
}

/// Why a SPEC is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--mig-share={text}: {fault}; allowed is a comma list of a number of leaves per node (1 to {MOST}), one of \
     pack, spread, one of size=Kg (compute slices) and mem=SIZE (memory) for each rank's instance, and segment=SIZE or \
     segment=off, for example --mig-share=4,pack,size=2g,segment=512M"
)]
pub struct BadSpec {
    text: String,
    fault: String,
}

/// Reads what a user typed. `None` is the bare option.
pub fn parse(text: Option<&str>) -> Result<Spec, BadSpec> {
    let Some(text) = text else { return Ok(Spec::default()) };
    let mut spec = Spec::default();
    for word in text.split(',') {
        take(&mut spec, word).map_err(|fault| BadSpec { text: text.escape_default().to_string(), fault })?;
    }
    Ok(spec)
}

/// Takes one word; what is wrong with it otherwise.
fn take(spec: &mut Spec, word: &str) -> Result<(), String> {
    match word.split_once('=') {
        None => take_plain(spec, word),
        Some(("segment", _)) if spec.segment != Segment::Default => Err("segment is given once".to_owned()),
        Some(("segment", "off")) => {
            spec.segment = Segment::Off;
            Ok(())
        }
        Some(("segment", text)) => {
            spec.segment = Segment::Bytes(memory(text)?);
            Ok(())
        }
        Some(("size" | "mem", _)) if spec.need.is_some() => {
            Err("size and mem exclude each other and are given once".to_owned())
        }
        Some(("size", text)) => {
            spec.need = Some(Need::Slices(slices(text)?));
            Ok(())
        }
        Some(("mem", text)) => {
            spec.need = Some(Need::MemoryMib(memory(text)?.div_ceil(1 << 20)));
            Ok(())
        }
        Some(_) => Err(unknown(word)),
    }
}

fn take_plain(spec: &mut Spec, word: &str) -> Result<(), String> {
    match word {
        "" => Err("an empty word".to_owned()),
        "pack" | "spread" if spec.spread != Spread::Default => {
            Err("pack and spread exclude each other and are given once".to_owned())
        }
        "pack" => {
            spec.spread = Spread::Pack;
            Ok(())
        }
        "spread" => {
            spec.spread = Spread::Spread;
            Ok(())
        }
        "segment" | "mem" => Err(format!("{word} without a size")),
        "size" => Err("size without a number of slices".to_owned()),
        number if number.bytes().all(|b| b.is_ascii_digit()) => {
            let count = number.parse().ok().filter(|n| (1..=MOST).contains(n));
            let count = count.ok_or_else(|| format!("{number} leaves are out of range"))?;
            let before = spec.count.replace(count);
            before.map_or(Ok(()), |_| Err("more than one number".to_owned()))
        }
        other => Err(unknown(other)),
    }
}

fn unknown(word: &str) -> String {
    format!("\"{}\" is not known", word.escape_default())
}

/// Bytes.
fn memory(text: &str) -> Result<u64, String> {
    size::parse(text).ok_or_else(|| format!("\"{}\" is no size like 512M or 2G", text.escape_default()))
}

/// Compute slices: `2g`. No GPU has more than eight.
fn slices(text: &str) -> Result<u8, String> {
    let digit = text.strip_suffix('g').filter(|d| matches!(d.as_bytes(), [b'1'..=b'8']));
    let fault = || format!("\"{}\" is no number of slices like 2g", text.escape_default());
    digit.and_then(|d| d.parse().ok()).ok_or_else(fault)
}

/// Reads what came through Slurm's environment: there the bare option arrives as `(null)` or as nothing.
pub fn parse_inherited(text: Option<&str>) -> Result<Spec, BadSpec> {
    parse(text.filter(|t| !matches!(*t, "" | "(null)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_in_any_order_and_all_reach_the_shape() {
        let spec = parse(Some("segment=64M,size=2g,6,pack")).unwrap();
        assert_eq!(spec.count, Some(6));
        assert_eq!(spec.shape(), Shape { spread: Spread::Pack, need: Some(Need::Slices(2)) });
        assert_eq!(spec.segment, Segment::Bytes(64 << 20));
        assert_eq!(parse(Some("mem=30G")).unwrap().need, Some(Need::MemoryMib(30 * 1024)));
        assert_eq!(parse(Some("mem=1K")).unwrap().need, Some(Need::MemoryMib(1)), "rounded up");
    }
}
