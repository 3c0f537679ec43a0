//! The state of the cluster in one sentence, and the problems that it is made of.
//!
//! [`summarize`] is pure: what is replicated, what was measured, and whether the page is connected come
//! in, and words come out. The most severe problem comes first. Each statement names the problem, its start, the
//! automatic reaction of the cluster, and the action for the reader.

use crate::{
    format::{self, capitalised, count, in_words, listed},
    leadership::{self, answers, counted_quorum, leader},
    metrics,
    timeline::LeadershipTerm,
    tone::Tone,
    traffic::TrafficHistory,
    upstream_health::{self, UpstreamProblem},
};
use ringmaster_common::{
    Timestamp,
    cluster::{Node, NodeStatus, Quorum, can_lose, failures_tolerated},
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
    pub traffic: &'a TrafficHistory,
    /// The elections that are known, newest first.
    pub elections: &'a [LeadershipTerm],
    /// When the quorum was lost, while there is none.
    pub no_quorum_since: Option<Timestamp>,
    pub now: Timestamp,
    /// Minutes east of Greenwich where the reader is.
    pub offset_minutes: i32,
}

impl SummaryInput<'_> {
    fn time_of(&self, at: Timestamp) -> String {
        format::moment(at, self.now, self.offset_minutes)
    }
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    Connection,
    Consensus,
    Traffic,
    Upstream(String),
    Node(NodeId),
    Operation(OperationId),
}

