//! Perf Profile: read rates over queue depth, jobs and split, measured once.
//!
//! The table format is the one the authors of NetCAS publish (CSV: `iodepth,numjobs,split100,…,split0`,
//! requests per second). It is data for the `netcas` policy and for the emulated device pair; it knows no
//! policy.

use std::path::Path;

use thiserror::Error;

/// Why a profile could not be read.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The file could not be read.
    #[error("perf profile {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not a row of the table.
    #[error("perf profile line {line}: {what}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// No rows at all.
    #[error("perf profile holds no rows")]
    Empty,
}

/// One row: a queue depth and a number of jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Requests that one job keeps in flight.
    pub depth: u32,
    /// Jobs.
    pub jobs: u32,
    /// Requests per second for each split of [`Profile::splits`].
    pub rates: Vec<f64>,
}

/// The whole table.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Percent of requests at the cache, per column, falling from 100 to 0.
    pub splits: Vec<u8>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Profile {
    /// Reads a CSV file.
    ///
    /// # Errors
    /// When the file cannot be read or is not such a table.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Parses CSV text.
    ///
    /// # Errors
    /// When the text is not such a table.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let mut lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
        let (_, head) = lines.next().ok_or(ProfileError::Empty)?;
        let splits = head
            .split(',')
            .skip(2)
            .map(|name| name.trim().strip_prefix("split").and_then(|n| n.parse().ok()))
            .collect::<Option<Vec<u8>>>()
            .filter(|s| s.first() == Some(&100) && s.last() == Some(&0))
            .ok_or_else(|| bad(0, "the header must be iodepth,numjobs,split100,…,split0"))?;
        let rows = lines.map(|(i, line)| parse_row(i, line, splits.len())).collect::<Result<Vec<_>, _>>()?;
        if rows.is_empty() { Err(ProfileError::Empty) } else { Ok(Self { splits, rows }) }
    }

    /// The row of exactly this depth and number of jobs.
    pub fn row(&self, depth: u32, jobs: u32) -> Option<&Row> {
        self.rows.iter().find(|r| r.depth == depth && r.jobs == jobs)
    }

    /// Requests per second of a row at `percent`, linear between the two next columns.
    pub fn at(&self, row: &Row, percent: u8) -> f64 {
        let right = self.splits.partition_point(|s| *s > percent).min(self.splits.len() - 1);
        let (low, rate) = (self.splits[right], row.rates[right]);
        match right.checked_sub(1) {
            Some(left) if low < percent => {
                let share = f64::from(percent - low) / f64::from(self.splits[left] - low);
                rate + (row.rates[left] - rate) * share
            }
            _ => rate,
        }
    }

    /// What the published formula reaches in a row: the split A/(A+B), cut to whole percent as the published
    /// scheduler does, looked up in the table.
    pub fn formula_rate(&self, row: &Row) -> f64 {
        let percent = super::Netcas::formula_percent(row.cache_only(), row.backend_only());
        self.at(row, percent as u8)
    }

    /// Writes the table as CSV.
    pub fn to_csv(&self) -> String {
        let mut text = String::from("iodepth,numjobs");
        for split in &self.splits {
            text += &format!(",split{split}");
        }
        for row in &self.rows {
            text += &format!("\n{},{}", row.depth, row.jobs);
            for rate in &row.rates {
                text += &format!(",{rate:.0}");
            }
        }
        text + "\n"
    }
}

impl Row {
    /// Requests per second with everything at the cache.
    pub fn cache_only(&self) -> f64 {
        self.rates[0]
    }

    /// Requests per second with everything at the backend.
    pub fn backend_only(&self) -> f64 {
        self.rates[self.rates.len() - 1]
    }
}

fn bad(index: usize, what: &str) -> ProfileError {
    ProfileError::Line { line: index + 1, what: what.to_owned() }
}

fn parse_row(index: usize, line: &str, columns: usize) -> Result<Row, ProfileError> {
    let mut fields = line.split(',').map(str::trim);
    let mut count = |name: &str| {
        let value = fields.next().and_then(|f| f.parse::<u32>().ok()).filter(|v| *v > 0);
        value.ok_or_else(|| bad(index, &format!("{name} is not a positive number")))
    };
    let (depth, jobs) = (count("iodepth")?, count("numjobs")?);
    let rates = fields
        .map(|f| f.parse::<f64>().ok().filter(|r| r.is_finite() && *r > 0.0))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| bad(index, "a rate is not a positive number"))?;
    if rates.len() != columns {
        return Err(bad(index, &format!("{} rates where the header names {columns}", rates.len())));
    }
    Ok(Row { depth, jobs, rates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_writing_and_reading() {
        let text = "iodepth,numjobs,split100,split50,split0\n1,1,100,80,20\n2,1,110,90,40\n";
        let profile = Profile::parse(text).unwrap();
        assert_eq!(profile.to_csv(), text);
        assert_eq!(profile.row(2, 1).unwrap().backend_only(), 40.0);
        assert!(profile.row(3, 1).is_none());
    }

    /// Three cells of the authors' profile, with what their formula gives there (arXiv 2510.02323, artefact).
    #[test]
    fn the_published_formula_results_are_reproduced() {
        let text = "iodepth,numjobs,split100,split95,split90,split85,split0
1,1,53984,23694,13102,10501,2472
1,4,112400,94219,51606,39343,8586
1,8,108374,116800,95215,75667,16671
";
        let profile = Profile::parse(text).unwrap();
        for ((depth, jobs), published) in [((1, 1), 23_694.0), ((1, 4), 68_651.0), ((1, 8), 79_577.0)] {
            let row = profile.row(depth, jobs).unwrap();
            assert!((profile.formula_rate(row) / published - 1.0).abs() < 1e-4, "{depth}x{jobs}");
        }
    }

    #[test]
    fn bad_tables_are_refused_with_the_line() {
        for (text, says) in [
            ("", "no rows"),
            ("iodepth,numjobs,split100,split0\n", "no rows"),
            ("a,b,c\n", "line 1"),
            ("iodepth,numjobs,split100,split0\n1,1,5\n", "line 2"),
            ("iodepth,numjobs,split100,split0\n0,1,5,5\n", "iodepth"),
            ("iodepth,numjobs,split100,split0\n1,1,5,-5\n", "rate"),
            ("iodepth,numjobs,split100,split0\n1,1,NaN,5\n", "rate"),
        ] {
            let error = Profile::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?} gave {error}");
        }
    }
}
