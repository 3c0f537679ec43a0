//! Compares the state of the nodes: each computes a digest of its whole state at the same entries of the log.
//!
//! Nodes that have applied the same entries have the same state. Where they have not, one of them has applied another
//! history or has computed another outcome, and no node can tell which is right: so it is the first of all warnings. The
//! entries are those at which cluster time passes a multiple of [`ringmaster_cluster_group::CHECKPOINT_EVERY`]; the leader
//! lets time pass once more after the last write.

use ringmaster_common::{
    id::{NodeId, Revision},
    plan::Warning,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many digests a report carries: nodes that are behind each other by less can be compared.
const KEPT: usize = 8;

/// The digest of a node's state at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) revision: Revision,
    pub(crate) digest: String,
    /// Versions may encode a state, and word what is in it, differently: those of one version are compared.
    pub(crate) version: String,
}

/// The latest digests of this node.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints(VecDeque<Checkpoint>);

impl Checkpoints {
    pub(crate) fn add(&mut self, checkpoint: Checkpoint) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(checkpoint);
    }

    pub(crate) fn all(&self) -> Vec<Checkpoint> {
        self.0.iter().cloned().collect()
    }
}

/// A warning for each node whose state differs from that of the others, at the latest revision that it shares with any.
pub(crate) fn differences<'a>(nodes: impl Iterator<Item = (NodeId, &'a [Checkpoint])>) -> Vec<Warning> {
    let mut shared = BTreeMap::<(Revision, &str), BTreeMap<&str, BTreeSet<NodeId>>>::new();
    for (node, checkpoints) in nodes {
        for Checkpoint { revision, digest, version } in checkpoints {
            shared.entry((*revision, version)).or_default().entry(digest).or_default().insert(node);
        }
    }
    let (mut compared, mut found) = (BTreeSet::new(), Vec::new());
    for ((revision, _), by_digest) in shared.iter().rev() {
        let nodes: BTreeSet<NodeId> = by_digest.values().flatten().copied().collect();
        if nodes.len() < 2 {
            continue;
        }
        let largest = by_digest.values().map(BTreeSet::len).max().unwrap_or(0);
        let is_tie = by_digest.values().filter(|nodes| nodes.len() == largest).count() > 1;
        for same in by_digest.values() {
            let differs = by_digest.len() > 1 && (is_tie || same.len() < largest);
            for node in same.iter().filter(|node| !compared.contains(*node)).filter(|_| differs) {
                let others: Vec<_> = nodes.difference(same).map(NodeId::to_string).collect();
                found.push(Warning {
                    code: "state_differs".to_owned(),
                    detail: format!(
                        "the state of node {node} differs from that of node{} {} at revision {revision}: reads of them \
                         disagree. Decide which of them is right, keep copies of the data directories, remove the \
                         others, and let them join with empty data directories",
                        if others.len() == 1 { "" } else { "s" },
                        others.join(", ")
                    ),
                    subject: format!("node/{node}"),
                });
            }
        }
        compared.extend(nodes);
    }
    found.sort_by(|one, other| one.subject.cmp(&other.subject));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints(version: &str, digests: &[(u64, &str)]) -> Vec<Checkpoint> {
        let checkpoint = |(revision, digest): &(u64, &str)| Checkpoint {
            revision: Revision(*revision),
            digest: (*digest).to_owned(),
            version: version.to_owned(),
        };
        digests.iter().map(checkpoint).collect()
    }

    fn differing(nodes: &[Vec<Checkpoint>]) -> Vec<String> {
        let nodes = nodes.iter().zip(1..).map(|(checkpoints, id)| (NodeId(id), &checkpoints[..]));
        differences(nodes).into_iter().map(|warning| warning.subject).collect()
    }

    #[test]
    fn the_node_that_is_alone_with_its_state_is_named() {
        let same = checkpoints("1", &[(10, "a"), (20, "b")]);
        let other = checkpoints("1", &[(10, "a"), (20, "x")]);
        assert_eq!(differing(&[same.clone(), same.clone(), same.clone()]), [""; 0]);
        assert_eq!(differing(&[same.clone(), other.clone(), same.clone()]), ["node/2"]);
        assert_eq!(differing(&[same.clone(), other.clone()]), ["node/1", "node/2"]);
        assert_eq!(differing(&[other]), [""; 0]);
    }

    #[test]
    fn nodes_are_compared_at_the_latest_revision_that_they_share() {
        let healed = checkpoints("1", &[(10, "x"), (30, "c")]);
        let whole = checkpoints("1", &[(10, "a"), (20, "b"), (30, "c")]);
        let behind = checkpoints("1", &[(10, "a"), (20, "x")]);
        assert_eq!(differing(&[healed, whole.clone(), whole.clone()]), [""; 0]);
        // The last two share revision 20, and none of them differs at 30.
        assert_eq!(differing(&[whole.clone(), whole, behind]), ["node/3"]);
    }

    #[test]
    fn versions_are_not_compared_with_each_other() {
        let (old, new) = (checkpoints("1", &[(10, "a")]), checkpoints("2", &[(10, "b")]));
        assert_eq!(differing(&[old.clone(), old, new]), [""; 0]);
    }

    #[test]
    fn a_report_carries_the_latest() {
        let mut kept = Checkpoints::default();
        for revision in 0..20 {
            kept.add(checkpoints("1", &[(revision, "a")]).remove(0));
        }
        let revisions: Vec<_> = kept.all().iter().map(|checkpoint| checkpoint.revision.0).collect();
        assert_eq!(revisions, (12..20).collect::<Vec<_>>());
    }
}
