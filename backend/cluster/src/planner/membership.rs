//! Who is a member, and who votes: the arithmetic of quorums.
//!
//! A change of voters goes through a joint configuration, in which both the voters before and those
//! after must have a majority. So what would leave either without one is refused here, where it can
//! be explained, and not found out when writes have stopped.

use super::{
    Observations, find, footprint, living, majority, named, no_leader, nodes, spare_voters, subject,
    successor,
};
use crate::{
    State,
    membership::MAX_DEPARTED,
    plans::{Draft, FactKey, Goal},
};
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::{MAX_NAME_BYTES, MAX_NODES, Node, NodeStatus, VOTERS, failures_tolerated},
    duration::millis,
    error::{Code, Refusal},
    id::NodeId,
    origin::{check_address, check_origin},
    plan::{Blocker, Impact, Observation, Warning},
};
use std::collections::BTreeSet;

type Voters = BTreeSet<NodeId>;

pub(super) fn add(
    state: &State,
    observations: &Observations,
    action: Action,
    node: NewNode,
) -> Result<Draft, Refusal> {
    check_new(&node)?;
    let membership = &state.membership;
    let mut blockers = Vec::new();
    let mut block = |code: &str, detail: String, lifted_by: &str| {
        blockers.push(blocker(code, detail, subject(node.id), lifted_by));
    };
    if membership.get(node.id).is_some() {
        block(
            "id_in_use",
            format!("node {} is a member already; {}", node.id, membership.known()),
            "start the node with another id",
        );
    }
    if membership.departed.contains(&node.id) {
        block(
            "id_departed",
            format!("node {} was a member once, and its id is not given again", node.id),
            "start the node with another id and an empty data directory",
        );
    }
    if let Some(other) = membership.iter().find(|other| other.peer_addr == node.peer_addr) {
        block(
            "address_in_use",
            format!("{} is the peer address of node {}", node.peer_addr, other.id),
            "give the node an address of its own, or remove the other one",
        );
    }
    if membership.nodes.len() >= MAX_NODES {
        block("too_many_nodes", format!("a cluster holds {MAX_NODES} nodes"), "remove a node first");
    }
    let voters = membership.voters.len();
    let promote = voters < VOTERS;
    let voters_after = voters + usize::from(promote);
    let becomes = if promote {
        format!("It becomes a voter once it has caught up, so that {voters_after} vote.")
    } else {
        format!(
            "It stays a learner: {voters} voters are enough, and learners answer and stream like any other."
        )
    };
    Ok(Draft {
        revision: state.revision,
        summary: format!("Node {} ({}) joins the cluster {}. {becomes}", node.id, node.name, state.name),
        footprint: footprint(state, [FactKey::Membership, FactKey::Node(node.id)]),
        goal: Goal::AddNode { node, promote },
        undoes: None,
        observations: Vec::new(),
        impact: Impact {
            write_pause_bound_ms: Some(millis(observations.election_bound)),
            voters_before: voters as u64,
            voters_after: voters_after as u64,
            may_fail_before: failures_tolerated(voters) as u64,
            may_fail_after: failures_tolerated(voters_after) as u64,
            leader_before: state.leader(),
            leader_after: state.leader(),
            ..Impact::default()
        },
        warnings: Vec::new(),
        blockers,
        action,
    })
}

pub(super) fn change_voters(
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
    let mut blockers = blockers(state, observations, &before, &after);
    if before == after {
        blockers.push(blocker(
            "no_change",
            format!("{} vote already", nodes(before.iter().copied())),
            "group/0".to_owned(),
            "choose other voters",
        ));
    }
    let leader = state.leader().ok_or_else(no_leader)?;
    Ok(Draft {
        revision: state.revision,
        summary: format!(
            "{} of the cluster group {} {}, in place of {}. {}",
            if after.len() == 1 { "The voter" } else { "The voters" },
            if after.len() == 1 { "becomes" } else { "become" },
            nodes(after.iter().copied()),
            nodes(before.iter().copied()),
            arithmetic(&after),
        ),
        footprint: voters_footprint(state, &before, &after),
        observations: observed(observations, after.difference(&before)),
        impact: impact(state, observations, &before, &after, leader),
        warnings: warnings(state, &before, &after),
        blockers,
        goal: Goal::ChangeVoters { before, after },
        undoes: None,
        action,
    })
}

