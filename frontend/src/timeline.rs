//! Events and audit entries as the lists show them: one sentence, one tone and one kind each.
//!
//! Repeated events are rolled up, so that a setting that is written all the time does not hide the rest: in a short
//! list all changes of one object are one line, in a full list consecutive ones.

use crate::{format::capitalised, tone::Tone};
use ringmaster_common::{
    Timestamp,
    cluster::{Liveness, NodeStatus},
    event::{AuditEntry, Event, EventBatch},
    id::{NodeId, OperationId},
    operation::{OperationStatus, StepStatus},
    traffic::health::{EndpointHealth, HealthOpinion, Verdict},
};
use std::sync::Arc;

/// The subject of an event, to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nodes,
    Leadership,
    Operations,
    Settings,
    Traffic,
    Audit,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Nodes, Kind::Leadership, Kind::Operations, Kind::Settings, Kind::Traffic, Kind::Audit];

    /// The value in the page's address.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes",
            Kind::Leadership => "leadership",
            Kind::Operations => "operations",
            Kind::Settings => "settings",
            Kind::Traffic => "traffic",
            Kind::Audit => "audit",
        }
    }

    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    pub fn of(event: &Event) -> Kind {
        match event {
            Event::ClusterCreated { .. }
            | Event::FeatureLevelRaised { .. }
            | Event::ClusterRecovered { .. }
            | Event::NodeJoined { .. }
            | Event::NodeMoved { .. }
            | Event::NodeLeft { .. }
            | Event::NodeStatusChanged { .. }
            | Event::OpinionChanged { .. } => Kind::Nodes,
            Event::MembershipChanged { .. } | Event::LeaderElected { .. } => Kind::Leadership,
            Event::PlanCreated { .. }
            | Event::OperationStarted { .. }
            | Event::StepChanged { .. }
            | Event::StepsAdded { .. }
            | Event::OperationChanged { .. }
            | Event::OperationUndone { .. } => Kind::Operations,
            Event::SettingChanged { .. } | Event::SettingRemoved { .. } => Kind::Settings,
            Event::UpstreamPut { .. }
            | Event::UpstreamRemoved { .. }
            | Event::EndpointPut { .. }
            | Event::EndpointRemoved { .. }
            | Event::EndpointStateChanged { .. }
            | Event::EndpointHealthChanged { .. }
            | Event::PrimaryChanged { .. }
            | Event::RoutePut { .. }
            | Event::RouteRemoved { .. } => Kind::Traffic,
            Event::Audited { .. } => Kind::Audit,
        }
    }
}

/// Whether an event belongs into a short list. Events that only lead up to another one, such as the steps of an
/// operation, are left to the full timeline.
pub fn is_headline(event: &Event) -> bool {
    match event {
        Event::OpinionChanged { .. }
        | Event::PlanCreated { .. }
        | Event::StepChanged { .. }
        | Event::StepsAdded { .. }
        | Event::Audited { .. } => false,
        // A resumed operation is no news; its end or its wait is.
        Event::OperationChanged { status, .. } => *status != OperationStatus::Running,
        _ => true,
    }
}

pub fn tone(event: &Event) -> Tone {
    match event {
        Event::NodeStatusChanged { to, .. } => match to {
            NodeStatus::Up => Tone::Good,
            NodeStatus::Down => Tone::Bad,
            NodeStatus::Suspect => Tone::Warning,
            _ => Tone::Note,
        },
        Event::OpinionChanged { sees, .. } => match sees {
            Liveness::Alive => Tone::Good,
            Liveness::Suspect => Tone::Warning,
            Liveness::Dead => Tone::Bad,
        },
        Event::OperationChanged { status, .. } => match status {
            OperationStatus::Succeeded => Tone::Good,
            OperationStatus::Failed => Tone::Bad,
            OperationStatus::Aborted | OperationStatus::Reverted => Tone::Warning,
            OperationStatus::Running | OperationStatus::AwaitingKeep => Tone::Note,
        },
        Event::StepChanged { step, .. } => match step.status {
            StepStatus::Succeeded => Tone::Good,
            StepStatus::Failed => Tone::Bad,
            StepStatus::Pending | StepStatus::Running | StepStatus::Skipped => Tone::Note,
        },
        Event::PlanCreated { blocked: true, .. } => Tone::Warning,
        Event::EndpointHealthChanged { health, .. } if is_disputed(health) => Tone::Warning,
        Event::EndpointHealthChanged { health, .. } => crate::traffic::verdict_tone(health.verdict),
        Event::ClusterRecovered { .. } => Tone::Warning,
        Event::PrimaryChanged { primary, .. } if primary.endpoint.is_none() => Tone::Bad,
        _ => Tone::Note,
    }
}

