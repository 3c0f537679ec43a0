//! The arithmetic of quorums.

use ringmaster_cluster::{State, observations::Observations};
use ringmaster_common::id::NodeId;
use std::collections::BTreeSet;

pub type Voters = BTreeSet<NodeId>;

/// The sets of voters of each of which writes need a majority now: two while a change of voters is under way.
pub fn voter_sets(state: &State, observations: &Observations) -> Vec<Voters> {
    match observations.joint_voters.as_slice() {
        [] => vec![state.membership.voters.clone()],
        sets => sets.to_vec(),
    }
}

/// How many of `voters` may fail with the rest still taking writes, by which of them are alive now.
pub fn spare_voters(state: &State, observations: &Observations, voters: &Voters) -> u64 {
    living(state, observations, voters).saturating_sub(majority(voters)) as u64
}

/// How many of them are alive and have all that they acknowledged.
pub fn living(state: &State, observations: &Observations, voters: &Voters) -> usize {
    let whole = voters.difference(&observations.with_losses);
    whole.filter_map(|id| state.membership.get(*id)).filter(|node| node.is_alive()).count()
}

pub fn majority(voters: &Voters) -> usize {
    voters.len() / 2 + 1
}
