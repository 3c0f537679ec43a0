//! The state of the cluster in one sentence, and the problems that it is made of.
//!
//! [`summarize`] is pure: what is replicated, what was measured, and whether the page is connected come
//! in, and words come out. The most severe problem comes first. Each statement names the problem, its start, the
//! automatic reaction of the cluster, and the action for the reader.

use crate::{
    format::{self, capitalised, count, in_words, listed},
    metrics,
    tone::Tone,
};
use ringmaster_common::{
    Timestamp,
    cluster::{Node, NodeStatus, can_lose, failures_tolerated},
    id::{NodeId, OperationId},
    operation::{Operation, OperationStatus},
    telemetry::{Sample, one_way_faults},
    view::ClusterView,
};

/// How many entries a follower may be behind before that is a problem: the most with which it can be
/// handed the leadership.
const BEHIND: u64 = 1_000;

/// How the page is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// No message has arrived yet.
    Opening {
        to: String,
    },
    /// No node has answered since the page was opened.
    NeverAnswered {
        next: String,
    },
    Live {
        node: NodeId,
    },
    /// Silent since then.
    Lost {
        since: Timestamp,
        next: String,
    },
}

/// The input of [`summarize`].
#[derive(Clone, Copy, Debug)]
pub struct SummaryInput<'a> {
    pub connection: &'a Connection,
    pub view: Option<&'a ClusterView>,
    pub sample: Option<&'a Sample>,
    pub now: Timestamp,
    /// Minutes east of Greenwich where the reader is.
    pub offset_minutes: i32,
}

/// The state in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSummary {
    pub tone: Tone,
    /// In two or three words, for the bar at the top.
    pub short: String,
    /// The state in one sentence.
    pub headline: String,
    /// The consequence.
    pub consequence: String,
    /// The automatic reaction, and the action for the reader.
    pub detail: String,
    pub problems: Vec<Problem>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub tone: Tone,
    pub text: String,
    pub about: About,
}

/// The page that a problem links to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Connection,
    Consensus,
    Traffic,
    Node(NodeId),
    Operation(OperationId),
}

