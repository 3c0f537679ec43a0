//! The API's answers as text for people. Pure: values in, text out.

mod locks;
mod traffic;

pub use locks::{lock, locks};
pub use traffic::{routes, upstream, upstreams};

use super::{
    duration::show_ms,
    table::{Cell, Column, Table},
};
use crate::out::{Paint, Tone};
use ringmaster_common::{
    Timestamp,
    cluster::{Cluster, Liveness, NodeInfo, NodeStatus, Role},
    event::{AuditEntry, EventBatch},
    operation::{Operation, OperationStatus},
    plan::{Impact, LockImpact, Plan},
    setting::Setting,
    telemetry::troubles,
};
use std::fmt::Write as _;

/// The maximum age of a measurement that is shown without a warning.
const FRESH_MS: u64 = 2_000;

/// Without a quorum nothing can be agreed on, so the members' statuses may be out of date.
fn no_quorum(cluster: &Cluster) -> String {
    format!(
        "none: {} answer node {}, and writes need {}; the node states below may be \
         out of date; docs/recovery.md has the ways back",
        cluster.quorum.answering_in_words(),
        cluster.answered_by,
        cluster.quorum.requirement()
    )
}

pub fn cluster(cluster: &Cluster, paint: Paint) -> String {
    let strong = |text: &str| paint.apply(Tone::Strong, text);
    let name_of = |id| cluster.nodes.iter().find(|info| info.node.id == id).map(|info| &info.node.name);
    let leader = match cluster.leader {
        Some(id) => {
            format!("node {id}{}", name_of(id).map(|name| format!(" ({name})")).unwrap_or_default())
        }
        None if cluster.quorum.has => paint.apply(Tone::Bad, "none; writes fail until one is elected"),
        None => paint.apply(Tone::Bad, &no_quorum(cluster)),
    };
    let demo = if cluster.demo { ", a demo" } else { "" };
    let mut text = String::new();
    line(&mut text, format!("{}   {} ({}){demo}", strong("Cluster"), cluster.name, cluster.id));
    line(&mut text, format!("{}    {leader}", strong("Leader")));
    line(
        &mut text,
        format!(
            "{}  {} in term {}, reported by node {}",
            strong("Revision"),
            cluster.revision,
            cluster.term,
            cluster.answered_by
        ),
    );
    let tolerated = match cluster.failures_tolerated {
        _ if !cluster.quorum.has => paint.apply(Tone::Bad, "lost"),
        0 => "tolerates no voter failure".to_owned(),
        1 => "tolerates 1 voter failure".to_owned(),
        count => format!("tolerates {count} voter failures"),
    };
    let change = match cluster.quorum.joint.is_empty() {
        true => String::new(),
        false => {
            format!("; a change of voters is under way, and writes need {}", cluster.quorum.requirement())
        }
    };
    line(&mut text, format!("{}    {tolerated}{change}", strong("Quorum")));
    text.push('\n');

    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Left("NAME"),
        Column::Left("STATUS"),
        Column::Left("ROLE"),
        Column::Left("ZONE"),
        Column::Right("LAG"),
        Column::Right("RTT"),
        Column::Left("SAFE TO STOP"),
    ]);
    for info in &cluster.nodes {
        table.row([
            info.node.id.to_string().into(),
            info.node.name.as_str().into(),
            status(info.node.status),
            role(info),
            info.node.zone.as_str().into(),
            Cell::maybe(info.lag),
            Cell::maybe(info.rtt_us.map(microseconds)),
            Cell::toned(
                info.can_lose.reason.as_str(),
                if info.can_lose.answer { Tone::Plain } else { Tone::Warn },
            ),
        ]);
    }
    text += &table.render(paint);
    for found in &cluster.warnings {
        line(&mut text, paint.apply(Tone::Warn, &format!("{}: {}", found.code, found.detail)));
    }
    text
}

pub fn nodes(cluster: &Cluster, paint: Paint) -> String {
    let mut text = String::new();
    if !cluster.quorum.has {
        line(&mut text, format!("Quorum  {}", paint.apply(Tone::Bad, &no_quorum(cluster))));
    }
    text + &table_of_nodes(&cluster.nodes, paint)
}

