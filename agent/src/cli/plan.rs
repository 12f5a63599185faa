//! `migshare plan` and `migshare apply`: a change of layout, shown and done. Idle places change at once; the agent finishes the others
//! as their jobs end, whether this command still runs or not.

use super::paint::Paint;
use super::status::{Cell, plain, table};
use super::{Agent, Exit, PATIENCE, target};
use clap::Args;
use migshare_proto::admin::{ApplyOrder, GpuTarget, MoveStatus, Order, PlanQuery, PlanReply};
use migshare_proto::{Reply, Request};
use std::time::{Duration, Instant};

#[derive(Args)]
pub(super) struct PlanOptions {
    /// A layout for all GPUs (configured, uniform, full-memory, 2g.20gb:3,1g.10gb:1, 3g@4:4+1g@0:1), or pairs of
    /// gpu=N layout=LAYOUT, or a file of such pairs, or a mig-parted configuration FILE.yaml#NAME
    #[arg(required = true, value_name = "TARGET")]
    target: Vec<String>,
}

#[derive(Args)]
pub(super) struct ApplyOptions {
    #[command(flatten)]
    what: PlanOptions,
    /// Change nothing unless all of it can be done now
    #[arg(long)]
    now: bool,
    /// Show the plan and change nothing, as `migshare plan` does
    #[arg(long)]
    dry_run: bool,
    /// Seconds to follow the progress for
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

/// How long a change takes on hardware where this agent has not made any yet (NVIDIA's DRA driver, nvlib.go).
const EXPECTED_MS: u32 = 1000;
/// Pause between two looks at the progress.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn plan(agent: &Agent, options: &PlanOptions) -> anyhow::Result<Exit> {
    let target = target::parse(&options.target, &agent.status(PATIENCE)?)?;
    show(&ask(agent, &target)?, agent.json)?;
    Ok(Exit::Well)
}

pub(super) fn apply(agent: &Agent, options: &ApplyOptions) -> anyhow::Result<Exit> {
    let target = target::parse(&options.what.target, &agent.status(PATIENCE)?)?;
    let plan = ask(agent, &target)?;
    let json = agent.json;
    if options.dry_run {
        show(&plan, json)?;
        return Ok(Exit::Well);
    }
    if !json {
        show(&plan, json)?;
    }
    agent.order(Order::Apply(ApplyOrder { target: target.clone(), now: options.now }), false)?;
    let left = follow(agent, &target, &plan, options, json)?;
    let problems = agent.status(PATIENCE)?.problems;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome(&plan, &left, &problems))?);
    } else if left.deferred != plan.deferred && !left.deferred.is_empty() {
        print!("{}", render(&PlanReply { moves: Vec::new(), ..left.clone() }, Paint::for_stdout()));
    }
    problems.iter().for_each(|p| eprintln!("problem: {p}"));
    if left.ordered == Some(false) {
        say_what_was_undone(&left, target.len());
        return Ok(Exit::Failed);
    }
    if !left.moves.is_empty() {
        eprintln!("migshare: {} changes are not done yet; the agent goes on trying", left.moves.len());
    }
    Ok(match (left.moves.is_empty(), problems.is_empty()) {
        (_, false) => Exit::Unwell,
        (false, true) => Exit::Failed,
        (true, true) if left.deferred.is_empty() => Exit::Well,
        (true, true) => Exit::Deferred,
    })
}

/// What came of an order, for a script.
fn outcome(plan: &PlanReply, left: &PlanReply, problems: &[String]) -> serde_json::Value {
    let done: Vec<&MoveStatus> = plan.moves.iter().filter(|m| is_done(m, left)).collect();
    serde_json::json!({
        "done": done, "moves": left.moves, "deferred": left.deferred, "ordered": left.ordered,
        "rolled_back": left.rolled_back, "problems": problems,
    })
}

fn is_done(m: &MoveStatus, left: &PlanReply) -> bool {
    !left.moves.iter().any(|other| other.is_same_step(m))
}

