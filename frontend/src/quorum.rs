//! The quorum in words: whether there is one now, how many voters a write needs, and how many may fail.
//!
//! [`of`] describes the current voters; [`what_if`] describes voters that the reader considers. Both only count:
//! the planner on the server decides whether a change is allowed, and what it does.

use crate::{
    format::{capitalised, in_words, listed},
    leadership::{self, answers},
    tone::Tone,
};
use ringmaster_common::{
    cluster::{self, failures_tolerated},
    id::NodeId,
    telemetry::{Sample, has_losses},
    view::ClusterView,
};

/// The voters and learners, and how many of the voters can be counted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// Voters without a recent report.
    pub silent: Vec<NodeId>,
    /// Voters that answer and lack entries that they had acknowledged.
    pub with_losses: Vec<NodeId>,
    /// How many answer, and whether they are enough.
    pub counts: cluster::Quorum,
    /// Voters that answer, and that the cluster takes for failing.
    pub doubtful: Vec<NodeId>,
    /// How many answer and can be counted on.
    pub counted: cluster::Quorum,
}

/// The quorum as it stands.
pub fn of(view: &ClusterView, sample: Option<&Sample>) -> Quorum {
    let ids = |voter: bool| {
        let nodes = view.nodes.values().filter(move |node| node.voter == voter);
        nodes.map(|node| node.id).collect::<Vec<_>>()
    };
    let (voters, learners) = (ids(true), ids(false));
    // Before the first measurement nothing is known to be silent.
    let Some(sample) = sample else { return Quorum { learners, ..Quorum::answering(&voters) } };
    let node = |id: &NodeId| view.nodes.get(id);
    let is_silent = |id: &NodeId| node(id).is_none_or(|node| !answers(node, sample));
    let (silent, answering): (Vec<_>, Vec<_>) = voters.iter().copied().partition(is_silent);
    let (with_losses, whole): (Vec<_>, Vec<_>) =
        answering.into_iter().partition(|id| has_losses(&sample.nodes, *id));
    let is_doubtful = |id: &NodeId| node(id).is_some_and(|node| !node.is_alive());
    Quorum {
        doubtful: whole.into_iter().filter(is_doubtful).collect(),
        with_losses,
        silent,
        voters,
        learners,
        counts: leadership::quorum(view, sample),
        counted: leadership::counted_quorum(view, sample),
    }
}

impl Quorum {
    /// Voters that all answer and have lost nothing.
    fn answering(voters: &[NodeId]) -> Quorum {
        let counts = cluster::Quorum::of(&[voters.iter().copied().collect()], |_| true);
        Quorum { voters: voters.to_vec(), counted: counts.clone(), counts, ..Quorum::default() }
    }

    pub fn tone(&self) -> Tone {
        match self.counted.spare() {
            _ if self.voters.is_empty() => Tone::Unknown,
            _ if !self.counts.has => Tone::Bad,
            0 if self.voters.len() > 1 => Tone::Warning,
            0 => Tone::Note,
            _ => Tone::Good,
        }
    }

    /// The state now, as a headline. `since` is when the quorum was lost.
    pub fn headline(&self, since: Option<String>) -> String {
        let voters = self.voters.len();
        let is_joint = !self.counts.joint.is_empty();
        if voters == 0 {
            "There are no voters.".to_owned()
        } else if !self.counts.has {
            let since = since.map(|at| format!(" since {at}")).unwrap_or_default();
            let verb = if self.counts.answering == 1 && !is_joint { "answers" } else { "answer" };
            format!("No quorum: {} {verb}. Nothing can be written{since}.", self.counts.answering_in_words())
        } else if is_joint {
            format!("A change of voters is under way. {}", further(self.counted.spare()))
        } else if voters == 1 {
            format!("Node {} is the only voter. If it fails, writes stop.", self.voters[0])
        } else if !self.counted.has {
            // A voter that has lost entries still stores new ones.
            format!("{} Writes stop if one more voter fails.", self.arithmetic())
        } else if self.counted.answering == self.counted.voters {
            format!("{} {}", self.arithmetic(), tolerated(failures_tolerated(voters)))
        } else {
            let kept_by = self.counted.answering;
            format!("Quorum is kept by {kept_by} of {voters} voters. {}", further(self.counted.spare()))
        }
    }

    /// How many voters a write needs.
    pub fn arithmetic(&self) -> String {
        match self.counts.joint.is_empty() {
            true => format!("Quorum is {}.", self.counts.requirement()),
            false => format!("A write needs {}.", self.counts.requirement()),
        }
    }