/// Whether some nodes find an endpoint failing that counts as healthy.
fn is_disputed(health: &EndpointHealth) -> bool {
    let fails = |opinion: &HealthOpinion| opinion.verdict == Verdict::Unhealthy;
    health.verdict != Verdict::Unhealthy && health.opinions.iter().any(fails)
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub revision: u64,
    /// Among the events of its revision.
    pub position: usize,
    /// The revision of the earliest event that the line stands for. It identifies the line:
    /// it stays as it is while later events are rolled up into the line.
    pub since: u64,
    pub at: Timestamp,
    pub actor: String,
    pub kind: Kind,
    pub tone: Tone,
    pub sentence: String,
    pub is_headline: bool,
    /// Changes of one thing that are shown as one line in a short list.
    pub rolls_up_as: Option<String>,
    /// How many events the line stands for.
    pub count: u32,
    /// The entry of the audit, if the line is one.
    pub audit: Option<Arc<AuditEntry>>,
}

impl Entry {
    /// The sort key and cursor of its list: numbers of the audit have no gaps.
    pub fn rank(&self) -> u64 {
        self.audit.as_ref().map_or(self.revision, |audit| audit.number)
    }

    /// Takes another entry into the line. The line shows the latest.
    fn absorb(&mut self, other: Entry) {
        let (count, since) = (self.count + other.count, self.since.min(other.since));
        let position = if other.since < self.since { other.position } else { self.position };
        if other.revision > self.revision {
            *self = other;
        }
        (self.count, self.since, self.position) = (count, since, position);
    }
}

/// The lines of a batch, the last one first.
pub fn entries(batch: &EventBatch) -> impl Iterator<Item = Entry> + '_ {
    batch.events.iter().enumerate().rev().map(|(position, event)| Entry {
        revision: batch.revision.0,
        position,
        since: batch.revision.0,
        at: batch.at,
        actor: batch.actor.clone(),
        kind: Kind::of(event),
        tone: tone(event),
        sentence: capitalised(&event.to_string()),
        is_headline: is_headline(event),
        rolls_up_as: match event {
            Event::SettingChanged { setting } => Some(setting.key.clone()),
            Event::SettingRemoved { key } => Some(key.clone()),
            // Each node that changes its opinion is an event. Unhealthy and healthy stay separate lines, so
            // that a failure is not hidden by the recovery.
            Event::EndpointHealthChanged { upstream, endpoint, health } => {
                let disputed = if is_disputed(health) { " disputed" } else { "" };
                Some(format!("{upstream} {endpoint} {}{disputed}", health.verdict.as_str()))
            }
            Event::Audited { .. } => Some(String::new()),
            _ => None,
        },
        count: 1,
        audit: None,
    })
}