fn ask(agent: &Agent, target: &[GpuTarget]) -> anyhow::Result<PlanReply> {
    match agent.ask(&Request::Plan(PlanQuery { target: target.to_vec() }), PATIENCE)? {
        Reply::Plan(plan) => Ok(plan),
        other => anyhow::bail!("the agent answered {other:?}"),
    }
}

/// Follows the moves until none is left that could be done now, and returns what is left.
fn follow(
    agent: &Agent,
    target: &[GpuTarget],
    plan: &PlanReply,
    options: &ApplyOptions,
    json: bool,
) -> anyhow::Result<PlanReply> {
    let deadline = Instant::now() + Duration::from_secs(options.wait);
    let mut todo = plan.moves.clone();
    loop {
        let left = ask(agent, target)?;
        if !json {
            todo.iter().filter(|m| is_done(m, &left)).for_each(|m| println!("done: {}", in_words(m)));
        }
        todo.retain(|m| !is_done(m, &left));
        if is_over(&left) || Instant::now() >= deadline {
            return Ok(left);
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether nothing more will come of an order: all is done but for the GPUs that went back, or another order replaced it.
fn is_over(left: &PlanReply) -> bool {
    let went_back = |m: &MoveStatus| left.rolled_back.iter().any(|r| r.gpu == m.gpu);
    let replaced = left.ordered == Some(false) && left.rolled_back.is_empty();
    replaced || left.moves.iter().all(went_back)
}

/// An order holds for each GPU by itself: those that could be changed stay so.
fn say_what_was_undone(left: &PlanReply, ordered: usize) {
    for undone in &left.rolled_back {
        eprintln!("migshare: gpu {} was rolled back to the layout before: {}", undone.gpu, undone.why);
    }
    let others = ordered.saturating_sub(left.rolled_back.len());
    if left.rolled_back.is_empty() {
        eprintln!(
            "migshare: another order replaced this one, or it was rolled back before the agent was started again"
        );
    } else if others > 0 {
        eprintln!("migshare: the order holds for the other {others}");
    }
}

fn show(plan: &PlanReply, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(plan)?);
        return Ok(());
    }
    print!("{}", render(plan, Paint::for_stdout()));
    Ok(())
}

fn render(plan: &PlanReply, paint: Paint) -> String {
    if plan.moves.is_empty() && plan.deferred.is_empty() {
        return "nothing to change\n".to_owned();
    }
    let mut out = String::new();
    if !plan.moves.is_empty() {
        let seconds: f64 = plan.moves.iter().map(seconds).sum();
        out.push_str(&format!("now, on idle places only (about {seconds:.1} s in all):\n"));
        let rows: Vec<Vec<Cell>> = plan.moves.iter().map(row).collect();
        out.push_str(&table(&["CHANGE", "GPU", "PLACE", "PROFILE", "TAKES"], &rows, paint));
    }
    if !plan.deferred.is_empty() {
        out.push_str("later, by itself:\n");
        let rows: Vec<Vec<Cell>> = plan
            .deferred
            .iter()
            .map(|d| {
                let or_dash = |v: Option<String>| plain(v.unwrap_or_else(|| "-".to_owned()));
                vec![
                    or_dash(d.gpu.map(|g| g.to_string())),
                    or_dash(d.placement.map(|p| p.to_string())),
                    plain(&d.why),
                ]
            })
            .collect();
        out.push_str(&table(&["GPU", "PLACE", "WAITS FOR"], &rows, paint));
    }
    out
}

fn row(m: &MoveStatus) -> Vec<Cell> {
    let takes = format!("{:.1} s", seconds(m));
    let change = if m.make { "make" } else { "destroy" };
    vec![plain(change), plain(m.gpu), plain(m.placement), plain(&m.profile), plain(takes)]
}

fn seconds(m: &MoveStatus) -> f64 {
    f64::from(m.expected_ms.unwrap_or(EXPECTED_MS)) / 1000.0
}

fn in_words(m: &MoveStatus) -> String {
    let verb = if m.make { "made" } else { "destroyed" };
    format!("{verb} {} at {} on gpu {}", m.profile, m.placement, m.gpu)
}