fn table_of_nodes(nodes: &[NodeInfo], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Left("NAME"),
        Column::Left("STATUS"),
        Column::Left("ROLE"),
        Column::Left("VOTER"),
        Column::Left("ZONE"),
        Column::Right("WEIGHT"),
        Column::Left("API"),
        Column::Left("PEERS"),
        Column::Right("LAG"),
        Column::Right("RTT"),
        Column::Left("REASON"),
    ]);
    for info in nodes {
        let node = &info.node;
        table.row([
            node.id.to_string().into(),
            node.name.as_str().into(),
            status(node.status),
            role(info),
            if node.voter { "yes" } else { "no" }.into(),
            node.zone.as_str().into(),
            node.weight.to_string().into(),
            node.api_addr.as_str().into(),
            node.peer_addr.as_str().into(),
            Cell::maybe(info.lag),
            Cell::maybe(info.rtt_us.map(microseconds)),
            Cell::toned(format!("{}, since {}", node.status_reason, time(node.status_since)), Tone::Faint),
        ]);
    }
    let mut text = table.render(paint);
    for info in nodes {
        for opinion in info.node.opinions.iter().filter(|opinion| opinion.sees != Liveness::Alive) {
            let sentence = format!(
                "node {} sees node {} {} since {}",
                opinion.observer,
                info.node.id,
                opinion.sees.as_str(),
                time(opinion.since)
            );
            line(&mut text, paint.apply(Tone::Warn, &sentence));
        }
        // An old report says nothing about the current state of the links.
        let links = if info.age_ms.is_some_and(|age| age <= FRESH_MS) { &info.links[..] } else { &[] };
        for trouble in troubles(links) {
            line(&mut text, paint.apply(Tone::Warn, trouble));
        }
    }
    text
}

pub fn operations(operations: &[Operation], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Right("ID"),
        Column::Left("STATUS"),
        Column::Left("STEP"),
        Column::Left("ACTION"),
        Column::Left("BY"),
        Column::Left("STARTED"),
        Column::Right("TOOK"),
        Column::Left("REMARK"),
    ]);
    for operation in operations {
        let done = operation.steps.iter().filter(|step| step.ended_at.is_some()).count();
        table.row([
            operation.id.to_string().into(),
            Cell::toned(operation.status.as_str(), operation_tone(operation.status)),
            format!("{done}/{}", operation.steps.len()).into(),
            operation.action.to_string().into(),
            operation.started_by.as_str().into(),
            time(operation.started_at).into(),
            Cell::maybe(took(operation).map(show_ms)),
            remark(operation).into(),
        ]);
    }
    if operations.is_empty() { "There are no operations.\n".to_owned() } else { table.render(paint) }
}

fn remark(operation: &Operation) -> String {
    match (&operation.error, operation.keep_until, operation.undone_by) {
        (Some(error), _, _) => error.to_string(),
        (None, Some(until), _) if operation.status == OperationStatus::AwaitingKeep => {
            format!("reverts at {} unless kept", time(until))
        }
        (None, _, Some(by)) => format!("undone by operation {by}"),
        _ => String::new(),
    }
}

/// The duration from start to end, by the wall clocks of the nodes that ran it.
pub fn took(operation: &Operation) -> Option<u64> {
    let ms = operation.ended_at?.as_millisecond() - operation.started_at.as_millisecond();
    Some(ms.max(0).cast_unsigned())
}

// Events may be printed one at a time, so their columns have fixed widths.

pub fn event_heading(paint: Paint) -> String {
    paint.apply(Tone::Strong, &format!("{:>8}  {:<24}  {:<15}  EVENT", "REVISION", "TIME", "BY")) + "\n"
}

pub fn events(batches: &[EventBatch], paint: Paint) -> String {
    let mut text = String::new();
    for batch in batches {
        for event in &batch.events {
            let when = paint.apply(Tone::Faint, &time(batch.at));
            line(&mut text, format!("{:>8}  {when}  {:<15}  {event}", batch.revision.0, batch.actor));
        }
    }
    text
}

