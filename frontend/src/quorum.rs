//! The quorum in words: whether there is one now, how many voters a write needs, and how many may fail.
//!
//! [`of`] describes the current voters; [`what_if`] describes voters that the reader considers. Both only count:
//! the planner on the server decides whether a change is allowed, and what it does.

use crate::{
    format::{capitalised, count, in_words, listed},
    leadership::answers,
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

    /// The state now, as a headline. `since` is when the quorum was lost.
    pub fn headline(&self, since: Option<String>) -> String {
        let voters = self.voters.len();
        let answering = voters - self.silent.len();
        match (self.spare(), self.silent.len()) {
            _ if voters == 0 => "There are no voters.".to_owned(),
            (None, _) => {
                let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
                let verb = if answering == 1 { "answers" } else { "answer" };
                format!(
                    "No quorum: {answering} of {} {verb}. Nothing can be written{since}.",
                    count(voters as u64, "voter")
                )
            }
            (Some(_), 0) if voters == 1 => {
                format!("Node {} is the only voter. If it fails, writes stop.", self.voters[0])
            }
            (Some(_), 0) => format!("{} {}", self.arithmetic(), tolerated(failures_tolerated(voters))),
            (Some(spare), _) => {
                format!("Quorum is kept by {answering} of {voters} voters. {}", further(spare))
            }
        }
    }

    /// How many voters a write needs.
    pub fn arithmetic(&self) -> String {
        format!("Quorum is {} of {}.", self.needed(), count(self.voters.len() as u64, "voter"))
    }

    /// The voters that are silent, and the arithmetic where the headline does not say it.
    pub fn details(&self) -> String {
        match self.silent.as_slice() {
            [] if self.voters.len() < 2 => String::new(),
            [] => format!("All {} answer.", in_words(self.voters.len() as u64)),
            silent => {
                let are = if silent.len() == 1 { "is" } else { "are" };
                format!("{} {are} silent. {}", capitalised(&nodes(silent)), self.arithmetic())
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

/// The quorum of other voters, all of which answer.
pub fn what_if(voters: &[NodeId]) -> String {
    let quorum = Quorum { voters: voters.to_vec(), ..Quorum::default() };
    match voters.len() {
        0 => "There are no voters. Choose at least one.".to_owned(),
        2 => "Two voters tolerate no failure: losing either stops writes.".to_owned(),
        many if many.is_multiple_of(2) => {
            format!("{} As many as with {} voters.", quorum.headline(None), in_words(many as u64 - 1))
        }
        _ => quorum.headline(None),
    }
}

fn tolerated(failures: usize) -> String {
    match failures {
        0 => "No failure is tolerated.".to_owned(),
        1 => "1 failure is tolerated.".to_owned(),
        many => format!("{many} failures are tolerated."),
    }
}

fn further(failures: usize) -> String {
    match failures {
        0 => "No further failure is tolerated.".to_owned(),
        1 => "1 further failure is tolerated.".to_owned(),
        many => format!("{many} further failures are tolerated."),
    }
}

pub fn nodes(ids: &[NodeId]) -> String {
    match ids {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        many => format!("nodes {}", listed(many)),
    }
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
    fn the_headline_is_the_state_now() {
        for (voters, silent, tone, text) in [
            (1, &[][..], Tone::Note, "Node 1 is the only voter. If it fails, writes stop."),
            (2, &[], Tone::Warning, "Quorum is 2 of 2 voters. No failure is tolerated."),
            (3, &[], Tone::Good, "Quorum is 2 of 3 voters. 1 failure is tolerated."),
            (5, &[], Tone::Good, "Quorum is 3 of 5 voters. 2 failures are tolerated."),
            (3, &[2], Tone::Warning, "Quorum is kept by 2 of 3 voters. No further failure is tolerated."),
            (5, &[2], Tone::Good, "Quorum is kept by 4 of 5 voters. 1 further failure is tolerated."),
            (
                3,
                &[1, 2],
                Tone::Bad,
                "No quorum: 1 of 3 voters answers. Nothing can be written since 19:30:33.",
            ),
            (
                5,
                &[1, 2, 3],
                Tone::Bad,
                "No quorum: 2 of 5 voters answer. Nothing can be written since 19:30:33.",
            ),
        ] {
            let quorum = quorum(voters, silent);
            assert_eq!((quorum.tone(), quorum.headline(Some("19:30:33".to_owned())).as_str()), (tone, text));
        }
        assert_eq!(
            quorum(3, &[1, 2]).headline(None),
            "No quorum: 1 of 3 voters answers. Nothing can be written.",
            "the moment is not known"
        );
    }

    #[test]
    fn the_arithmetic_is_the_small_print() {
        assert_eq!(quorum(3, &[1, 2]).details(), "Nodes 1 and 2 are silent. Quorum is 2 of 3 voters.");
        assert_eq!(quorum(3, &[2]).details(), "Node 2 is silent. Quorum is 2 of 3 voters.");
        assert_eq!(quorum(3, &[]).details(), "All three answer.");
        assert_eq!(quorum(1, &[]).details(), "");
    }

    #[test]
    fn an_even_number_is_no_gain() {
        let ids = |count: u64| (1..=count).map(NodeId).collect::<Vec<_>>();
        assert_eq!(what_if(&ids(2)), "Two voters tolerate no failure: losing either stops writes.");
        assert_eq!(what_if(&ids(3)), "Quorum is 2 of 3 voters. 1 failure is tolerated.");
        assert_eq!(
            what_if(&ids(4)),
            "Quorum is 3 of 4 voters. 1 failure is tolerated. As many as with three voters."
        );
        assert!(what_if(&[]).contains("at least one"));
    }
}
