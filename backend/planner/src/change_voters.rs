//! Changing the voters of the cluster group.
//!
//! A change of voters goes through a joint configuration, in which both the voters before and those after need a
//! majority. A change that would leave either without one is refused here, where it can be explained, instead of when
//! writes have stopped.

use crate::{
    blocker::Blocker,
    draft::{
        PREFLIGHT_WITHIN, draft, find, footprint, lags, leader, step, texts_of_blockers, texts_of_warnings,
    },
    quorum::{Voters, living, majority, spare_voters},
    transfer_leadership::{TRANSFER_WITHIN, successor},
    warning::Warning,
    words::nodes,
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::{Check, StepSpec},
};
use ringmaster_common::{
    action::Action,
    cluster::failures_tolerated,
    duration::millis,
    error::{Code, Refusal},
    id::NodeId,
    plan::{Fact, Impact, Scope},
};
use std::time::Duration;

/// A node that is to vote may have to be sent a snapshot first.
pub const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// How long a change of members may take, through its joint configuration.
pub const MEMBERSHIP_WITHIN: Duration = Duration::from_secs(10);

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    after: Voters,
) -> Result<Draft, Refusal> {
    if after.is_empty() {
        return Err(Refusal::new(Code::InvalidRequest, "a cluster has at least one voter; name them all"));
    }
    for id in &after {
        find(state, *id)?;
    }
    let before = state.membership.voters.clone();
    let mut blockers = preflight(state, observations, &before, &after);
    if before == after {
        blockers.push(Blocker::VotersUnchanged { voters: before.clone() });
    }
    let leader = leader(state)?;
    let draft = draft(state, observations, action, Scope::Cluster, []);
    Ok(Draft {
        steps: steps(&before, &after),
        revert: Some(steps(&after, &before)),
        undo: Some(Action::ChangeVoters { voters: before.clone() }),
        summary: format!(
            "{} of the cluster group {} {}, in place of {}. {}",
            if after.len() == 1 { "The voter" } else { "The voters" },
            if after.len() == 1 { "becomes" } else { "become" },
            nodes(after.iter().copied()),
            nodes(before.iter().copied()),
            arithmetic(&after),
        ),
        footprint: facts(state, &before, &after),
        observations: lags(observations, after.difference(&before).copied()),
        impact: impact(state, observations, &before, &after, leader),
        warnings: texts_of_warnings(&warnings(state, observations, &before, &after)),
        blockers: texts_of_blockers(&blockers),
        ..draft
    })
}

pub fn steps(before: &Voters, after: &Voters) -> Vec<DraftStep> {
    let new = after - before;
    let stay: Voters = before & after;
    vec![
        step(
            StepSpec::Preflight(Check::Quorum { before: before.clone(), after: after.clone() }),
            "Check again: quorum is kept",
            PREFLIGHT_WITHIN,
        ),
        catch_up(new),
        step(
            StepSpec::TransferLeadership { from: None, to: stay },
            "Transfer leadership, if the leader would no longer vote",
            TRANSFER_WITHIN,
        ),
        step(
            StepSpec::ChangeVoters { voters: after.clone() },
            format!(
                "Make {} the {}",
                nodes(after.iter().copied()),
                if after.len() == 1 { "only voter" } else { "voters" }
            ),
            MEMBERSHIP_WITHIN,
        ),
    ]
}

pub fn catch_up(new: Voters) -> DraftStep {
    let title = match new.len() {
        0 => "No node has to catch up".to_owned(),
        1 => format!("Wait until {} has every entry", nodes(new.iter().copied())),
        _ => format!("Wait until {} have every entry", nodes(new.iter().copied())),
    };
    step(StepSpec::CatchUp { nodes: new }, title, CATCH_UP_WITHIN)
}

/// What blocks a change of voters from `before` to `after` now.
pub fn preflight(
    state: &State,
    observations: &Observations,
    before: &Voters,
    after: &Voters,
) -> Vec<Blocker> {
    if after.is_empty() {
        return vec![Blocker::LastVoter];
    }
    let mut blockers = Vec::new();
    let joint = observations.joint_voters.iter();
    let has_none = |voters: &&Voters| living(state, observations, voters) < majority(voters);
    if let Some(voters) = joint.chain([before]).find(has_none) {
        let (alive, needed) = (living(state, observations, voters), majority(voters));
        blockers.push(Blocker::NoQuorumBefore { voters: voters.clone(), alive, needed });
    }
    let (alive, needed) = (living(state, observations, after), majority(after));
    if alive < needed {
        blockers.push(Blocker::NoQuorumAfter { voters: after.clone(), alive, needed });
    }
    for node in after.difference(before) {
        match state.membership.get(*node) {
            Some(node) if !node.is_alive() => {
                blockers.push(Blocker::node_not_up(node, "choose a node that is up"));
            }
            Some(_) => {}
            None => blockers.push(Blocker::UnknownNode { node: *node }),
        }
    }
    if let Some(leader) = state.leader().filter(|leader| !after.contains(leader))
        && successor(state, observations, |id| after.contains(&id) && before.contains(&id)).is_none()
    {
        blockers.push(Blocker::NoSuccessor { leader, stays_voter: false });
    }
    blockers
}

pub fn warnings(state: &State, observations: &Observations, before: &Voters, after: &Voters) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if !after.is_empty() && after.len().is_multiple_of(2) {
        warnings.push(Warning::EvenVoters { voters: after.len() });
    }
    if let (Some(only), 1) = (after.first(), after.len()) {
        warnings.push(Warning::OnlyVoter { node: *only });
    } else if spare_voters(state, observations, after) == 0
        && (spare_voters(state, observations, before) > 0 || failures_tolerated(after.len()) == 0)
    {
        warnings.push(Warning::NoSpareVoterAfter);
    }
    warnings
}

pub fn impact(
    state: &State,
    observations: &Observations,
    before: &Voters,
    after: &Voters,
    leader: NodeId,
) -> Impact {
    let stays = after.contains(&leader);
    let next = successor(state, observations, |id| after.contains(&id) && before.contains(&id));
    Impact {
        write_pause_bound_ms: Some(millis(observations.election_bound)),
        voters_before: before.len() as u64,
        voters_after: after.len() as u64,
        failures_tolerated_before: spare_voters(state, observations, before),
        failures_tolerated_after: spare_voters(state, observations, after),
        leader_before: Some(leader),
        leader_after: if stays { Some(leader) } else { next },
        ..Impact::default()
    }
}

/// "Of 5 voters, writes need 3, so 2 may fail."
pub fn arithmetic(after: &Voters) -> String {
    match after.len() {
        0 | 1 => "It is the only voter: if it fails, writes stop.".to_owned(),
        voters => format!(
            "Of {voters} voters, writes need {}, so {} may fail.",
            majority(after),
            match failures_tolerated(voters) {
                0 => "none".to_owned(),
                some => some.to_string(),
            }
        ),
    }
}

pub fn facts(state: &State, before: &Voters, after: &Voters) -> Vec<Fact> {
    let nodes = before.union(after).map(|id| FactKey::Node(*id));
    footprint(state, [FactKey::Membership].into_iter().chain(nodes))
}
