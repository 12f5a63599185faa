//! `migshare status`: one table per GPU, then the leases, then what is wrong.

use super::paint::{Colour, Paint};
use super::{Agent, Exit};
use migshare_proto::size;
use migshare_proto::status::{
    Filter, GpuState, GpuStatus, LeafState, LeafStatus, LeaseStatus, OrderStatus, SegmentsStatus, Status,
};
use std::fmt::Write;

pub(super) fn run(agent: &Agent) -> anyhow::Result<Exit> {
    let status = agent.status(super::PATIENCE)?;
    if agent.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", render(&status, Paint::for_stdout()));
    }
    Ok(if status.problems.is_empty() { Exit::Well } else { Exit::Unwell })
}

fn render(status: &Status, paint: Paint) -> String {
    let Status { node, version, driver, cuda, layout, counted, usable, .. } = status;
    let mut out = format!("{}  layout {layout}  ", paint.text(Colour::Bold, &format!("node {node}")));
    let colour = if usable < counted { Colour::Red } else { Colour::Green };
    let _ = write!(out, "{}", paint.text(colour, &format!("{usable} of {counted} leaves usable")));
    let _ = writeln!(out, "  driver {driver}  CUDA {cuda}  migshared {version}");
    for gpu in &status.gpus {
        out.push('\n');
        out.push_str(&render_gpu(gpu, paint));
    }
    out.push_str(&prices(&status.gpus));
    if !status.leases.is_empty() {
        let _ = write!(
            out,
            "\n{}",
            table(&LEASE_HEADS, &status.leases.iter().map(lease).collect::<Vec<_>>(), paint)
        );
    }
    if let Some(SegmentsStatus { steps, promised, limit }) = status.segments {
        let (promised, limit) = (size::show(promised), size::show(limit));
        let _ = writeln!(out, "\nshared memory of {steps} steps: {promised} of {limit} promised");
    }
    let _ = writeln!(out, "\nisolation of tasks: {}", filter(status.isolation.filter));
    for note in &status.isolation.notes {
        let _ = writeln!(out, "{}", paint.text(Colour::Yellow, &format!("note: {note}")));
    }
    for problem in &status.problems {
        let _ = write!(out, "\n{}", paint.text(Colour::Red, &format!("problem: {problem}")));
    }
    if !status.problems.is_empty() {
        out.push('\n');
    }
    out
}

fn render_gpu(gpu: &GpuStatus, paint: Paint) -> String {
    let numa = gpu.numa.map(|n| format!("  NUMA node {n}")).unwrap_or_default();
    let title = paint.text(Colour::Bold, &format!("GPU {}", gpu.index));
    let mut out = match gpu.state {
        // Its UUID is all that is known of it, and names it to `migshare forget`.
        GpuState::Missing => format!("{title}  {}", gpu.uuid),
        _ => format!("{title}  {}  {}{numa}", gpu.model, gpu.pci_bus_id),
    };
    if let Some(text) = trouble(gpu.state) {
        let _ = write!(out, "  {}", paint.text(Colour::Red, text));
    }
    if let Some(why) = &gpu.cordon {
        let _ = write!(out, "  {}", paint.text(Colour::Yellow, &format!("cordoned: {why}")));
    }
    out.push('\n');
    if let Some(order) = &gpu.order {
        out.push_str(&ordered(order, paint));
    }
    if !gpu.leaves.is_empty() {
        out.push_str(&table(&LEAF_HEADS, &gpu.leaves.iter().map(leaf).collect::<Vec<_>>(), paint));
    }
    out
}

/// An admin's layout, and what it waits for.
fn ordered(order: &OrderStatus, paint: Paint) -> String {
    let OrderStatus { layout, now, waits } = order;
    let mut line = format!("layout {layout} ordered");
    if *now > 0 {
        let _ = write!(line, ", {now} changes under way");
    }
    if !waits.is_empty() {
        let _ = write!(line, ", {} wait:", waits.len());
    }
    let mut out = format!("  {}\n", paint.text(Colour::Yellow, &line));
    for why in waits {
        let _ = writeln!(out, "    {why}");
    }
    out
}