/// An entry of the audit as a line.
pub fn audit_line(entry: AuditEntry) -> Entry {
    let outcome = match (&entry.refused, entry.operation) {
        (Some(refusal), _) => format!("refused: {refusal}"),
        (None, Some(operation)) => format!("done: operation {operation}"),
        (None, None) => "done".to_owned(),
    };
    Entry {
        revision: entry.revision.0,
        position: 0,
        since: entry.revision.0,
        at: entry.at,
        actor: entry.actor.clone(),
        kind: Kind::Audit,
        tone: if entry.refused.is_some() { Tone::Warning } else { Tone::Good },
        sentence: format!("{} {outcome} {} {}", entry.request, entry.number, entry.request_id),
        is_headline: true,
        // Each request stands alone: the same words may have turned a switch off and on again.
        rolls_up_as: None,
        count: 1,
        audit: Some(Arc::new(entry)),
    }
}

/// Takes a later entry into a full list, newest first. A line stays where it is while it grows.
pub fn roll_up_newer(lines: &mut Vec<Entry>, entry: Entry) {
    let run = lines.iter().take_while(|line| line.rolls_up_as.is_some());
    match run.take(MAX_RUN).position(|line| rolls_up(line, &entry)) {
        Some(position) => lines[position].absorb(entry),
        None => lines.insert(0, entry),
    }
}

/// Takes an earlier entry into a full list, newest first.
pub fn roll_up_older(lines: &mut Vec<Entry>, entry: Entry) {
    let run = lines.iter().rev().take_while(|line| line.rolls_up_as.is_some());
    match run.take(MAX_RUN).position(|line| rolls_up(line, &entry)) {
        Some(from_end) => {
            let position = lines.len() - 1 - from_end;
            lines[position].absorb(entry);
        }
        None => lines.push(entry),
    }
}

/// How far a full list looks for a line to roll up into.
const MAX_RUN: usize = 50;

fn rolls_up(line: &Entry, entry: &Entry) -> bool {
    entry.rolls_up_as.is_some() && line.rolls_up_as == entry.rolls_up_as && line.kind == entry.kind
}

/// A leader and its term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadershipTerm {
    pub term: u64,
    pub leader: NodeId,
    pub at: Timestamp,
    pub revision: u64,
    /// The operation that transferred the leadership, where the election was planned. The winner of an election
    /// ends that step with its first command, so both are of one revision.
    pub by: Option<OperationId>,
}

/// The elections of a batch; there is one at the most.
pub fn leadership_terms(batch: &EventBatch) -> impl Iterator<Item = LeadershipTerm> + '_ {
    let by = batch.events.iter().find_map(|event| match event {
        Event::StepChanged { operation, step, .. } if step.status == StepStatus::Succeeded => {
            (step.name == "transfer_leadership").then_some(*operation)
        }
        _ => None,
    });
    batch.events.iter().filter_map(move |event| match event {
        Event::LeaderElected { term, leader } => Some(LeadershipTerm {
            term: *term,
            leader: *leader,
            at: batch.at,
            revision: batch.revision.0,
            by,
        }),
        _ => None,
    })
}

/// How many lines a short list keeps.
pub const MAX_HEADLINES: usize = 100;

/// Short lists hold what is news, newest first; changes of one setting are one line, at the latest of
/// them. Takes a later entry in.
pub fn add_newer(headlines: &mut Vec<Entry>, mut entry: Entry) {
    if !entry.is_headline {
        return;
    }
    if let Some(position) = same_line(headlines, &entry) {
        let mut line = headlines.remove(position);
        line.absorb(entry);
        entry = line;
    }
    headlines.insert(0, entry);
    headlines.truncate(MAX_HEADLINES);
}

/// Takes an earlier entry in.
pub fn add_older(headlines: &mut Vec<Entry>, entry: Entry) {
    if !entry.is_headline {
        return;
    }
    match same_line(headlines, &entry) {
        Some(position) => headlines[position].absorb(entry),
        None if headlines.len() < MAX_HEADLINES => headlines.push(entry),
        None => {}
    }
}

fn same_line(headlines: &[Entry], entry: &Entry) -> Option<usize> {
    headlines.iter().position(|known| rolls_up(known, entry))
}