/// Summarizes the state of the cluster.
pub fn summarize(input: &SummaryInput<'_>) -> ClusterSummary {
    let upstreams = troubled_upstreams(input);
    let problems = problems(input, &upstreams);
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
            return statement(
                Tone::Unknown,
                "Disconnected",
                format!("Disconnected since {}.", input.time_of(*since)),
                "Nothing is known about the cluster since then.".to_owned(),
                format!(
                    "The page shows the state of that time; the state now is unknown from here. Next attempt: {next}, \
                     then all others in turn."
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
    let quorum = leadership::quorum(view, sample);
    if !quorum.has {
        let silent: Vec<NodeId> =
            voters.iter().filter(|node| !answers(node, sample)).map(|node| node.id).collect();
        let since =
            input.no_quorum_since.map(|at| format!(" since {}", input.time_of(at))).unwrap_or_default();
        return statement(
            Tone::Bad,
            "No quorum",
            format!("No quorum: {}.", of_voters_answer(&quorum)),
            format!("Nothing can be written{since}."),
            format!(
                "{} {} silent, as node {} sees it; writes need {}. Writes fail fast; stale reads and \
                 the proxies continue with the last state. A leader is elected as soon as enough voters answer: \
                 start their processes, or repair the network between them.",
                capitalised(&nodes(&silent)),
                if silent.len() == 1 { "is" } else { "are" },
                sample.from,
                quorum.requirement(),
            ),
        );
    }
    let Some(leader) = leader(view, sample) else {
        return statement(
            Tone::Bad,
            "No leader",
            "No leader at the moment.".to_owned(),
            "Writes wait for an election.".to_owned(),
            format!(
                "{}, which is enough to elect one; that takes about a second. If there is still none, check the \
                 reachability of the nodes.",
                capitalised(&of_voters_answer(&quorum))
            ),
        );
    };

    let down: Vec<&TroubledUpstream> =
        upstreams.iter().filter(|upstream| upstream.problem.tone == Tone::Bad).collect();
    if let [first, rest @ ..] = down.as_slice() {
        let UpstreamProblem { text, effect, reaction, .. } = &first.problem;
        let (short, headline, effect) = if rest.is_empty() {
            (format!("{} down", first.name), format!("{text}."), effect.clone())
        } else {
            let names: Vec<&str> = down.iter().map(|upstream| upstream.name).collect();
            let failing: f64 = down.iter().map(|upstream| upstream.failures_per_s).sum();
            let effect = match down.iter().all(|other| other.problem.effect == *effect) {
                _ if failing > 0.0 => upstream_health::failing_now(failing),
                true => effect.clone(),
                false => "Their clients are refused.".to_owned(),
            };
            (count(names.len() as u64, "upstream") + " down", upstream_health::several(&names), effect)
        };
        let reaction = if rest.is_empty() { reaction.as_str() } else { "" };
        let others = more_problems(problems.len() - down.len());
        let detail = format!("{reaction} Node {} leads, and writes continue.{others}", leader.report.node);
        return statement(Tone::Bad, &short, headline, effect, detail.trim().to_owned());
    }

    let unavailable: Vec<&Node> = view
        .nodes
        .values()
        .filter(|node| matches!(node.status, NodeStatus::Down | NodeStatus::Suspect))
        .collect();
    if let Some(worst) = unavailable.iter().max_by_key(|node| node.status) {
        let spare = counted_quorum(view, sample).spare();
        let ids: Vec<NodeId> = unavailable.iter().map(|node| node.id).collect();
        let since = unavailable.iter().map(|node| node.status_since).min().unwrap_or(worst.status_since);
        let at = input.time_of(since);
        let long = format::duration(format::age_ms(since, input.now));
        let headline = if let [node] = unavailable.as_slice() {
            format!("Node {} has been {} since {at}.", node.id, node.status.as_str())
        } else {
            format!("{} are down or suspect, the first since {at}.", capitalised(&nodes(&ids)))
        };
        let consequence = match spare {
            0 => "Writes continue; losing one more voter stops them.".to_owned(),
            _ => format!("Writes continue; {} more may fail.", in_words(spare)),
        };
        let detail = if unavailable.len() == 1 {
            format!(
                "{}. It has been {} for {long}. Check its process or network: journalctl -u ringmaster on {}.",
                capitalised(worst.status_reason.trim_end_matches('.')),
                worst.status.as_str(),
                host_of(worst)
            )
        } else {
            format!(
                "Node {} leads. They are up again as soon as they answer. Check their processes and their network.",
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
        return statement(
            problem.tone,
            "Degraded",
            format!("{}.", problem.text.trim_end_matches('.')),
            margin(view, sample),
            format!(
                "Node {} leads, and writes continue.{}",
                leader.report.node,
                more_problems(problems.len() - 1)
            ),
        );
    }
    let out: Vec<NodeId> =
        view.nodes.values().filter(|node| node.status.is_ordered()).map(|node| node.id).collect();
    if !out.is_empty() {
        let verb = if out.len() == 1 { "is" } else { "are" };
        let words = if view.nodes.values().any(|node| node.status == NodeStatus::Draining) {
            "draining"
        } else {
            "drained"
        };
        return statement(
            Tone::Note,
            &format!("{} {words}", capitalised(&nodes(&out))),
            format!("{} {verb} {words}.", capitalised(&nodes(&out))),
            margin(view, sample),
            format!("{}{}", last_changes(input, view), more_problems(problems.len() - out.len())),
        );
    }
    let tone = if failures_tolerated(voters.len()) == 0 { Tone::Note } else { Tone::Good };
    statement(tone, "All well", healthy(view, sample), margin(view, sample), last_changes(input, view))
}

/// The machine that a node runs on, as its public address names it.
fn host_of(node: &Node) -> &str {
    let address = node.public_url.split_once("://").map_or(node.public_url.as_str(), |(_, rest)| rest);
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// For example `1 of 3 voters answers`.
fn of_voters_answer(quorum: &Quorum) -> String {
    let verb = if quorum.answering == 1 && quorum.joint.is_empty() { "answers" } else { "answer" };
    format!("{} {verb}", quorum.answering_in_words())
}

fn more_problems(count: usize) -> String {
    match count {
        0 => String::new(),
        many => format!(" {} more in the list of problems.", capitalised(&in_words(many as u64))),
    }
}

/// What is counted as healthy.
fn healthy(view: &ClusterView, sample: &Sample) -> String {
    let nodes = view.nodes.values().filter(|node| answers(node, sample)).count();
    let nodes = format!("{nodes} of {}", count(view.nodes.len() as u64, "node"));
    // An upstream without an endpoint is not in use yet.
    let used =
        view.upstreams.values().filter(|upstream| !upstream.config.endpoints.is_empty()).count() as u64;
    match used {
        0 => format!("Healthy: {nodes}."),
        _ => format!("Healthy: {nodes}, {used} of {}.", count(used, "upstream")),
    }
}

/// How many may fail, in words.
fn margin(view: &ClusterView, sample: &Sample) -> String {
    let voters = || view.nodes.values().filter(|node| node.voter);
    let cannot = |node: &&Node| !can_lose(node.id, voters(), None, &sample.nodes).answer;
    let needed: Vec<NodeId> = voters().filter(cannot).map(|node| node.id).collect();
    let all = voters().count();
    // A node that is drained may be stopped at any moment.
    let out: Vec<NodeId> = voters().filter(|node| node.status.is_ordered()).map(|node| node.id).collect();
    let tolerated = failures_tolerated(all) as u64;
    let spare = tolerated.saturating_sub(out.len() as u64);
    match tolerated {
        0 if all < 2 => {
            "No node may fail: it is the only voter. Three voters tolerate one failure.".to_owned()
        }
        0 => "No node may fail: writes need every voter. Three voters tolerate one failure.".to_owned(),
        _ if !needed.is_empty() => format!("Writes stop if {} fails.", either_of(&needed)),
        _ if !out.is_empty() && spare == 0 => {
            let while_stopped = if out.len() == 1 { "it is" } else { "they are" };
            format!("While {while_stopped} stopped, no other voter may fail.")
        }
        _ if !out.is_empty() => format!("While they are stopped, {} more may fail.", in_words(spare)),
        1 => "Any one node may fail.".to_owned(),
        many => format!("Any {} nodes may fail.", in_words(many)),
    }
}

fn either_of(ids: &[NodeId]) -> String {
    match ids {
        [one] => format!("node {one}"),
        many => format!("one of nodes {}", listed(many)),
    }
}

/// The latest planned transfer of the leadership with its duration, and the latest election without one.
fn last_changes(input: &SummaryInput<'_>, view: &ClusterView) -> String {
    let planned = view.operations.values().rev().find_map(|operation| {
        let step = operation.steps.iter().rev().find(|step| step.moved_leadership())?;
        Some((step.ended_at?, step.took_ms()?))
    });
    let planned = planned.map(|(at, took)| {
        format!("Last planned transfer: {}, {}.", format::duration(took), format::ago(at, input.now))
    });
    // The oldest one that is known may be the first of the cluster, before which there was no leader.
    let pairs = input.elections.iter().zip(input.elections.iter().skip(1));
    let unplanned = pairs.filter(|(won, _)| won.by.is_none()).map(|(won, before)| {
        let at = input.time_of(won.at);
        if won.leader == before.leader {
            format!("Last unplanned election: {at}, node {} again.", won.leader)
        } else {
            format!("Last unplanned failover: {at}, node {} to node {}.", before.leader, won.leader)
        }
    });
    let known: Vec<String> = planned.into_iter().chain(unplanned.take(1)).collect();
    if known.is_empty() {
        "Leadership has not moved yet. Transfer it to another node to see how long that takes.".to_owned()
    } else {
        known.join(" ")
    }
}

/// An upstream with its most severe problem.
struct TroubledUpstream<'a> {
    name: &'a str,
    problem: UpstreamProblem,
    failures_per_s: f64,
}

fn troubled_upstreams<'a>(input: &SummaryInput<'a>) -> Vec<TroubledUpstream<'a>> {
    let Some(view) = input.view else { return Vec::new() };
    let time_of = |at| input.time_of(at);
    let loads = input.traffic.by_upstream();
    let troubled = view.upstreams.values().filter_map(|upstream| {
        let load = loads.get(upstream.name.as_str()).copied().unwrap_or_default();
        let problem = upstream_health::problem(view, upstream, load, &time_of)?;
        Some(TroubledUpstream { name: &upstream.name, problem, failures_per_s: load.failures_per_s })
    });
    troubled.collect()
}

/// All problems, the most severe first.
fn problems(input: &SummaryInput<'_>, upstreams: &[TroubledUpstream<'_>]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found = |tone, text: String, about| problems.push(Problem { tone, text, about });
    match input.connection {
        // What was a problem before may be none by now, and others may have come.
        Connection::Lost { next, .. } | Connection::NeverAnswered { next } => {
            found(Tone::Bad, format!("This page is disconnected; next attempt: {next}"), About::Connection);
            return problems;
        }
        Connection::Opening { .. } | Connection::Live { .. } => {}
    }
    let Some(view) = input.view else { return problems };
    for upstream in upstreams {
        let UpstreamProblem { tone, text, effect, reaction } = &upstream.problem;
        let text = format!("{text}. {effect} {reaction}");
        found(*tone, text.trim().to_owned(), About::Upstream(upstream.name.to_owned()));
    }
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
    let quorum = leadership::quorum(view, sample);
    if !quorum.has {
        let text =
            format!("No quorum: {}, and writes need {}", of_voters_answer(&quorum), quorum.requirement());
        found(Tone::Bad, text, About::Consensus);
    } else if leader(view, sample).is_none() {
        found(Tone::Bad, "No leader at the moment".to_owned(), About::Consensus);
    }
    for warning in &sample.warnings {
        let node = warning.subject.strip_prefix("node/").and_then(|id| id.parse().ok());
        let upstream = warning.subject.strip_prefix("upstream/").and_then(|path| path.split('/').next());
        let about = match (node, upstream) {
            (Some(node), _) => About::Node(node),
            (None, Some(upstream)) => About::Upstream(upstream.to_owned()),
            (None, None) => About::Traffic,
        };
        let known = problems.iter_mut().find(|problem| {
            matches!(about, About::Upstream(_)) && problem.about == about && problem.tone >= Tone::Warning
        });
        match known {
            // The same trouble, seen from one endpoint.
            Some(problem) => problem.text = format!("{} {}", problem.text, capitalised(&warning.detail)),
            None => {
                problems.push(Problem { tone: Tone::Warning, text: capitalised(&warning.detail), about });
            }
        }
    }
    let mut found = |tone, text: String, about| problems.push(Problem { tone, text, about });
    for fault in one_way_faults(&sample.nodes) {
        found(Tone::Warning, capitalised(&fault.to_string()), About::Node(fault.from));
    }
    for node in view.nodes.keys() {
        if let Some(lag) = metrics::lag(view, sample, *node).filter(|lag| *lag > BEHIND)
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
    Some(format!("Operation {}: confirm within {left} s, or it is reverted", operation.id))
}

fn nodes(ids: &[NodeId]) -> String {
    match ids {
        [one] => format!("node {one}"),
        many => format!("nodes {}", listed(many)),
    }
}

#[cfg(test)]
mod tests;