/// What instances cost, a line per model: Slurm has to count so many leaves for one, wherever it lies.
fn prices(gpus: &[GpuStatus]) -> String {
    let mut models: Vec<&GpuStatus> = Vec::new();
    for gpu in gpus {
        if !gpu.prices.is_empty() && !models.iter().any(|m| m.model == gpu.model) {
            models.push(gpu);
        }
    }
    let line = |gpu: &&GpuStatus| {
        let prices: Vec<String> = gpu.prices.iter().map(|p| format!("{} {}", p.profile, p.leaves)).collect();
        format!("\nprice in leaves on {}: {}\n", gpu.model, prices.join(", "))
    };
    models.iter().map(line).collect()
}

fn filter(filter: Filter) -> &'static str {
    match filter {
        Filter::Bpf => "BPF program on cgroup v2",
        Filter::Devices => "devices controller of cgroup v1",
        Filter::None => "none",
    }
}

fn trouble(state: GpuState) -> Option<&'static str> {
    match state {
        // What is told of a cordon is why.
        GpuState::Serving | GpuState::Cordoned => None,
        GpuState::MigOff => Some("MIG mode is off"),
        GpuState::Lost => Some("lost"),
        GpuState::ResetRequired => Some("must be reset"),
        GpuState::Missing => Some("missing"),
    }
}

const LEAF_HEADS: [&str; 8] = ["PLACE", "PROFILE", "MEMORY", "GI", "STATE", "JOB", "STEPS", "UUID"];

fn leaf(leaf: &LeafStatus) -> Vec<Cell> {
    let (state, colour) = match leaf.state {
        LeafState::Free => ("free", Colour::Green),
        LeafState::Leased => ("leased", Colour::Yellow),
        LeafState::Quarantined => ("quarantined", Colour::Red),
    };
    let state = leaf.note.as_ref().map_or_else(|| state.to_owned(), |note| format!("{state}: {note}"));
    let steps: Vec<String> = leaf.steps.iter().map(ToString::to_string).collect();
    vec![
        plain(leaf.placement),
        plain(&leaf.profile),
        plain(format!("{} MiB", leaf.memory_mib)),
        plain(leaf.gi),
        (state, colour),
        plain(leaf.job.map_or_else(|| "-".to_owned(), |j| j.to_string())),
        plain(if steps.is_empty() { "-".to_owned() } else { steps.join(",") }),
        plain(&leaf.uuid),
    ]
}

const LEASE_HEADS: [&str; 4] = ["JOB", "UID", "LEAVES", "STEPS"];

fn lease(lease: &LeaseStatus) -> Vec<Cell> {
    let grants: Vec<String> =
        lease.grants.iter().map(|g| format!("{} ({} of pid {})", g.step, g.leaves, g.holder)).collect();
    vec![
        plain(lease.job.job),
        plain(lease.job.uid),
        plain(lease.leaves),
        plain(if grants.is_empty() { "-".to_owned() } else { grants.join(", ") }),
    ]
}

/// A text and its colour.
pub(super) type Cell = (String, Colour);

pub(super) fn plain(value: impl ToString) -> Cell {
    (value.to_string(), Colour::Plain)
}

/// Columns of equal width, two spaces apart.
pub(super) fn table(heads: &[&str], rows: &[Vec<Cell>], paint: Paint) -> String {
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|r| r.get(at)).map(|(text, _)| text.chars().count());
        cells.chain([heads[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads: Vec<Cell> = heads.iter().map(|h| ((*h).to_owned(), Colour::Bold)).collect();
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::from(" ");
        for ((text, colour), width) in row.iter().zip(&widths) {
            let gap = " ".repeat(width.saturating_sub(text.chars().count()));
            let _ = write!(line, " {}{gap}", paint.text(*colour, text));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec![plain("1:1"), plain("1g.10gb")], vec![plain("10:2"), plain("x")]];
        let text = table(&["PLACE", "PROFILE"], &rows, Paint::none());
        assert_eq!(text, "  PLACE PROFILE\n  1:1   1g.10gb\n  10:2  x\n");
    }
}