/// Whether an entry passes the filters of the events page.
pub fn passes(entry: &Entry, kind: Option<Kind>, words: &str) -> bool {
    let text = || format!("{} {} {}", entry.sentence, entry.actor, entry.revision).to_ascii_lowercase();
    kind.is_none_or(|kind| entry.kind == kind)
        && words.split_ascii_whitespace().all(|word| text().contains(&word.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        Timestamp,
        id::{NodeId, OperationId, Revision},
    };

    fn batch() -> EventBatch {
        EventBatch {
            revision: Revision(18_177),
            at: Timestamp::UNIX_EPOCH,
            actor: "node 1".to_owned(),
            request_id: "r".to_owned(),
            events: vec![
                Event::OpinionChanged { observer: NodeId(1), subject: NodeId(3), sees: Liveness::Dead },
                Event::NodeStatusChanged {
                    node: NodeId(3),
                    from: NodeStatus::Suspect,
                    to: NodeStatus::Down,
                    reason: "nodes 1 and 2 agree".to_owned(),
                },
            ],
        }
    }

    #[test]
    fn each_event_is_a_sentence() {
        let entries: Vec<Entry> = entries(&batch()).collect();
        assert_eq!(entries[0].sentence, "Node 3 is down: nodes 1 and 2 agree");
        assert_eq!(
            (entries[0].tone, entries[0].kind, entries[0].is_headline),
            (Tone::Bad, Kind::Nodes, true)
        );
        assert_eq!(entries[1].sentence, "Node 1 sees node 3 dead");
        assert_eq!((entries[1].position, entries[1].is_headline), (0, false));
    }

    #[test]
    fn an_operation_that_goes_on_is_no_news() {
        let changed = |status| Event::OperationChanged {
            operation: OperationId(1),
            status,
            error: None,
            ended_at: None,
            keep_until: None,
        };
        assert!(!is_headline(&changed(OperationStatus::Running)));
        assert!(is_headline(&changed(OperationStatus::AwaitingKeep)));
        assert_eq!(tone(&changed(OperationStatus::Reverted)), Tone::Warning);
    }

    #[test]
    fn changes_of_one_setting_are_one_line() {
        let news = entries(&batch()).next().unwrap();
        let beat = |revision| Entry {
            revision,
            since: revision,
            kind: Kind::Settings,
            sentence: format!("Setting demo.beat is now {revision}"),
            rolls_up_as: Some("demo.beat".to_owned()),
            ..news.clone()
        };
        let mut headlines = vec![beat(8)];
        add_newer(&mut headlines, news.clone());
        add_newer(&mut headlines, beat(9));
        add_newer(&mut headlines, Entry { is_headline: false, ..news.clone() });
        add_older(&mut headlines, beat(2));
        add_older(&mut headlines, news.clone());
        let lines: Vec<(u64, u32)> = headlines.iter().map(|entry| (entry.revision, entry.count)).collect();
        assert_eq!(lines, [(9, 3), (18_177, 1), (18_177, 1)]);
        for _ in 0..2 * MAX_HEADLINES {
            add_newer(&mut headlines, news.clone());
        }
        assert_eq!(headlines.len(), MAX_HEADLINES);
    }

    #[test]
    fn opinions_of_all_nodes_about_an_endpoint_are_one_line() {
        let found = |revision, endpoint: &str, verdict: &str| {
            let health = serde_json::json!({ "verdict": verdict, "since": null, "opinions": [] });
            let event = Event::EndpointHealthChanged {
                upstream: "web".to_owned(),
                endpoint: endpoint.to_owned(),
                health: serde_json::from_value(health).unwrap(),
            };
            let batch = EventBatch { revision: Revision(revision), events: vec![event], ..batch() };
            entries(&batch).next().unwrap()
        };
        let mut headlines = Vec::new();
        for (revision, endpoint, verdict) in [
            (1, "e1", "unhealthy"),
            (2, "e1", "healthy"),
            (3, "e2", "healthy"),
            (4, "e1", "healthy"),
            (5, "e2", "healthy"),
        ] {
            add_newer(&mut headlines, found(revision, endpoint, verdict));
        }
        let lines: Vec<_> = headlines.iter().map(|line| (line.revision, line.count)).collect();
        assert_eq!(lines, [(5, 2), (4, 2), (1, 1)], "that it was down is not lost");
    }

    #[test]
    fn a_full_list_rolls_up_consecutive_entries() {
        let news = entries(&batch()).next().unwrap();
        let line = |key: &str, revision| Entry {
            revision,
            since: revision,
            kind: Kind::Settings,
            rolls_up_as: Some(key.to_owned()),
            ..news.clone()
        };
        let mut lines = Vec::new();
        for entry in [line("a", 20), line("b", 21), line("a", 22), line("b", 23)] {
            roll_up_newer(&mut lines, entry);
        }
        roll_up_older(&mut lines, line("a", 19));
        roll_up_older(&mut lines, Entry { revision: 18, ..news.clone() });
        roll_up_older(&mut lines, line("a", 17));
        roll_up_newer(&mut lines, Entry { revision: 24, ..news.clone() });
        roll_up_newer(&mut lines, line("a", 25));
        let shown: Vec<_> = lines.iter().map(|line| (line.revision, line.since, line.count)).collect();
        let since = news.since;
        assert_eq!(
            shown,
            [(25, 25, 1), (24, since, 1), (23, 21, 2), (22, 19, 3), (18, since, 1), (17, 17, 1)],
            "a line stays in its place while it grows, and ends where something else happened"
        );
    }

    #[test]
    fn an_election_names_the_operation_that_caused_it() {
        let step = |status| ringmaster_common::operation::Step {
            name: "transfer_leadership".to_owned(),
            title: String::new(),
            bound_ms: 1,
            status,
            started_at: None,
            ended_at: None,
            detail: None,
        };
        let batch = |events| EventBatch { events, ..batch() };
        let elected = Event::LeaderElected { term: 4, leader: NodeId(2) };
        let handed =
            |status| Event::StepChanged { operation: OperationId(9), position: 2, step: step(status) };
        let by = |batch: EventBatch| leadership_terms(&batch).map(|term| term.by).collect::<Vec<_>>();
        assert_eq!(by(batch(vec![elected.clone()])), [None]);
        assert_eq!(by(batch(vec![elected.clone(), handed(StepStatus::Succeeded)])), [Some(OperationId(9))]);
        assert_eq!(by(batch(vec![elected, handed(StepStatus::Failed)])), [None]);
    }

    #[test]
    fn an_entry_of_the_audit_stands_alone() {
        let entry = |refused| AuditEntry {
            number: 7,
            revision: Revision(70),
            at: Timestamp::UNIX_EPOCH,
            actor: "cli@::1".to_owned(),
            request_id: "r-1".to_owned(),
            request: "apply plan 3".to_owned(),
            refused,
            operation: None,
        };
        let code = ringmaster_common::error::Code::PlanStale;
        let refused = audit_line(entry(Some(ringmaster_common::error::Refusal::new(code, "node/3 changed"))));
        assert!(passes(&refused, None, "plan_stale r-1 cli@") && refused.rolls_up_as.is_none());
        assert_eq!((refused.rank(), refused.tone), (7, Tone::Warning));
        assert!(audit_line(entry(None)).rolls_up_as.is_none());
    }

    #[test]
    fn filters_take_words_in_any_order() {
        let entry = entries(&batch()).next().unwrap();
        assert!(passes(&entry, None, ""));
        assert!(passes(&entry, Some(Kind::Nodes), "agree NODE"));
        assert!(passes(&entry, None, "18177"));
        assert!(!passes(&entry, Some(Kind::Audit), ""));
        assert!(!passes(&entry, None, "node 9"));
        assert_eq!(Kind::ALL.map(|kind| Kind::parse(kind.as_str())), Kind::ALL.map(Some));
    }
}
