//! The arithmetic of quorums: how many voters a write needs, how many answer, and how many more may fail.
//!
//! While a change of voters is under way there are two sets of voters, those before it and those after it, and a write
//! needs a majority of each. A voter that has lost entries answers and stores what it receives, so it helps to commit
//! now; after a failure it votes only for some of the others, so it is not counted among those to spare.

use crate::{
    id::NodeId,
    node::Node,
    telemetry::{AgedReport, FRESH_MS, has_losses},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Whether enough voters answer for writes to be taken, as the answering node sees it now.
///
/// Without a quorum the replicated state of the members may be out of date.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quorum {
    pub has: bool,
    /// The number of voters; while a change of voters is under way, of the set that has the fewest to spare. So are
    /// `answering` and `needed`.
    pub voters: u64,
    /// The voters that the answering node has a connection to, and itself.
    pub answering: u64,
    /// The number of voters that a write needs.
    pub needed: u64,
    /// While a change of voters is under way: the voters before it, then those after it. A write needs a majority of
    /// both. Empty at all other times.
    #[serde(default)]
    pub joint: Vec<Majority>,
}

/// One set of voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Majority {
    pub voters: u64,
    pub answering: u64,
    pub needed: u64,
}

/// How many of `voters` are a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many of `voters` may fail with a majority left.
pub fn failures_tolerated(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

/// The sets of voters of each of which a write needs a majority. The node with the longest log knows best whether a
/// change of voters is under way.
pub fn voter_sets<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    reports: &[AgedReport],
) -> Vec<BTreeSet<NodeId>> {
    let fresh = reports.iter().filter(|aged| aged.age_ms <= FRESH_MS).map(|aged| &aged.report);
    match fresh.max_by_key(|report| (report.term, report.last_log_index)) {
        Some(report) if !report.joint_voters.is_empty() => report.joint_voters.clone(),
        _ => vec![nodes.filter(|node| node.voter).map(|node| node.id).collect()],
    }
}

/// Whether the cluster can count on this node as a voter, by its agreed status and its last report: it is not down, and
/// has all entries that it has acknowledged.
pub fn counts_as_voter(node: &Node, reports: &[AgedReport]) -> bool {
    node.is_alive() && !has_losses(reports, node.id)
}

impl Quorum {
    /// The quorum of these sets of voters, by which of them answer.
    pub fn of(sets: &[BTreeSet<NodeId>], answers: impl Fn(NodeId) -> bool) -> Quorum {
        let majorities: Vec<Majority> = sets
            .iter()
            .map(|voters| Majority {
                voters: voters.len() as u64,
                answering: voters.iter().filter(|voter| answers(**voter)).count() as u64,
                needed: majority(voters.len()) as u64,
            })
            .collect();
        let Some(tightest) = majorities
            .iter()
            .copied()
            .min_by_key(|set| set.answering.cast_signed() - set.needed.cast_signed())
        else {
            return Quorum::default();
        };
        let Majority { voters, answering, needed } = tightest;
        let joint = if majorities.len() > 1 { majorities } else { Vec::new() };
        Quorum { has: answering >= needed, voters, answering, needed, joint }
    }

    /// How many of the voters that answer may fail, whichever they are, with a majority of each set left.
    pub fn spare(&self) -> u64 {
        self.answering.saturating_sub(self.needed)
    }

    /// The votes that a write needs, in words, for example `2 of 3 voters`.
    pub fn requirement(&self) -> String {
        match self.joint.as_slice() {
            [before, after, ..] => format!(
                "{} of the {} voters before the change of voters and {} of the {} after it",
                before.needed, before.voters, after.needed, after.voters
            ),
            _ => format!("{} of {} voters", self.needed, self.voters),
        }
    }

    /// The voters that answer, in words, for example `1 of 3 voters`.
    pub fn answering_in_words(&self) -> String {
        match self.joint.as_slice() {
            [before, after, ..] => format!(
                "{} of the {} voters before the change of voters and {} of the {} after it",
                before.answering, before.voters, after.answering, after.voters
            ),
            _ => format!("{} of {} voters", self.answering, self.voters),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn quorum(sets: &[&[u64]], silent: &[u64]) -> Quorum {
        let sets: Vec<_> = sets.iter().map(|ids| set(ids)).collect();
        Quorum::of(&sets, |id| !silent.contains(&id.0))
    }

    #[test]
    fn one_set_of_voters_needs_one_majority() {
        for (sets, silent, has, spare) in [
            (&[1, 2, 3][..], &[][..], true, 1),
            (&[1, 2, 3], &[3], true, 0),
            (&[1, 2, 3], &[2, 3], false, 0),
            (&[1, 2, 3, 4, 5], &[5], true, 1),
            (&[1], &[], true, 0),
        ] {
            let quorum = quorum(&[sets], silent);
            assert_eq!((quorum.has, quorum.spare()), (has, spare), "{quorum:?}");
            assert_eq!(quorum.joint, []);
        }
        assert_eq!(Quorum::of(&[], |_| true), Quorum::default(), "a node that knows no voters has no quorum");
    }

    /// From voters 1, 2, 3 to voters 1, 4, 5: of the union of five, three answer, which would be a majority.
    #[test]
    fn two_sets_of_voters_need_both_majorities() {
        let quorum = quorum(&[&[1, 2, 3], &[1, 4, 5]], &[4, 5]);
        assert!(!quorum.has);
        assert_eq!((quorum.voters, quorum.answering, quorum.needed), (3, 1, 2), "the set that lacks votes");
        let sets = [(3, 3, 2), (3, 1, 2)];
        let sets = sets.map(|(voters, answering, needed)| Majority { voters, answering, needed });
        assert_eq!(quorum.joint, sets);
        assert_eq!(
            quorum.requirement(),
            "2 of the 3 voters before the change of voters and 2 of the 3 after it"
        );
        assert_eq!(
            quorum.answering_in_words(),
            "3 of the 3 voters before the change of voters and 1 of the 3 after it"
        );
    }

    /// From voters 1, 2, 3 to voters 1, 2: the union of three would bear a failure.
    #[test]
    fn the_smaller_set_says_how_many_may_fail() {
        let quorum = quorum(&[&[1, 2, 3], &[1, 2]], &[]);
        assert!(quorum.has);
        assert_eq!(quorum.spare(), 0);
    }
}