/// Summarizes the state of the cluster.
pub fn summarize(input: &SummaryInput<'_>) -> ClusterSummary {
    let problems = problems(input);
    let statement =
        |tone, short: &str, headline: String, consequence: String, detail: String| ClusterSummary {
            tone,
            short: short.to_owned(),
            headline,
            consequence,
            detail,
            problems: problems.clone(),
        };
    match input.connection {
        Connection::NeverAnswered { next } => {
            return statement(
                Tone::Unknown,
                "Disconnected",
                "No node answers.".to_owned(),
                "Nothing is known about the cluster from here.".to_owned(),
                format!(
                    "Next attempt: {next}, then all others in turn. Check that a node runs at this address."
                ),
            );
        }
        Connection::Lost { since, next } => {
            let at = format::moment(*since, input.now, input.offset_minutes);
            return statement(
                Tone::Unknown,
                "Disconnected",
                format!("Disconnected since {at}."),
                "The page shows the state at that time.".to_owned(),
                format!(
                    "Next attempt: {next}, then all others in turn. The cluster continues without this page."
                ),
            );
        }
        Connection::Opening { .. } | Connection::Live { .. } => {}
    }
    let (Some(view), Some(sample)) = (input.view, input.sample) else {
        let to = match input.connection {
            Connection::Opening { to } => to.clone(),
            _ => "the cluster".to_owned(),
        };
        return statement(
            Tone::Unknown,
            "Connecting",
            format!("Connecting to {to}."),
            String::new(),
            "The page asks for the state of the cluster and then follows its history.".to_owned(),
        );
    };

    let voters: Vec<&Node> = view.nodes.values().filter(|node| node.voter).collect();
    let needed = voters.len() / 2 + 1;
    let answering = voters.iter().filter(|node| answers(node, sample)).count();
    if answering < needed {
        let silent: Vec<NodeId> =
            voters.iter().filter(|node| !answers(node, sample)).map(|node| node.id).collect();
        let missing = (needed - answering) as u64;
        let consequence = match silent.len() as u64 {
            1 => "Nothing can be written until it is back.".to_owned(),
            _ => {
                let verb = if missing == 1 { "is" } else { "are" };
                format!("Nothing can be written until {} of them {verb} back.", in_words(missing))
            }
        };
        return statement(
            Tone::Bad,
            "No quorum",
            format!("No quorum: {} {} silent.", nodes(&silent), if silent.len() == 1 { "is" } else { "are" }),
            consequence,
            format!(
                "As node {} sees it, {answering} of {} answer, and writes need {needed}. Writes fail fast; stale \
                 reads continue. A leader is elected as soon as enough voters answer: start their processes, or \
                 repair the network between them.",
                sample.from,
                count(voters.len() as u64, "voter"),
            ),
        );
    }
    let Some(leader) = metrics::leader(sample) else {
        return statement(
            Tone::Bad,
            "No leader",
            "No leader at the moment.".to_owned(),
            "Writes wait for an election.".to_owned(),
            format!(
                "{answering} of {} answer, which is enough to elect one; that takes about a second. If there is \
                 still none, check the reachability of the nodes.",
                count(voters.len() as u64, "voter")
            ),
        );
    };

    let unavailable: Vec<&Node> = view
        .nodes
        .values()
        .filter(|node| matches!(node.status, NodeStatus::Down | NodeStatus::Suspect))
        .collect();
    if let Some(worst) = unavailable.iter().max_by_key(|node| node.status) {
        // A suspect voter does not count as one to spare.
        let doubtful =
            voters.iter().filter(|node| answers(node, sample) && node.status == NodeStatus::Suspect);
        let spare = (answering - doubtful.count()).saturating_sub(needed) as u64;
        let ids: Vec<NodeId> = unavailable.iter().map(|node| node.id).collect();
        let since = unavailable.iter().map(|node| node.status_since).min().unwrap_or(worst.status_since);
        let at = format::moment(since, input.now, input.offset_minutes);
        let headline = if let [node] = unavailable.as_slice() {
            format!("Node {} is {} since {at}.", node.id, node.status.as_str())
        } else {
            format!("{} are down or suspect, the first since {at}.", capitalised(&nodes(&ids)))
        };
        let consequence = match spare {
            0 => "Writes continue; losing one more voter stops them.".to_owned(),
            _ => format!("Writes continue; you can lose {} more.", in_words(spare)),
        };
        let verb = if unavailable.len() == 1 { "it answers" } else { "they answer" };
        let detail = if unavailable.len() == 1 {
            format!(
                "{}. It is up again as soon as {verb}. Check its process and its network.",
                capitalised(worst.status_reason.trim_end_matches('.'))
            )
        } else {
            format!(
                "Node {} leads. They are up again as soon as {verb}. Check their processes and their network.",
                leader.report.node
            )
        };
        let tone = if spare == 0 { Tone::Bad } else { Tone::Warning };
        let tone = if worst.status == NodeStatus::Suspect { Tone::Warning } else { tone };
        let short = match unavailable.as_slice() {
            [node] => format!("Node {} {}", node.id, node.status.as_str()),
            _ => format!("{} unavailable", count(unavailable.len() as u64, "node")),
        };
        return statement(tone, &short, headline, consequence, detail);
    }

    let worst =
        problems.iter().filter(|problem| problem.tone >= Tone::Warning).max_by_key(|problem| problem.tone);
    if let Some(problem) = worst {
        let more = match problems.len() {
            0 | 1 => String::new(),
            many => format!(" {} more in the list of problems.", capitalised(&in_words(many as u64 - 1))),
        };
        return statement(
            problem.tone,
            "Degraded",
            format!("{}.", problem.text.trim_end_matches('.')),
            margin(view, sample),
            format!("Node {} leads, and writes continue.{more}", leader.report.node),
        );
    }
    let tone = if failures_tolerated(voters.len()) == 0 { Tone::Note } else { Tone::Good };
    statement(
        tone,
        "All well",
        "All is well.".to_owned(),
        margin(view, sample),
        last_transfer(view, input.now),
    )
}

/// Whether a node answers. Its last report may outlive it by a moment.
pub fn answers(node: &Node, sample: &Sample) -> bool {
    node.status != NodeStatus::Down && metrics::fresh(sample, node.id).is_some()
}

/// How many may fail, in words.
fn margin(view: &ClusterView, sample: &Sample) -> String {
    let voters = || view.nodes.values().filter(|node| node.voter);
    let cannot = |node: &&Node| !can_lose(node.id, voters(), None, &sample.nodes).answer;
    let needed: Vec<NodeId> = voters().filter(cannot).map(|node| node.id).collect();
    match failures_tolerated(voters().count()) as u64 {
        0 => "Writes need every voter, so no node may fail. Three voters tolerate one failure.".to_owned(),
        _ if !needed.is_empty() => format!("You cannot lose {} meanwhile.", nodes(&needed)),
        1 => "You can lose any one node.".to_owned(),
        many => format!("You can lose any {} nodes.", in_words(many)),
    }
}

