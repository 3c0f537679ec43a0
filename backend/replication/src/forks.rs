//! A leader whose log differs from what this replica has committed.
//!
//! Raft excludes it as long as no voter forgets anything. Where a majority was put back to an older state, it elects a
//! leader without the entries that it had acknowledged, and a replica that still has them is the only trace of them. It
//! stops: it would answer reads from another history than the others.

use crate::types::LogId;
use ringmaster_common::id::NodeId;

/// Why a replica stops that has followed one leader of a term and hears another one of the same term.
pub fn two_leaders(term: u64, ours: NodeId, theirs: NodeId) -> String {
    format!(
        "nodes {ours} and {theirs} have led in the same term, {term}: a voter has forgotten its vote, because its data \
         directory was put back to an older state, and the cluster has gone on without writes that this node may have. \
         Keep a copy of its data directory if they matter; then remove the node, and let it join with an empty data \
         directory"
    )
}

/// Why a replica stops whose committed entry is `ours`, where the leader has `theirs`.
pub fn forked(ours: LogId, theirs: LogId) -> String {
    format!(
        "the leader's log has an entry of term {} at index {}, where this node has committed one of term {}: a majority \
         of the voters was put back to an older state, and the cluster has gone on without writes that this node has. \
         Keep a copy of its data directory if they matter; then remove the node, and let it join with an empty data \
         directory",
        theirs.leader_id.term, theirs.index, ours.leader_id.term
    )
}
