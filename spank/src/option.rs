//! `--mig-share[=SPEC]`: the text a user may give, and what it means.
//!
//! The grammar is closed: what is not listed is refused, with a message that names the option and lists what is
//! allowed. Bounds are generous, the agent knows how many leaves there are.

use migshare_proto::message::Spread;
use migshare_proto::size;

/// The option's name without the dashes.
pub const NAME: &str = "mig-share";
/// One word for `--help`.
pub const ARGINFO: &str = "[N][,pack|,spread][,segment=SIZE|,segment=off]";
/// The line for `--help`.
pub const USAGE: &str = "[migshare] use several MIG instances (leaves) per node: N asks for gres mig:N, \
                         pack puts them on one GPU, spread on many, segment=SIZE lets \
                         the ranks of a step share so much host memory";
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
    /// Memory that the ranks of a step share.
    pub segment: Segment,
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
     pack, spread, and segment=SIZE or segment=off, for example --mig-share=4,pack,segment=512M"
)]
pub struct BadSpec {
    text: String,
    fault: String,
}

/// Reads what a user typed. `None` is the bare option.
pub fn parse(text: Option<&str>) -> Result<Spec, BadSpec> {
    let Some(text) = text else { return Ok(Spec::default()) };
    let bad = |fault: String| BadSpec { text: text.escape_default().to_string(), fault };
    let no_size = |text: &str| bad(format!("\"{}\" is no size like 512M or 2G", text.escape_default()));
    let mut spec = Spec::default();
    for word in text.split(',') {
        match word {
            "" => return Err(bad("an empty word".to_owned())),
            "pack" | "spread" if spec.spread != Spread::Default => {
                return Err(bad("pack and spread exclude each other and are given once".to_owned()));
            }
            "pack" => spec.spread = Spread::Pack,
            "spread" => spec.spread = Spread::Spread,
            "segment" => return Err(bad("segment without a size".to_owned())),
            word if word.starts_with("segment=") && spec.segment != Segment::Default => {
                return Err(bad("segment is given once".to_owned()));
            }
            "segment=off" => spec.segment = Segment::Off,
            number if number.bytes().all(|b| b.is_ascii_digit()) => {
                let Some(count) = number.parse().ok().filter(|n| (1..=MOST).contains(n)) else {
                    return Err(bad(format!("{number} leaves are out of range")));
                };
                if spec.count.replace(count).is_some() {
                    return Err(bad("more than one number".to_owned()));
                }
            }
            other => match other.strip_prefix("segment=") {
                Some(text) => spec.segment = Segment::Bytes(size::parse(text).ok_or_else(|| no_size(text))?),
                None => return Err(bad(format!("\"{}\" is not known", other.escape_default()))),
            },
        }
    }
    Ok(spec)
}

/// Reads what came through Slurm's environment: there the bare option arrives as `(null)` or as nothing.
pub fn parse_inherited(text: Option<&str>) -> Result<Spec, BadSpec> {
    parse(text.filter(|t| !matches!(*t, "" | "(null)")))
}