/// The latest planned leadership transfer, and how long it took.
fn last_transfer(view: &ClusterView, now: Timestamp) -> String {
    let last = view.operations.values().rev().find_map(|operation| {
        let done = matches!(operation.status, OperationStatus::Succeeded | OperationStatus::Reverted);
        let step = operation
            .steps
            .iter()
            .find(|step| step.name == "transfer_leadership" && step.ended_at.is_some())?;
        done.then_some((step.ended_at?, step.took_ms()?))
    });
    match last {
        Some((at, took)) => {
            format!("Last leadership transfer: {}, {}.", format::ago(at, now), format::duration(took))
        }
        None => "No failover has been tried yet. Make another node the leader to see how long it takes."
            .to_owned(),
    }
}

/// All problems, the most severe first.
fn problems(input: &SummaryInput<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found = |tone, text: String, about| problems.push(Problem { tone, text, about });
    match input.connection {
        Connection::Lost { next, .. } | Connection::NeverAnswered { next } => {
            found(Tone::Bad, format!("This page is disconnected; next attempt: {next}"), About::Connection);
        }
        Connection::Opening { .. } | Connection::Live { .. } => {}
    }
    let Some(view) = input.view else { return problems };
    for node in view.nodes.values() {
        let tone = match node.status {
            NodeStatus::Down => Tone::Bad,
            NodeStatus::Suspect => Tone::Warning,
            NodeStatus::Joining | NodeStatus::Draining | NodeStatus::Drained => Tone::Note,
            NodeStatus::Up | NodeStatus::Left => continue,
        };
        let reason = node.status_reason.trim_end_matches('.');
        found(tone, format!("Node {} is {}: {reason}", node.id, node.status.as_str()), About::Node(node.id));
    }
    for operation in view.operations.values() {
        if let Some(text) = waiting(operation, input.now) {
            found(Tone::Note, text, About::Operation(operation.id));
        }
    }
    let Some(sample) = input.sample else { return problems };
    let voters = view.nodes.values().filter(|node| node.voter);
    let (mut all, mut answering) = (0, 0);
    for node in voters {
        all += 1;
        answering += usize::from(answers(node, sample));
    }
    if answering < all / 2 + 1 {
        let text = format!("No quorum: {answering} of {all} voters answer, and writes need {}", all / 2 + 1);
        found(Tone::Bad, text, About::Consensus);
    } else if metrics::leader(sample).is_none() {
        found(Tone::Bad, "No node leads at the moment".to_owned(), About::Consensus);
    }
    for warning in &sample.warnings {
        let node = warning.subject.strip_prefix("node/").and_then(|id| id.parse().ok());
        found(Tone::Warning, capitalised(&warning.detail), node.map_or(About::Traffic, About::Node));
    }
    for fault in one_way_faults(&sample.nodes) {
        found(Tone::Warning, capitalised(&fault.to_string()), About::Node(fault.from));
    }
    for node in view.nodes.keys() {
        if let Some(lag) = metrics::lag(sample, *node).filter(|lag| *lag > BEHIND)
            && metrics::fresh(sample, *node).is_some()
        {
            found(
                Tone::Warning,
                format!("Node {node} is {} behind", count(lag, "entry")),
                About::Node(*node),
            );
        }
    }
    most_severe_first(problems)
}

fn most_severe_first(problems: Vec<Problem>) -> Vec<Problem> {
    let of = |tone| problems.iter().filter(move |problem| problem.tone == tone).cloned();
    [Tone::Bad, Tone::Warning, Tone::Note].into_iter().flat_map(of).collect()
}

fn waiting(operation: &Operation, now: Timestamp) -> Option<String> {
    let until = operation.keep_until.filter(|_| operation.status == OperationStatus::AwaitingKeep)?;
    let left = format::seconds_left(until, now);
    Some(format!("Operation {} reverts in {left} s unless it is kept", operation.id))
}

fn nodes(ids: &[NodeId]) -> String {
    match ids {
        [one] => format!("node {one}"),
        many => format!("nodes {}", listed(many)),
    }
}

#[cfg(test)]
mod tests;