    /// The voters that are not counted, and the arithmetic where the headline does not say it.
    pub fn details(&self) -> String {
        let is_joint = !self.counts.joint.is_empty();
        if self.voters.len() < 2 && !is_joint {
            return String::new();
        }
        let mut sentences = Vec::new();
        match self.silent.as_slice() {
            [] => sentences.push(format!("All {} answer.", in_words(self.voters.len() as u64))),
            silent => sentences.push(format!("{} {} silent.", capitalised(&nodes(silent)), is(silent))),
        }
        if !self.with_losses.is_empty() {
            let (named, verb) = match self.with_losses.as_slice() {
                one @ [_] => (nodes(one), "has lost log entries and does not count as a voter until it has"),
                many => (nodes(many), "have lost log entries and do not count as voters until they have"),
            };
            sentences.push(format!("{} {verb} them again.", capitalised(&named)));
        }
        if !self.doubtful.is_empty() {
            sentences.push(format!(
                "{} {} suspect.",
                capitalised(&nodes(&self.doubtful)),
                is(&self.doubtful)
            ));
        }
        if sentences.len() > 1 || !self.silent.is_empty() || is_joint {
            sentences.push(self.arithmetic());
        }
        sentences.join(" ")
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
    let quorum = Quorum::answering(voters);
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

fn further(failures: u64) -> String {
    match failures {
        0 => "No further failure is tolerated.".to_owned(),
        1 => "1 further failure is tolerated.".to_owned(),
        many => format!("{many} further failures are tolerated."),
    }
}

fn is(ids: &[NodeId]) -> &'static str {
    if ids.len() == 1 { "is" } else { "are" }
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
    use crate::leadership::tests::{report, sample, view};
    use ringmaster_common::cluster::{NodeStatus, Role};

    /// A cluster of so many voters, of which these are silent.
    fn quorum(voters: u64, silent: &[u64]) -> Quorum {
        let reports = (1..=voters).filter(|id| !silent.contains(id)).map(|id| report(id, Role::Follower, 7));
        of(&view(voters), Some(&sample(reports.collect())))
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
    fn a_voter_that_has_lost_entries_is_not_one_to_spare() {
        let with_losses = |voters: u64, silent: &[u64]| {
            let reports = (1..=voters).filter(|id| !silent.contains(id)).map(|id| {
                let mut aged = report(id, Role::Follower, 7);
                aged.report.lost_through = (id == voters).then_some(262);
                aged
            });
            of(&view(voters), Some(&sample(reports.collect())))
        };
        let three = with_losses(3, &[]);
        assert_eq!(three.tone(), Tone::Warning);
        assert_eq!(three.headline(None), "Quorum is kept by 2 of 3 voters. No further failure is tolerated.");
        assert_eq!(
            three.details(),
            "All three answer. Node 3 has lost log entries and does not count as a voter until it has them again. \
             Quorum is 2 of 3 voters."
        );
        let two = with_losses(3, &[1]);
        assert_eq!(two.tone(), Tone::Warning, "the leader and node 3 store entries");
        assert_eq!(two.headline(None), "Quorum is 2 of 3 voters. Writes stop if one more voter fails.");
        assert_eq!(
            with_losses(5, &[]).headline(None),
            "Quorum is kept by 4 of 5 voters. 1 further failure is tolerated."
        );
    }

    #[test]
    fn a_suspect_voter_is_not_one_to_spare() {
        let mut view = view(3);
        view.nodes.get_mut(&NodeId(2)).unwrap().status = NodeStatus::Suspect;
        let reports = (1..=3).map(|id| report(id, Role::Follower, 7));
        let quorum = of(&view, Some(&sample(reports.collect())));
        assert_eq!(
            quorum.headline(None),
            "Quorum is kept by 2 of 3 voters. No further failure is tolerated."
        );
        assert_eq!(quorum.details(), "All three answer. Node 2 is suspect. Quorum is 2 of 3 voters.");
    }

    /// From voters 1, 2, 3 to voters 1, 4, 5; all five are marked as voters meanwhile.
    #[test]
    fn while_voters_change_both_majorities_are_counted() {
        let changing = |silent: &[u64]| {
            let reports = (1..=5).filter(|id| !silent.contains(id)).map(|id| {
                let mut aged = report(id, Role::Follower, 7);
                aged.report.joint_voters = [[1, 2, 3], [1, 4, 5]].map(|set| set.map(NodeId).into()).into();
                aged
            });
            of(&view(5), Some(&sample(reports.collect())))
        };
        let whole = changing(&[]);
        assert_eq!(whole.headline(None), "A change of voters is under way. 1 further failure is tolerated.");
        assert_eq!(
            whole.details(),
            "All five answer. A write needs 2 of the 3 voters before the change of voters and 2 of the 3 after it."
        );
        let halved = changing(&[4, 5]);
        assert_eq!(halved.tone(), Tone::Bad, "three of five are a majority of the union alone");
        assert_eq!(
            halved.headline(None),
            "No quorum: 3 of the 3 voters before the change of voters and 1 of the 3 after it answer. Nothing can be \
             written."
        );
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