pub(super) fn remove(
    state: &State,
    observations: &Observations,
    action: Action,
    id: NodeId,
) -> Result<Draft, Refusal> {
    let node = find(state, id)?;
    let leader = state.leader().ok_or_else(no_leader)?;
    let before = state.membership.voters.clone();
    let (after, replacement) = without(state, observations, node);
    let changes = after != before;
    let mut blockers = if changes { blockers(state, observations, &before, &after) } else { Vec::new() };
    if state.membership.departed.len() >= MAX_DEPARTED {
        blockers.push(blocker(
            "too_many_departed",
            format!("a cluster remembers {MAX_DEPARTED} former nodes, so that none comes back by mistake"),
            subject(id),
            "start a new cluster",
        ));
    }
    let place = match replacement {
        _ if !changes => " It does not vote, so the quorum stays as it is.".to_owned(),
        Some(other) => format!(" {} takes its place as a voter.", capital(&named(state, other))),
        None => format!(" {}", arithmetic(&after)),
    };
    let mut warnings = if changes { warnings(state, &before, &after) } else { Vec::new() };
    warnings.push(Warning {
        code: "final".to_owned(),
        detail: format!(
            "Node {id} cannot come back: its id is never given again, and its data directory is of no use. The \
             same machine may join as a new node."
        ),
        subject: subject(id),
    });
    Ok(Draft {
        revision: state.revision,
        summary: format!("{} leaves the cluster for good.{place}", capital(&named(state, id))),
        footprint: {
            let mut facts = voters_footprint(state, &before, &after);
            if !before.contains(&id) {
                facts.extend(footprint(state, [FactKey::Node(id)]));
            }
            facts
        },
        observations: observed(observations, replacement.as_ref()),
        impact: impact(state, observations, &before, &after, leader),
        warnings,
        blockers,
        goal: Goal::RemoveNode { node: id, voters: changes.then_some((before, after)) },
        undoes: None,
        action,
    })
}

/// Who votes once `node` is gone. An odd number of voters stays odd where a learner can step in.
fn without(state: &State, observations: &Observations, node: &Node) -> (Voters, Option<NodeId>) {
    let mut after = state.membership.voters.clone();
    if !after.remove(&node.id) || !after.len().is_multiple_of(2) {
        return (after, None);
    }
    let replacement = state
        .membership
        .iter()
        .filter(|other| other.id != node.id && !other.voter && other.status == NodeStatus::Up)
        .min_by_key(|other| {
            let lag = observations.peers.get(&other.id).and_then(|peer| peer.lag);
            // The zone that loses a voter gets one, where that can be.
            (other.zone != node.zone, lag.unwrap_or(u64::MAX), other.id)
        })
        .map(|other| other.id);
    after.extend(replacement);
    (after, replacement)
}

