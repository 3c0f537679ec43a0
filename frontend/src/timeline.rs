//! Events as the lists show them: one sentence, one tone and one kind each.

use crate::situation::Tone;
use ringmaster_common::{
    cluster::{NodeStatus, Sees},
    event::{Event, EventBatch},
    operation::{OperationStatus, StepStatus},
};

/// What an event is about, to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nodes,
    Leadership,
    Operations,
    Settings,
    Audit,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Nodes, Kind::Leadership, Kind::Operations, Kind::Settings, Kind::Audit];

    /// The value in the page's address.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Nodes => "nodes",
            Kind::Leadership => "leadership",
            Kind::Operations => "operations",
            Kind::Settings => "settings",
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
            | Event::NodeJoined { .. }
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
            Event::SettingChanged { .. } => Kind::Settings,
            Event::Audited { .. } => Kind::Audit,
        }
    }
}

/// Whether an event belongs into a short list of what happened. What only leads up to another event,
/// such as the steps of an operation, is left to the full timeline.
pub fn is_headline(event: &Event) -> bool {
    match event {
        Event::OpinionChanged { .. }
        | Event::PlanCreated { .. }
        | Event::StepChanged { .. }
        | Event::StepsAdded { .. }
        | Event::Audited { .. } => false,
        // Each resumption is one, but only an end or a wait is news.
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
            Sees::Alive => Tone::Good,
            Sees::Suspect => Tone::Warning,
            Sees::Dead => Tone::Bad,
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
        _ => Tone::Note,
    }
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub revision: u64,
    /// Among the events of its revision.
    pub position: usize,
    pub at: ringmaster_common::Timestamp,
    pub actor: String,
    pub kind: Kind,
    pub tone: Tone,
    pub sentence: String,
    pub is_headline: bool,
    /// Changes of one thing that are shown as one line in a short list.
    pub rolls_up_as: Option<String>,
    /// How many events the line stands for.
    pub count: u32,
}

/// The lines of a batch, the last one first.
pub fn entries(batch: &EventBatch) -> impl Iterator<Item = Entry> + '_ {
    batch.events.iter().enumerate().rev().map(|(position, event)| Entry {
        revision: batch.revision.0,
        position,
        at: batch.at,
        actor: batch.actor.clone(),
        kind: Kind::of(event),
        tone: tone(event),
        sentence: crate::format::capitalised(&event.to_string()),
        is_headline: is_headline(event),
        rolls_up_as: match event {
            Event::SettingChanged { setting } => Some(setting.key.clone()),
            _ => None,
        },
        count: 1,
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
        entry.count += headlines.remove(position).count;
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
        Some(position) => headlines[position].count += entry.count,
        None if headlines.len() < MAX_HEADLINES => headlines.push(entry),
        None => {}
    }
}

fn same_line(headlines: &[Entry], entry: &Entry) -> Option<usize> {
    entry.rolls_up_as.as_ref()?;
    headlines.iter().position(|known| known.rolls_up_as == entry.rolls_up_as)
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
                Event::OpinionChanged { observer: NodeId(1), subject: NodeId(3), sees: Sees::Dead },
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
