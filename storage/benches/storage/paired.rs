//! Things measured in turns, and what their ratios say.
//!
//! In each block every arm runs once; the order moves on by one from block to block, so that a drift of the machine hits
//! all alike. A ratio is taken within a block, and the median of these ratios counts.

use anyhow::Result;

/// `blocks` times every arm once; returns the values of each arm, block by block.
pub(crate) fn blocks<A>(
    blocks: usize,
    arms: &[A],
    mut measure: impl FnMut(&A) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::with_capacity(blocks); arms.len()];
    for block in 0..blocks {
        for turn in 0..arms.len() {
            let arm = (block + turn) % arms.len();
            values[arm].push(measure(&arms[arm])?);
        }
    }
    Ok(values)
}

/// Median of the ratios of the blocks.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(a, b)| a / b.max(f64::MIN_POSITIVE)).collect())
}

/// The middle value; the mean of the two middle ones.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