pub fn audit(entries: &[AuditEntry], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Right("NO"),
        Column::Left("TIME"),
        Column::Left("BY"),
        Column::Left("REQUEST"),
        Column::Left("OUTCOME"),
        Column::Left("REQUEST ID"),
    ]);
    for entry in entries {
        let outcome = match (&entry.refused, entry.operation) {
            (Some(refusal), _) => Cell::toned(format!("refused, {refusal}"), Tone::Warn),
            (None, Some(operation)) => format!("done, operation {operation}").into(),
            (None, None) => "done".into(),
        };
        table.row([
            entry.number.to_string().into(),
            time(entry.at).into(),
            entry.actor.as_str().into(),
            entry.request.as_str().into(),
            outcome,
            Cell::toned(entry.request_id.as_str(), Tone::Faint),
        ]);
    }
    if entries.is_empty() { "There are no audited requests.\n".to_owned() } else { table.render(paint) }
}

pub fn settings(settings: &[Setting], paint: Paint) -> String {
    let mut table = Table::new(&[
        Column::Left("KEY"),
        Column::Left("VALUE"),
        Column::Right("VERSION"),
        Column::Left("WRITTEN"),
        Column::Left("BY"),
    ]);
    for setting in settings {
        table.row([
            setting.key.as_str().into(),
            setting.value.to_string().into(),
            setting.version.to_string().into(),
            setting.updated_at.map_or_else(|| Cell::toned("default", Tone::Faint), |at| time(at).into()),
            Cell::maybe(setting.updated_by.as_deref()),
        ]);
    }
    if settings.is_empty() { "There are no settings.\n".to_owned() } else { table.render(paint) }
}

/// A plan with everything that an operator needs to decide.
pub fn plan(plan: &Plan, paint: Paint) -> String {
    let heading = |text: &str| paint.apply(Tone::Strong, text);
    let mut text = String::new();
    line(&mut text, heading(&format!("Plan {}: {}", plan.id, plan.action)));
    line(&mut text, &plan.summary);
    line(
        &mut text,
        paint.apply(Tone::Faint, &format!("Made at revision {} by {}.", plan.revision, plan.created_by)),
    );

    let impact = impact(&plan.impact);
    if !impact.is_empty() {
        line(&mut text, heading("\nImpact"));
        for (name, value) in impact {
            line(&mut text, format!("  {name:<20}{value}"));
        }
    }
    if !plan.observations.is_empty() {
        line(&mut text, heading("\nObserved"));
        for seen in &plan.observations {
            line(&mut text, format!("  {} {} ({} ago)", seen.what, seen.value, show_ms(seen.age_ms)));
        }
    }
    if !plan.warnings.is_empty() {
        line(&mut text, heading("\nWarnings"));
        for warning in &plan.warnings {
            let code = paint.apply(Tone::Warn, &warning.code);
            line(&mut text, format!("  {code} ({}): {}", warning.subject, warning.detail));
        }
    }
    if !plan.blockers.is_empty() {
        line(&mut text, heading("\nBlockers"));
        for blocker in &plan.blockers {
            let code = paint.apply(Tone::Bad, &blocker.code);
            line(&mut text, format!("  {code} ({}): {}", blocker.subject, blocker.detail));
            line(&mut text, format!("    lifted by: {}", blocker.lifted_by));
        }
    }
    line(&mut text, heading("\nSteps"));
    let width = plan.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    for (number, step) in (1..).zip(&plan.steps) {
        line(
            &mut text,
            format!("  {number}  {:<width$}  {} (within {})", step.name, step.title, show_ms(step.bound_ms)),
        );
    }
    text.push('\n');
    let undo = if plan.undoable { "It can be undone." } else { "It cannot be undone." };
    line(&mut text, undo);
    text
}

