//! Adding a node: as a learner, which is promoted to voter while there are fewer than the usual three.

use crate::{
    blocker::Blocker,
    change_voters::{MEMBERSHIP_WITHIN, catch_up},
    draft::{draft, step, texts_of_blockers},
};
use ringmaster_cluster::{
    State,
    observations::Observations,
    plans::{Draft, DraftStep, FactKey},
    steps::StepSpec,
};
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::{MAX_NAME_BYTES, MAX_NODES, VOTERS, failures_tolerated},
    duration::millis,
    error::{Code, Refusal},
    origin::{check_address, check_origin},
    plan::{Impact, Scope},
};

pub fn plan(
    state: &State,
    observations: &Observations,
    action: Action,
    node: NewNode,
) -> Result<Draft, Refusal> {
    check(&node)?;
    let voters = state.membership.voters.len();
    let promote = voters < VOTERS;
    let voters_after = voters + usize::from(promote);
    let becomes = if promote {
        format!("It becomes a voter once it has caught up: {voters_after} voters then.")
    } else {
        format!(
            "It stays a learner: {voters} voters are enough. Learners answer and stream like any other node."
        )
    };
    let draft =
        draft(state, observations, action, Scope::Cluster, [FactKey::Membership, FactKey::Node(node.id)]);
    Ok(Draft {
        summary: format!("Node {} ({}) joins the cluster {}. {becomes}", node.id, node.name, state.name),
        impact: Impact {
            write_pause_bound_ms: Some(millis(observations.election_bound)),
            voters_after: voters_after as u64,
            failures_tolerated_before: failures_tolerated(voters) as u64,
            failures_tolerated_after: failures_tolerated(voters_after) as u64,
            ..draft.impact
        },
        blockers: texts_of_blockers(&blockers(state, &node)),
        undo: Some(Action::RemoveNode { node: node.id }),
        steps: steps(node, promote),
        ..draft
    })
}

fn steps(node: NewNode, promote: bool) -> Vec<DraftStep> {
    let id = node.id;
    let mut steps = vec![
        step(StepSpec::AddLearner { node }, format!("Add node {id} as a learner"), MEMBERSHIP_WITHIN),
        catch_up([id].into()),
    ];
    if promote {
        let title = format!("Promote node {id} to voter");
        steps.push(step(StepSpec::PromoteLearner { node: id }, title, MEMBERSHIP_WITHIN));
    }
    steps
}

fn blockers(state: &State, new: &NewNode) -> Vec<Blocker> {
    let (membership, node) = (&state.membership, new.id);
    let mut blockers = Vec::new();
    if membership.get(node).is_some() {
        blockers.push(Blocker::IdInUse { node, known: membership.known() });
    }
    if membership.departed.contains(&node) {
        blockers.push(Blocker::IdDeparted { node });
    }
    if let Some(other) = membership.iter().find(|other| other.peer_addr == new.peer_addr) {
        blockers.push(Blocker::AddressInUse { node, addr: new.peer_addr.clone(), other: other.id });
    }
    if membership.nodes.len() >= MAX_NODES {
        blockers.push(Blocker::TooManyNodes { node });
    }
    blockers
}

/// Whether a process can be a member at all.
fn check(node: &NewNode) -> Result<(), Refusal> {
    let invalid = |detail: String| Err(Refusal::new(Code::InvalidRequest, detail));
    if node.id.0 == 0 || node.id.0 >= 1 << 53 {
        return invalid(format!("a node's id is from 1 to 2^53 - 1, not {}", node.id));
    }
    for (what, name) in [("name", &node.name), ("zone", &node.zone)] {
        let blank = name.chars().any(|c| c.is_control() || c.is_whitespace());
        if name.is_empty() || name.len() > MAX_NAME_BYTES || blank {
            return invalid(format!(
                "a {what} has 1 to {MAX_NAME_BYTES} bytes and no blanks, unlike {name:?}"
            ));
        }
    }
    let checks = [
        ("api_addr", check_address(&node.api_addr)),
        ("peer_addr", check_address(&node.peer_addr)),
        ("public_url", check_origin(&node.public_url)),
    ];
    for (what, check) in checks {
        if let Err(why) = check {
            return invalid(format!("{what}: {why}"));
        }
    }
    Ok(())
}
