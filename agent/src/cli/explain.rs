//! `migshare explain JOB`: what the agent decided about a job on this node, and why.

use super::{Agent, Exit, PATIENCE};
use clap::Args;
use migshare_proto::admin::{ExplainQuery, StoryEvent};
use migshare_proto::{Reply, Request};

#[derive(Args)]
pub(super) struct Options {
    /// Slurm's job id
    job: u32,
}

pub(super) fn run(agent: &Agent, options: &Options) -> anyhow::Result<Exit> {
    let job = options.job;
    let story = match agent.ask(&Request::Explain(ExplainQuery { job }), PATIENCE)? {
        Reply::Story(story) => story,
        other => anyhow::bail!("the agent answered {other:?}"),
    };
    if agent.json {
        println!("{}", serde_json::to_string_pretty(&story)?);
    } else if story.events.is_empty() {
        println!(
            "nothing is known of job {job} on this node: it asked for no leaves here, or it is long ago"
        );
    }
    if !agent.json {
        story.events.iter().for_each(|e| println!("{}", line(e)));
    }
    Ok(Exit::Well)
}

/// When, what, and the name of the reason by which metrics and `--json` know a refusal.
fn line(event: &StoryEvent) -> String {
    let reason = event.reason.map_or_else(String::new, |reason| format!(" [{}]", reason.name()));
    format!("{}  {}{reason}", utc(event.at), event.text)
}

/// Date and time in UTC. Days since the epoch to a date: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn utc(at: i64) -> String {
    let (days, seconds) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_762_084_799), "2025-11-02T11:59:59Z");
    }
}