/// The next command for a plan.
pub fn how_to_apply(plan: &Plan) -> String {
    match plan.operation {
        Some(operation) => format!("It was applied as operation {operation}."),
        None => format!("To apply it, until {}: ringmaster apply {}", time(plan.expires_at), plan.id),
    }
}

fn impact(impact: &Impact) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(bound) = impact.write_pause_bound_ms {
        let last = impact.write_pause_ms.map(|ms| format!("; last time {}", show_ms(ms)));
        rows.push(("writes pause", format!("at most {}{}", show_ms(bound), last.unwrap_or_default())));
    } else if let Some(ms) = impact.write_pause_ms {
        rows.push(("writes pause", format!("last time {}", show_ms(ms))));
    }
    if impact.leader_before != impact.leader_after {
        let name = |leader: Option<_>| leader.map_or("none".to_owned(), |id| format!("node {id}"));
        rows.push(("leader", format!("{} -> {}", name(impact.leader_before), name(impact.leader_after))));
    }
    if let Some(entries) = impact.entries_behind {
        rows.push(("target is behind", format!("{entries} entries")));
    }
    rows.extend(impact.lock.iter().flat_map(lock_impact));
    rows.extend(impact.upstream.iter().flat_map(traffic::impact));
    // Unchanged voters are left out of the plan of an upstream.
    let voters = (impact.voters_before, impact.failures_tolerated_before);
    if voters != (impact.voters_after, impact.failures_tolerated_after) || impact.upstream.is_none() {
        rows.push(("voters", change(impact.voters_before, impact.voters_after)));
        rows.push((
            "tolerated failures",
            change(impact.failures_tolerated_before, impact.failures_tolerated_after),
        ));
    }
    rows
}

fn lock_impact(lock: &LockImpact) -> Vec<(&'static str, String)> {
    let released = lock.holders.iter().map(|holder| {
        let left = show_ms(holder.expires_in_ms);
        ("released from", format!("{} (token {}, {left} left)", holder.owner, holder.token))
    });
    let granted = lock.promoted.iter().map(|holder| ("granted to", holder.owner.clone()));
    let none_granted =
        lock.promoted.is_empty().then(|| ("granted to", "none; the queue is empty".to_owned()));
    let token = ("next token", format!("{} or higher", lock.next_token));
    released.chain(granted).chain(none_granted).chain([token]).collect()
}

fn change(before: u64, after: u64) -> String {
    if before == after { before.to_string() } else { format!("{before} -> {after}") }
}

fn status(status: NodeStatus) -> Cell {
    let tone = match status {
        NodeStatus::Up => Tone::Good,
        NodeStatus::Joining | NodeStatus::Suspect | NodeStatus::Draining | NodeStatus::Drained => Tone::Warn,
        NodeStatus::Down => Tone::Bad,
        NodeStatus::Left => Tone::Faint,
    };
    Cell::toned(status.as_str(), tone)
}

fn role(info: &NodeInfo) -> Cell {
    match (info.role, info.age_ms) {
        (Some(role), Some(age)) if age > FRESH_MS => {
            Cell::toned(format!("{}, {} ago", role.as_str(), show_ms(age)), Tone::Faint)
        }
        (Some(Role::Leader), _) => Cell::toned("leader", Tone::Strong),
        (role, _) => Cell::maybe(role.map(Role::as_str)),
    }
}

pub fn operation_tone(status: OperationStatus) -> Tone {
    match status {
        OperationStatus::Succeeded => Tone::Good,
        OperationStatus::Running | OperationStatus::AwaitingKeep => Tone::Warn,
        OperationStatus::Failed => Tone::Bad,
        OperationStatus::Aborted | OperationStatus::Reverted => Tone::Strong,
    }
}

/// The time in UTC, in milliseconds.
pub fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn microseconds(us: u64) -> String {
    if us < 1_000 { format!("{us} us") } else { format!("{}.{} ms", us / 1_000, us % 1_000 / 100) }
}

fn line(text: &mut String, line: impl AsRef<str>) {
    writeln!(text, "{}", line.as_ref()).expect("a String takes everything");
}

#[cfg(test)]
mod tests;
