//! srun, sbatch and salloc: from `--mig-share` to `--gres`.
//!
//! Slurm calls back once per mention: first for the value that a job's environment hands down, then for each one on
//! an `#SBATCH` line and on the command line. Only when all are known, in `init_post_opt`, is there a decision, and
//! it is made here without any effect.

use crate::gres::{self, Asked};
use crate::option::{self, BadSpec, Spec};

/// One mention of the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    /// What it says.
    pub spec: Spec,
    /// Whether it came through the environment.
    pub inherited: bool,
}

/// What to do about `--gres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is right as it is.
    Leave,
    /// Set it to this.
    Set(String),
    /// Leave it, and tell the user this.
    Warn(String),
}

/// The option and `--gres` contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--mig-share {asks}, but --gres={gres} {says}; leave one of them out")]
pub struct Disagreement {
    asks: String,
    gres: String,
    says: String,
}

/// Reads one mention. `handed_down` is the value in the environment, `first` whether this is the first mention.
pub fn mention(text: Option<&str>, handed_down: Option<&str>, first: bool) -> Result<Mention, BadSpec> {
    let inherited = first && handed_down.is_some_and(|value| value == text.unwrap_or_default());
    let spec = if inherited { option::parse_inherited(text)? } else { option::parse(text)? };
    Ok(Mention { spec, inherited })
}

/// Decides on `--gres` from all mentions (the last counts), its present value, and whether this runs inside a job.
pub fn decide(mentions: &[Mention], gres: Option<&str>, inside: bool) -> Result<Decision, Disagreement> {
    let Some(Mention { spec, inherited }) = mentions.last().copied() else { return Ok(Decision::Leave) };
    let asked = gres::asked(gres.unwrap_or_default());
    let Some(count) = spec.count else {
        return match asked {
            // How many leaves a size takes is for the price table to say.
            Asked::NoGres if spec.need.is_some() && !inside && !inherited => Err(Disagreement {
                asks: "asks for larger instances".to_owned(),
                gres: gres.unwrap_or_default().to_owned(),
                says: "asks for none".to_owned(),
            }),
            Asked::Nothing if spec.need.is_none() && !inside => Ok(Decision::Warn(no_leaves())),
            _ => Ok(Decision::Leave),
        };
    };
    let says = match asked {
        Asked::Nothing if inherited && inside => return Ok(Decision::Leave),
        Asked::Nothing => return Ok(Decision::Set(gres::with_leaves(gres, count))),
        // An explicit --gres wins over a value that nobody typed here.
        _ if inherited => return Ok(Decision::Leave),
        Asked::Leaves(same) if same == count => return Ok(Decision::Leave),
        Asked::Leaves(other) => format!("asks for {other}"),
        Asked::NoGres => "asks for none".to_owned(),
    };
    let asks = format!("asks for {count} leaves per node");
    Err(Disagreement { asks, gres: gres.unwrap_or_default().to_owned(), says })
}

fn no_leaves() -> String {
    "--mig-share gives no number of leaves and there is no --gres=mig:N, so the job gets none; \
     write --mig-share=N"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Mention {
        mention(Some(text), None, true).unwrap()
    }

    fn handed(text: &str) -> Mention {
        mention(Some(text), Some(text), true).unwrap()
    }

    #[test]
    fn a_count_asks_for_the_gres() {
        assert_eq!(decide(&[typed("3")], None, false), Ok(Decision::Set("mig:3".to_owned())));
        let merged = decide(&[typed("3,pack")], Some("gres:gpu:1"), false);
        assert_eq!(merged, Ok(Decision::Set("gpu:1,mig:3".to_owned())));
    }

    #[test]
    fn a_typed_count_sets_a_steps_gres_inside_a_job() {
        assert_eq!(decide(&[handed("4"), typed("2")], None, true), Ok(Decision::Set("mig:2".to_owned())));
    }

    #[test]
    fn an_inherited_count_never_sets_gres_inside_a_job() {
        for gres in [None, Some("mig:1"), Some("none"), Some("gres:gpu:1")] {
            assert_eq!(decide(&[handed("4")], gres, true), Ok(Decision::Leave), "{gres:?}");
        }
    }

    #[test]
    fn a_default_from_the_users_environment_asks_outside_a_job_and_yields_to_gres() {
        assert_eq!(decide(&[handed("4")], None, false), Ok(Decision::Set("mig:4".to_owned())));
        assert_eq!(decide(&[handed("4")], Some("mig:1"), false), Ok(Decision::Leave));
    }

    #[test]
    fn the_last_mention_counts() {
        let set = decide(&[typed("5"), mention(Some("3"), None, false).unwrap()], None, false);
        assert_eq!(set, Ok(Decision::Set("mig:3".to_owned())));
    }

    #[test]
    fn agreement_is_no_disagreement() {
        assert_eq!(decide(&[typed("3")], Some("gres:mig:3"), false), Ok(Decision::Leave));
        assert_eq!(decide(&[typed("3")], Some("mig:1g.5gb:2,mig:2g.10gb:1"), false), Ok(Decision::Leave));
    }

    #[test]
    fn disagreement_is_refused_and_names_both_options() {
        for (gres, says) in [("gres:mig:2", "asks for 2"), ("none", "asks for none")] {
            for inside in [false, true] {
                let text = decide(&[typed("3")], Some(gres), inside).unwrap_err().to_string();
                assert!(
                    text.contains("--mig-share asks for 3") && text.contains(gres) && text.contains(says),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn a_typed_value_that_equals_the_inherited_one_is_still_typed() {
        let second = mention(Some("4"), Some("4"), false).unwrap();
        assert!(!second.inherited);
        assert!(decide(&[handed("4"), second], Some("mig:1"), true).is_err());
    }

    #[test]
    fn bare_is_inherited_as_null_and_as_nothing() {
        assert_eq!(mention(Some("(null)"), Some("(null)"), true).unwrap().spec, Spec::default());
        assert_eq!(mention(Some(""), Some(""), true).unwrap().spec, Spec::default());
        assert!(mention(Some("(null)"), None, true).is_err());
    }

    #[test]
    fn bare_without_any_gres_is_warned_about_where_a_job_is_made() {
        let bare = mention(None, None, true).unwrap();
        assert!(matches!(decide(&[bare], None, false), Ok(Decision::Warn(_))));
        assert_eq!(decide(&[bare], None, true), Ok(Decision::Leave));
        assert_eq!(decide(&[bare], Some("mig:2"), false), Ok(Decision::Leave));
        assert_eq!(decide(&[], None, false), Ok(Decision::Leave));
    }
}
