//! The state of the cluster in one sentence, and the problems that it is made of.
//!
//! [`assess`] is pure: what is replicated, what was measured, and whether the page is connected come
//! in, and words come out. The worst thing comes first. Each statement says what is wrong, since
//! when, what the cluster does about it by itself, and what the reader can do.

use crate::{
    figures,
    format::{self, capitalised, count, in_words, listed},
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

/// How grave something is. Shown as a colour, and always as a shape and a word too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    Good,
    /// Worth knowing; nothing is wrong.
    Note,
    Warning,
    Bad,
    /// Nobody knows.
    Unknown,
}

impl Tone {
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Note => "note",
            Tone::Warning => "warning",
            Tone::Bad => "bad",
            Tone::Unknown => "unknown",
        }
    }
}

/// How the page is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing has arrived yet; this is whom it asks.
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

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub connection: &'a Connection,
    pub view: Option<&'a ClusterView>,
    pub sample: Option<&'a Sample>,
    pub now: Timestamp,
    /// Minutes east of Greenwich where the reader is.
    pub offset_minutes: i32,
}

/// The state in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    pub tone: Tone,
    /// In two or three words, for the bar at the top.
    pub short: String,
    /// What is so.
    pub headline: String,
    /// What follows from it.
    pub consequence: String,
    /// What happens by itself, and what the reader can do.
    pub detail: String,
    pub problems: Vec<Problem>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub tone: Tone,
    pub text: String,
    pub about: About,
}

/// Where a problem leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Connection,
    Consensus,
    Traffic,
    Node(NodeId),
    Operation(OperationId),
}

/// Says how things stand.
pub fn assess(situation: &Situation<'_>) -> Assessment {
    let problems = problems(situation);
    let statement = |tone, short: &str, headline: String, consequence: String, detail: String| Assessment {
        tone,
        short: short.to_owned(),
        headline,
        consequence,
        detail,
        problems: problems.clone(),
    };
    match situation.connection {
        Connection::NeverAnswered { next } => {
            return statement(
                Tone::Unknown,
                "Disconnected",
                "No node answers.".to_owned(),
                "Nothing is known about the cluster from here.".to_owned(),
                format!(
                    "Trying {next} next, and all others in turn. Check that a node runs at this address."
                ),
            );
        }
        Connection::Lost { since, next } => {
            let at = format::moment(*since, situation.now, situation.offset_minutes);
            return statement(
                Tone::Unknown,
                "Disconnected",
                format!("Disconnected since {at}."),
                "What you see is how it was then.".to_owned(),
                format!("Trying {next} next, and all others in turn. The cluster goes on without this page."),
            );
        }
        Connection::Opening { .. } | Connection::Live { .. } => {}
    }
    let (Some(view), Some(sample)) = (situation.view, situation.sample) else {
        let to = match situation.connection {
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
                "As node {} sees it, {answering} of {} answer, and writes need {needed}. Writes fail fast and stale \
                 reads go on. A leader is elected as soon as enough of them answer: start their processes, or mend \
                 the network between them.",
                sample.from,
                count(voters.len() as u64, "voter"),
            ),
        );
    }
    let Some(leader) = figures::leader(sample) else {
        return statement(
            Tone::Bad,
            "No leader",
            "No leader at the moment.".to_owned(),
            "Writes wait for an election.".to_owned(),
            format!(
                "{answering} of {} answer, which is enough to elect one; that takes about a second. If it goes on, \
                 look at who sees whom.",
                count(voters.len() as u64, "voter")
            ),
        );
    };

    let unwell: Vec<&Node> = view
        .nodes
        .values()
        .filter(|node| matches!(node.status, NodeStatus::Down | NodeStatus::Suspect))
        .collect();
    if let Some(worst) = unwell.iter().max_by_key(|node| node.status) {
        // Who is suspect is lost already, as far as one may count on them.
        let doubtful =
            voters.iter().filter(|node| answers(node, sample) && node.status == NodeStatus::Suspect);
        let spare = (answering - doubtful.count()).saturating_sub(needed) as u64;
        let ids: Vec<NodeId> = unwell.iter().map(|node| node.id).collect();
        let since = unwell.iter().map(|node| node.status_since).min().unwrap_or(worst.status_since);
        let at = format::moment(since, situation.now, situation.offset_minutes);
        let headline = if let [node] = unwell.as_slice() {
            format!("Node {} is {} since {at}.", node.id, node.status.as_str())
        } else {
            format!("{} are not well, the first since {at}.", capitalised(&nodes(&ids)))
        };
        let consequence = match spare {
            0 => "Writes go on; losing one more voter stops them.".to_owned(),
            _ => format!("Writes go on; you can lose {} more.", in_words(spare)),
        };
        let verb = if unwell.len() == 1 { "it answers" } else { "they answer" };
        let detail = if unwell.len() == 1 {
            format!(
                "{}. The cluster takes it back as soon as {verb}; until then, see to its process or its network.",
                capitalised(worst.status_reason.trim_end_matches('.'))
            )
        } else {
            format!(
                "Node {} leads. The cluster takes them back as soon as {verb}; until then, see to their processes or \
                 their network.",
                leader.report.node
            )
        };
        let tone = if spare == 0 { Tone::Bad } else { Tone::Warning };
        let tone = if worst.status == NodeStatus::Suspect { Tone::Warning } else { tone };
        let short = match unwell.as_slice() {
            [node] => format!("Node {} {}", node.id, node.status.as_str()),
            _ => format!("{} not well", count(unwell.len() as u64, "node")),
        };
        return statement(tone, &short, headline, consequence, detail);
    }

    let worst =
        problems.iter().filter(|problem| problem.tone >= Tone::Warning).max_by_key(|problem| problem.tone);
    if let Some(problem) = worst {
        let more = match problems.len() {
            0 | 1 => String::new(),
            many => format!(" {} more in the menu of problems.", capitalised(&in_words(many as u64 - 1))),
        };
        return statement(
            problem.tone,
            "Degraded",
            format!("{}.", problem.text.trim_end_matches('.')),
            margin(view, sample),
            format!("Node {} leads, and writes go on.{more}", leader.report.node),
        );
    }
    let tone = if failures_tolerated(voters.len()) == 0 { Tone::Note } else { Tone::Good };
    statement(tone, "All well", "All is well.".to_owned(), margin(view, sample), proven(view, situation.now))
}

