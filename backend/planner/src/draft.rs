//! The parts that the drafts of all goals share.

use crate::{
    blocker::Blocker,
    quorum::{spare_voters, voter_sets},
    warning::Warning,
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::StepSpec,
};
use ringmaster_common::{
    action::Action,
    cluster::Node,
    duration::millis,
    error::{Code, Refusal},
    id::NodeId,
    plan::{Fact, Impact, Observation, Scope},
};
use std::time::Duration;

/// How long a preflight may take.
pub const PREFLIGHT_WITHIN: Duration = Duration::from_secs(1);
/// How long a step may take that writes one entry: long enough to propose it again after one try was not answered.
pub const ENTRY_WITHIN: Duration = Duration::from_secs(5);

/// A draft without steps, in which no voter and no leader changes.
pub fn draft(
    state: &State,
    observations: &Observations,
    action: Action,
    scope: Scope,
    facts: impl IntoIterator<Item = FactKey>,
) -> Draft {
    let voters = &state.membership.voters;
    let sets = voter_sets(state, observations);
    let spare = sets.iter().map(|voters| spare_voters(state, observations, voters)).min().unwrap_or(0);
    Draft {
        revision: state.revision,
        action,
        scope,
        steps: Vec::new(),
        revert: None,
        undo: None,
        undoes: None,
        summary: String::new(),
        footprint: footprint(state, facts),
        observations: Vec::new(),
        impact: Impact {
            voters_before: voters.len() as u64,
            voters_after: voters.len() as u64,
            failures_tolerated_before: spare,
            failures_tolerated_after: spare,
            leader_before: state.leader(),
            leader_after: state.leader(),
            ..Impact::default()
        },
        warnings: Vec::new(),
        blockers: Vec::new(),
    }
}

pub fn footprint(state: &State, facts: impl IntoIterator<Item = FactKey>) -> Vec<Fact> {
    facts.into_iter().map(|fact| Fact { fact: fact.to_string(), version: state.version(&fact) }).collect()
}

pub fn step(spec: StepSpec, title: impl Into<String>, bound: Duration) -> DraftStep {
    DraftStep { spec, title: title.into(), bound_ms: millis(bound) }
}

pub fn texts_of_blockers(blockers: &[Blocker]) -> Vec<ringmaster_common::plan::Blocker> {
    blockers.iter().map(Blocker::text).collect()
}

pub fn texts_of_warnings(warnings: &[Warning]) -> Vec<ringmaster_common::plan::Warning> {
    warnings.iter().map(Warning::text).collect()
}

pub fn find(state: &State, id: NodeId) -> Result<&Node, Refusal> {
    state.membership.get(id).ok_or_else(|| {
        Refusal::new(Code::UnknownNode, format!("node {id} is not a member; {}", state.membership.known()))
    })
}

pub fn leader(state: &State) -> Result<NodeId, Refusal> {
    let none = || Refusal::new(Code::NoLeader, "no leader has been elected yet; try again in a moment");
    state.leader().ok_or_else(none)
}

/// How many entries each node lacks, as the leader measured it.
pub fn lags(observations: &Observations, ids: impl IntoIterator<Item = NodeId>) -> Vec<Observation> {
    ids.into_iter()
        .filter_map(|id| {
            let peer = observations.peers.get(&id)?;
            Some(Observation {
                what: format!("entries that node {id} lacks"),
                value: peer.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
                age_ms: millis(peer.age),
            })
        })
        .collect()
}