/// What forbids a change of voters from `before` to `after`.
pub(super) fn blockers(
    state: &State,
    observations: &Observations,
    before: &Voters,
    after: &Voters,
) -> Vec<Blocker> {
    let group = || "group/0".to_owned();
    let mut blockers = Vec::new();
    if after.is_empty() {
        blockers.push(blocker(
            "last_voter",
            "without it nobody would vote, and the cluster would be no more".to_owned(),
            group(),
            "make another node a voter first",
        ));
        return blockers;
    }
    for (voters, code, when) in
        [(before, "no_quorum", "of today's voters"), (after, "would_lose_quorum", "of the voters to come")]
    {
        let (alive, needed) = (living(state, voters), majority(voters));
        if alive < needed {
            blockers.push(blocker(
                code,
                format!(
                    "{alive} {when} ({}) {} alive, and {needed} are needed: writes would stop",
                    nodes(voters.iter().copied()),
                    if alive == 1 { "is" } else { "are" }
                ),
                group(),
                "bring the nodes that are down back, or choose voters that are up",
            ));
        }
    }
    for id in after.difference(before) {
        match state.membership.get(*id) {
            Some(node) if !node.is_alive() => blockers.push(blocker(
                "node_not_up",
                format!("node {id} is {}: {}", node.status.as_str(), node.status_reason),
                subject(*id),
                "choose a node that is up",
            )),
            Some(_) => {}
            None => blockers.push(super::gone(*id)),
        }
    }
    if let Some(leader) = state.leader().filter(|leader| !after.contains(leader))
        && successor(state, observations, |id| after.contains(&id) && before.contains(&id)).is_none()
    {
        blockers.push(blocker(
            "no_successor",
            format!("node {leader} leads and would vote no more, and no voter that stays can lead now"),
            subject(leader),
            "keep a voter that is up and close behind, or wait until one is",
        ));
    }
    blockers
}

fn warnings(state: &State, before: &Voters, after: &Voters) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code: &str, detail: String| {
        warnings.push(Warning { code: code.to_owned(), detail, subject: "group/0".to_owned() });
    };
    if !after.is_empty() && after.len().is_multiple_of(2) {
        warn(
            "even_voters",
            format!(
                "{} voters bear no more failures than {}, and each is one more that can fail.",
                after.len(),
                after.len() - 1
            ),
        );
    }
    if let (Some(only), 1) = (after.first(), after.len()) {
        warn(
            "no_spare_voter",
            format!(
                "Node {only} decides alone then. While it is down nothing can be written, and if its disk is lost, \
                 no node can go on in its place."
            ),
        );
    } else if spare_voters(state, after) == 0
        && (spare_voters(state, before) > 0 || failures_tolerated(after.len()) == 0)
    {
        warn(
            "no_spare_voter",
            "After it, no voter may fail: if one does, writes stop until it is back.".to_owned(),
        );
    }
    warnings
}

fn impact(
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
        may_fail_before: spare_voters(state, before),
        may_fail_after: spare_voters(state, after),
        leader_before: Some(leader),
        leader_after: if stays { Some(leader) } else { next },
        ..Impact::default()
    }
}

/// "Of 5 voters, writes need 3, so 2 may fail."
fn arithmetic(after: &Voters) -> String {
    match after.len() {
        0 | 1 => "Writes need it alone, so it may not fail.".to_owned(),
        voters => format!(
            "Of {voters} voters writes need {}, so {} may fail.",
            majority(after),
            match failures_tolerated(voters) {
                0 => "none".to_owned(),
                some => some.to_string(),
            }
        ),
    }
}

fn observed<'a>(observations: &Observations, ids: impl IntoIterator<Item = &'a NodeId>) -> Vec<Observation> {
    ids.into_iter()
        .filter_map(|id| {
            let peer = observations.peers.get(id)?;
            Some(Observation {
                what: format!("entries that node {id} lacks"),
                value: peer.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string()),
                age_ms: millis(peer.age),
            })
        })
        .collect()
}

fn voters_footprint(state: &State, before: &Voters, after: &Voters) -> Vec<ringmaster_common::plan::Fact> {
    let nodes = before.union(after).map(|id| FactKey::Node(*id));
    footprint(state, [FactKey::Membership].into_iter().chain(nodes))
}

fn blocker(code: &str, detail: String, subject: String, lifted_by: &str) -> Blocker {
    Blocker { code: code.to_owned(), detail, subject, lifted_by: lifted_by.to_owned() }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Whether a process can be a member at all.
fn check_new(node: &NewNode) -> Result<(), Refusal> {
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