/// Whether a node is heard from. Its last report may outlive it by a moment.
pub fn answers(node: &Node, sample: &Sample) -> bool {
    node.status != NodeStatus::Down && figures::fresh(sample, node.id).is_some()
}

/// How many may fail, in words.
fn margin(view: &ClusterView, sample: &Sample) -> String {
    let voters = || view.nodes.values().filter(|node| node.voter);
    let cannot = |node: &&Node| !can_lose(node.id, voters(), None, &sample.nodes).answer;
    let needed: Vec<NodeId> = voters().filter(cannot).map(|node| node.id).collect();
    match failures_tolerated(voters().count()) as u64 {
        0 => {
            "But you can lose no node: writes need all of them. Three voters bear the loss of one.".to_owned()
        }
        _ if !needed.is_empty() => format!("You cannot lose {} meanwhile.", nodes(&needed)),
        1 => "You can lose any one node.".to_owned(),
        many => format!("You can lose any {} nodes.", in_words(many)),
    }
}

/// When leadership last moved on purpose, and how long that took.
fn proven(view: &ClusterView, now: Timestamp) -> String {
    let last = view.operations.values().rev().find_map(|operation| {
        let done = matches!(operation.status, OperationStatus::Succeeded | OperationStatus::Reverted);
        let step = operation.steps.iter().find(|step| step.name == "hand_over" && step.ended_at.is_some())?;
        done.then_some((step.ended_at?, step.took_ms()?))
    });
    match last {
        Some((at, took)) => {
            format!("Last proven failover: {}, {}.", format::ago(at, now), format::duration(took))
        }
        None => "No failover has been tried yet: make another node the leader to see how long it takes."
            .to_owned(),
    }
}

/// Everything that is not as it should be, the gravest first.
fn problems(situation: &Situation<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found = |tone, text: String, about| problems.push(Problem { tone, text, about });
    match situation.connection {
        Connection::Lost { next, .. } | Connection::NeverAnswered { next } => {
            found(Tone::Bad, format!("This page is disconnected; it tries {next} next"), About::Connection);
        }
        Connection::Opening { .. } | Connection::Live { .. } => {}
    }
    let Some(view) = situation.view else { return problems };
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
        if let Some(text) = waiting(operation, situation.now) {
            found(Tone::Note, text, About::Operation(operation.id));
        }
    }
    let Some(sample) = situation.sample else { return problems };
    let voters = view.nodes.values().filter(|node| node.voter);
    let (mut all, mut answering) = (0, 0);
    for node in voters {
        all += 1;
        answering += usize::from(answers(node, sample));
    }
    if answering < all / 2 + 1 {
        let text = format!("No quorum: {answering} of {all} voters answer, and writes need {}", all / 2 + 1);
        found(Tone::Bad, text, About::Consensus);
    } else if figures::leader(sample).is_none() {
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
        if let Some(lag) = figures::lag(sample, *node).filter(|lag| *lag > BEHIND)
            && figures::fresh(sample, *node).is_some()
        {
            found(
                Tone::Warning,
                format!("Node {node} is {} behind", count(lag, "entry")),
                About::Node(*node),
            );
        }
    }
    gravest_first(problems)
}

fn gravest_first(problems: Vec<Problem>) -> Vec<Problem> {
    let of = |tone| problems.iter().filter(move |problem| problem.tone == tone).cloned();
    [Tone::Bad, Tone::Warning, Tone::Note].into_iter().flat_map(of).collect()
}

fn waiting(operation: &Operation, now: Timestamp) -> Option<String> {
    let until = operation.keep_until.filter(|_| operation.status == OperationStatus::AwaitingKeep)?;
    let left = format::seconds_left(until, now);
    Some(format!("Operation {} reverts in {left} s unless somebody keeps it", operation.id))
}

fn nodes(ids: &[NodeId]) -> String {
    match ids {
        [one] => format!("node {one}"),
        many => format!("nodes {}", listed(many)),
    }
}

#[cfg(test)]
#[path = "situation/tests.rs"]
mod tests;
