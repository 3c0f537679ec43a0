//! The arithmetic of the quorum in words: the voters, how many a write needs, and how many may fail.
//!
//! [`of`] describes the current voters; [`what_if`] describes voters that the reader considers. Both only count:
//! the planner on the server decides whether a change is allowed, and what it does.

use crate::{
    cluster_summary::answers,
    format::{capitalised, in_words, listed},
    tone::Tone,
};
use ringmaster_common::{cluster::failures_tolerated, id::NodeId, telemetry::Sample, view::ClusterView};

/// The voters and learners, and the voters that are silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// Voters without a recent report.
    pub silent: Vec<NodeId>,
}

/// The quorum as it stands.
pub fn of(view: &ClusterView, sample: Option<&Sample>) -> Quorum {
    let ids = |voter: bool| view.nodes.values().filter(move |node| node.voter == voter);
    let is_silent = |id: &NodeId| {
        let node = view.nodes.get(id);
        sample.is_some_and(|sample| node.is_none_or(|node| !answers(node, sample)))
    };
    let voters: Vec<NodeId> = ids(true).map(|node| node.id).collect();
    Quorum {
        silent: voters.iter().copied().filter(is_silent).collect(),
        voters,
        learners: ids(false).map(|node| node.id).collect(),
    }
}

impl Quorum {
    /// How many voters a write needs.
    pub fn needed(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// How many more may fail; none where there are too few already.
    fn spare(&self) -> Option<usize> {
        (self.voters.len() - self.silent.len()).checked_sub(self.needed())
    }

    pub fn tone(&self) -> Tone {
        match self.spare() {
            _ if self.voters.is_empty() => Tone::Unknown,
            None => Tone::Bad,
            Some(0) if self.voters.len() > 1 => Tone::Warning,
            Some(0) => Tone::Note,
            Some(_) => Tone::Good,
        }
    }

    /// How many a write needs, and what that leaves.
    pub fn arithmetic(&self) -> String {
        let voters = self.voters.len();
        match voters {
            0 => "There are no voters.".to_owned(),
            1 => format!("Node {} is the only voter. If it fails, writes stop.", self.voters[0]),
            _ => format!(
                "A write needs {} of {} voters, so {} may fail.",
                in_words(self.needed() as u64),
                in_words(voters as u64),
                none_or(failures_tolerated(voters))
            ),
        }
    }

    /// How many answer now, and what that means.
    pub fn current(&self) -> String {
        let voters = self.voters.len();
        let silent = capitalised(&nodes(&self.silent));
        let are = if self.silent.len() == 1 { "is" } else { "are" };
        match (self.spare(), self.silent.len()) {
            (_, 0) if voters < 2 => String::new(),
            (_, 0) => format!("All {} answer.", in_words(voters as u64)),
            (None, gone) => format!(
                "{silent} {are} silent. {} of {} left, which is no quorum: writes stop.",
                capitalised(&in_words((voters - gone) as u64)),
                in_words(voters as u64)
            ),
            (Some(spare), _) => {
                format!(
                    "{silent} {are} silent. Writes continue, and {} more may fail.",
                    in_words(spare as u64)
                )
            }
        }
    }

    /// The learners in a sentence.
    pub fn learning(&self) -> String {
        match self.learners.len() {
            0 => "There are no learners.".to_owned(),
            1 => format!(
                "{} is a learner: it receives every entry, serves reads and streams, and does not vote.",
                capitalised(&nodes(&self.learners))
            ),
            _ => format!(
                "{} are learners: they receive every entry, serve reads and streams, and do not vote.",
                capitalised(&nodes(&self.learners))
            ),
        }
    }
}

/// The quorum of other voters.
pub fn what_if(voters: &[NodeId]) -> String {
    let quorum = Quorum { voters: voters.to_vec(), ..Quorum::default() };
    let parity = match voters.len() {
        0 => " Choose at least one.".to_owned(),
        many if many.is_multiple_of(2) => format!(
            " {} voters tolerate as many failures as {}: {}.",
            capitalised(&in_words(many as u64)),
            in_words(many as u64 - 1),
            none_or(failures_tolerated(many))
        ),
        _ => String::new(),
    };
    format!("{}{parity}", quorum.arithmetic())
}

pub fn nodes(ids: &[NodeId]) -> String {
    match ids {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        many => format!("nodes {}", listed(many)),
    }
}

fn none_or(number: usize) -> String {
    if number == 0 { "none".to_owned() } else { in_words(number as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(voters: u64, silent: &[u64]) -> Quorum {
        Quorum {
            voters: (1..=voters).map(NodeId).collect(),
            learners: Vec::new(),
            silent: silent.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn the_arithmetic_is_in_words() {
        for (voters, text) in [
            (1, "Node 1 is the only voter. If it fails, writes stop."),
            (2, "A write needs two of two voters, so none may fail."),
            (3, "A write needs two of three voters, so one may fail."),
            (5, "A write needs three of five voters, so two may fail."),
        ] {
            assert_eq!(quorum(voters, &[]).arithmetic(), text);
        }
    }

    #[test]
    fn silence_is_counted() {
        for (voters, silent, tone, text) in [
            (3, &[][..], Tone::Good, "All three answer."),
            (3, &[2], Tone::Warning, "Node 2 is silent. Writes continue, and no more may fail."),
            (5, &[2], Tone::Good, "Node 2 is silent. Writes continue, and one more may fail."),
            (
                3,
                &[1, 2],
                Tone::Bad,
                "Nodes 1 and 2 are silent. One of three left, which is no quorum: writes stop.",
            ),
            (1, &[], Tone::Note, ""),
        ] {
            let quorum = quorum(voters, silent);
            assert_eq!((quorum.tone(), quorum.current().as_str()), (tone, text));
        }
    }

    #[test]
    fn an_even_number_is_no_gain() {
        assert!(
            what_if(&[NodeId(1), NodeId(2)]).ends_with("Two voters tolerate as many failures as one: none.")
        );
        assert!(!what_if(&[NodeId(1), NodeId(2), NodeId(3)]).contains("tolerate"));
        assert!(what_if(&[]).contains("at least one"));
    }
}
