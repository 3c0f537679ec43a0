//! What holds for every history.

mod traffic;

use crate::plan;
use proptest::{collection::vec, prelude::*};
use ringmaster_cluster::{
    Body, Effect, Entry, State,
    command::{
        Actor, ClusterTime, Command, NodeAddresses, OpinionChange, Outcome, Precondition, Record, Recovery,
        Request, Resource, Response, StatusChange,
    },
    observations::{EndpointRates, Observations, PeerObservation},
    version::Formats,
    view::view,
};
use ringmaster_common::{
    Timestamp,
    action::{Action, NewNode},
    cluster::{Liveness, Node, NodeStatus},
    error::{Code, Refusal},
    event::{Event, EventBatch},
    id::{GroupId, Incarnation, NodeId, OperationId, PlanId, Revision},
    operation::{OperationStatus, StepStatus},
    view::ClusterView,
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// So small that an upstream of a few endpoints needs several parts.
const SMALL_PART: usize = 700;

/// One entry to come. Actions are planned on the state that they meet.
#[derive(Clone, Debug)]
pub(super) enum Next {
    Blank,
    Members {
        voters: Vec<u64>,
        learners: Vec<u64>,
    },
    Command {
        stamp: u64,
        key: Option<u8>,
        command: Command,
    },
    Plan {
        stamp: u64,
        action: Action,
    },
    /// The runner does what it should: reports the running step, in the current term.
    Progress {
        stamp: u64,
        succeeds: bool,
    },
}

fn node_id() -> impl Strategy<Value = NodeId> {
    (1u64..6).prop_map(NodeId)
}

fn new_node() -> impl Strategy<Value = NewNode> {
    node_id().prop_map(|id| NewNode {
        id,
        name: format!("node-{id}"),
        zone: "a".to_owned(),
        weight: 1,
        api_addr: format!("127.0.0.1:770{id}"),
        peer_addr: format!("127.0.0.1:780{id}"),
        public_url: format!("http://127.0.0.1:770{id}"),
    })
}

fn sees() -> impl Strategy<Value = Liveness> {
    prop_oneof![Just(Liveness::Alive), Just(Liveness::Suspect), Just(Liveness::Dead)]
}

fn status() -> impl Strategy<Value = NodeStatus> {
    prop_oneof![4 => Just(NodeStatus::Up), 1 => Just(NodeStatus::Suspect), 1 => Just(NodeStatus::Down)]
}

fn ordered() -> impl Strategy<Value = NodeStatus> {
    prop_oneof![Just(NodeStatus::Draining), Just(NodeStatus::Drained), Just(NodeStatus::Up)]
}

fn precondition() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        4 => Just(Precondition::None),
        1 => Just(Precondition::Exists),
        1 => Just(Precondition::Absent),
        1 => vec((0u64..60).prop_map(Revision), 0..3).prop_map(Precondition::AnyOf),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => node_id().prop_map(|to| Action::TransferLeadership { group: GroupId::CLUSTER, to }),
        1 => new_node().prop_map(|node| Action::AddNode { node }),
        2 => proptest::collection::btree_set(node_id(), 0..4).prop_map(|voters| Action::ChangeVoters { voters }),
        1 => node_id().prop_map(|node| Action::RemoveNode { node }),
        2 => node_id().prop_map(|node| Action::DrainNode { node }),
        1 => node_id().prop_map(|node| Action::ActivateNode { node }),
        3 => traffic::action(),
        1 => (1u64..6).prop_map(|id| Action::Undo { operation: OperationId(id) }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        1 => new_node().prop_map(|first| Command::CreateCluster {
            name: "prod".to_owned(),
            id: "c1".to_owned(),
            incarnation: Incarnation(1),
            feature_level: 1,
            first,
        }),
        3 => (1u64..9, node_id()).prop_map(|(term, leader)| Command::RecordElection { term, leader }),
        2 => new_node().prop_map(|node| Command::AdmitNode { node }),
        1 => node_id().prop_map(|node| Command::DismissNode { node }),
        1 => (node_id(), ordered()).prop_map(|(node, status)| Command::OrderStatus {
            change: StatusChange { node, status, reason: "so it was ordered".to_owned() },
        }),
        3 => (vec((node_id(), node_id(), sees()), 0..3), vec((node_id(), status()), 0..4)).prop_map(
            |(opinions, statuses)| Command::RecordHealth {
                opinions: opinions
                    .into_iter()
                    .map(|(observer, subject, sees)| OpinionChange { observer, subject, sees })
                    .collect(),
                statuses: statuses
                    .into_iter()
                    .map(|(node, status)| StatusChange { node, status, reason: "so it was seen".to_owned() })
                    .collect(),
            }
        ),
        3 => ("[a-c]", 0u64..5, precondition()).prop_map(|(key, value, precondition)| Command::PutSetting {
            key,
            value: json!(value),
            precondition,
        }),
        1 => (prop_oneof!["[a-c]", Just("nodes.down_after_ms".to_owned())], precondition())
            .prop_map(|(key, precondition)| Command::DeleteSetting { key, precondition }),
        1 => (node_id(), new_node()).prop_map(|(node, to)| Command::RelocateNode {
            node,
            to: NodeAddresses { api_addr: to.api_addr, peer_addr: to.peer_addr, public_url: to.public_url },
        }),
        1 => (2u64..5, 1u32..3, node_id()).prop_map(|(incarnation, feature_level, survivor)| {
            Command::RecoverCluster(Recovery { incarnation: Incarnation(incarnation), feature_level, survivor })
        }),
        3 => (1u64..9, proptest::option::of(prop_oneof![Just(1u64), Just(1000), Just(2000)])).prop_map(
            |(plan, keep_within_ms)| Command::StartOperation { plan: PlanId(plan), keep_within_ms }
        ),
        1 => (1u64..5, 0u32..9, 1u64..9).prop_map(|(operation, position, term)| Command::ReportStep {
            operation: OperationId(operation),
            position,
            term,
            result: Ok("done".to_owned()),
        }),
        1 => (1u64..5, 0u32..9, 1u64..9, ordered()).prop_map(|(operation, position, term, status)| {
            let change = StatusChange { node: NodeId(1), status, reason: "so the step ordered".to_owned() };
            Command::ForStep {
                operation: OperationId(operation),
                position,
                term,
                command: Box::new(Command::OrderStatus { change }),
            }
        }),
        1 => (1u64..5).prop_map(|id| Command::AbortOperation { operation: OperationId(id) }),
        1 => (1u64..5).prop_map(|id| Command::KeepOperation { operation: OperationId(id) }),
        1 => (1u32..4).prop_map(Command::raise_feature_level),
        6 => traffic::command().prop_map(|command| Command::Traffic(Box::new(command))),
        1 => Just(Command::Tick),
    ]
}

pub(super) fn next() -> impl Strategy<Value = Next> {
    // Stamps jump ahead, and now and then backwards, as a new leader's may.
    let stamp = 0u64..20_000;
    prop_oneof![
        1 => Just(Next::Blank),
        2 => (vec(1u64..6, 1..5), vec(1u64..6, 0..3))
            .prop_map(|(voters, learners)| Next::Members { voters, learners }),
        12 => (stamp.clone(), proptest::option::weighted(0.2, 0u8..4), command())
            .prop_map(|(stamp, key, command)| Next::Command { stamp, key, command }),
        4 => (stamp.clone(), action()).prop_map(|(stamp, action)| Next::Plan { stamp, action }),
        5 => (stamp, proptest::bool::weighted(0.9))
            .prop_map(|(stamp, succeeds)| Next::Progress { stamp, succeeds }),
    ]
}

pub(super) fn body(state: &State, next: Next) -> Body {
    let observations = Observations {
        with_losses: BTreeSet::new(),
        endpoints: EndpointRates::new(),
        joint_voters: Vec::new(),
        peers: (1..6)
            .map(|id| (NodeId(id), PeerObservation { lag: Some(id), age: Duration::from_millis(5) }))
            .collect(),
        election_bound: Duration::from_millis(600),
    };
    let (stamp, key, command) = match next {
        Next::Blank => return Body::Blank,
        Next::Members { voters, learners } => {
            return Body::Membership {
                voters: voters.into_iter().map(NodeId).collect(),
                learners: learners.into_iter().map(NodeId).collect(),
            };
        }
        Next::Command { stamp, key, command } => (stamp, key, command),
        Next::Plan { stamp, action } => match plan(state, &observations, action) {
            Ok(draft) => (stamp, None, Command::CreatePlan { draft: Box::new(draft) }),
            Err(_) => return Body::Blank,
        },
        Next::Progress { stamp, succeeds } => {
            let running: Vec<_> = state.operations.running_steps().collect();
            let Some(step) = running.get(stamp as usize % running.len().max(1)) else {
                return Body::Blank;
            };
            let report = Command::ReportStep {
                operation: step.operation,
                position: step.position,
                term: state.election.as_ref().map_or(0, |election| election.term),
                result: if succeeds {
                    Ok("done".to_owned())
                } else {
                    Err(Refusal::new(Code::PreflightFailed, "it was not so"))
                },
            };
            (stamp, None, report)
        }
    };
    // The leader writes no other command.
    if command.check_form(state.limits()).is_err() {
        return Body::Blank;
    }
    let index = state.revision.0 + 1;
    Body::Command(Box::new(Record {
        format: Formats::NEWEST.record,
        stamp: ClusterTime(stamp),
        wall: Timestamp::from_millisecond(stamp as i64).unwrap(),
        request: Request {
            repeatable: key.is_some(),
            fingerprint: Some(command.fingerprint()),
            resent_after: None,
            id: key.map_or_else(|| format!("request-{index}"), |key| format!("key-{key}")),
            actor: Actor::Operator("ops".to_owned()),
        },
        command,
    }))
}

/// Unfinished operations have different scopes, and exactly one running step each unless they wait to be kept.
fn check_operations(state: &State) -> Result<(), TestCaseError> {
    let unfinished: BTreeSet<_> = state
        .operations
        .latest(usize::MAX)
        .filter(|operation| !operation.status.is_final())
        .map(|operation| operation.id)
        .collect();
    let known: Vec<_> = state.operations.unfinished().map(|record| &record.operation).collect();
    prop_assert_eq!(&unfinished, &known.iter().map(|operation| operation.id).collect());
    let scopes: BTreeSet<_> = known.iter().map(|operation| &operation.scope).collect();
    prop_assert_eq!(scopes.len(), unfinished.len(), "{:?}", known);
    for operation in state.operations.latest(usize::MAX) {
        let running = operation.steps.iter().filter(|step| step.status == StepStatus::Running).count();
        let expected = usize::from(operation.status == OperationStatus::Running);
        prop_assert_eq!(running, expected, "{:?}", operation);
        if operation.status.is_final() {
            prop_assert!(
                operation.steps.iter().all(|step| step.status != StepStatus::Pending),
                "{:?}",
                operation
            );
        }
    }
    Ok(())
}

/// An outcome holds the resource as its own write stored it, at the version that it stored.
fn check_stored(state: &State, response: &Response) -> Result<(), TestCaseError> {
    let Outcome::Stored(stored) = &response.outcome else { return Ok(()) };
    // That of a repeat is the first one.
    if response.revision != state.revision {
        return Ok(());
    }
    let (found, version) = match &stored.resource {
        Resource::Setting(setting) => (state.settings.get(&setting.key) == Some(setting), setting.version),
        Resource::Route(route) => (state.routes.get(&route.name) == Some(route), route.version),
        Resource::Upstream(upstream) => {
            let known = state.upstreams.get(&upstream.name).map(|record| &record.upstream);
            (known == Some(upstream), upstream.version)
        }
        Resource::Endpoint(detail) => {
            let record = state.upstreams.find(&detail.upstream);
            let version = record.as_ref().map_or(Revision(0), |record| record.upstream.version);
            (record.and_then(|record| record.detail(&detail.endpoint.id)).as_ref() == Ok(detail), version)
        }
    };
    prop_assert!(found, "{stored:?}");
    prop_assert_eq!(stored.version, version);
    Ok(())
}

/// Whether an operation failed.
fn failed_in(batch: &Option<Arc<EventBatch>>) -> bool {
    batch
        .iter()
        .flat_map(|batch| &batch.events)
        .any(|event| matches!(event, Event::OperationChanged { status: OperationStatus::Failed, .. }))
}

/// Every so many entries, the state is written and read as a snapshot is.
const SNAPSHOT_EVERY: u64 = 8;

fn through_snapshot(state: &State) -> State {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(state).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_is_honest(history in vec(next(), 1..120)) {
        let mut state = State::default();
        let mut folded = ClusterView::default();
        let mut started = 0;
        for next in history {
            let entry = Entry { index: state.revision.0 + 1, body: body(&state, next) };
            let before = state.clone();

            let restored = entry.index.is_multiple_of(SNAPSHOT_EVERY).then(|| through_snapshot(&state));
            let effect = state.apply(entry.clone());
            // The same entry does the same to a state that went through a snapshot.
            if let Some(mut restored) = restored {
                prop_assert_eq!(&restored, &before);
                prop_assert_eq!(&restored.apply(entry), &effect);
                prop_assert_eq!(&restored, &state);
                prop_assert_eq!(restored.digest(), state.digest());
            }

            let Effect { response, batch, .. } = effect;
            // The view is the fold.
            if let Some(batch) = &batch {
                prop_assert!(batch.revision > folded.revision);
                folded.fold(batch);
            }
            prop_assert_eq!(&folded, &view(&state));
            // So is the view that a stream sends in parts.
            let (mut joined, parts) = view(&state).split(SMALL_PART);
            parts.into_iter().for_each(|part| joined.add(part));
            prop_assert_eq!(&joined, &folded);

            // Who left does not come back, and nothing of them stays.
            prop_assert!(before.membership.departed.is_subset(&state.membership.departed));
            for gone in &state.membership.departed {
                prop_assert!(state.membership.get(*gone).is_none());
                let heard_of = |node: &Node| node.opinions.iter().any(|opinion| opinion.observer == *gone);
                prop_assert!(!state.membership.iter().any(heard_of));
            }

            // Time does not run backwards, and a refusal changes nothing but the audit and what was due.
            prop_assert!(state.clock >= before.clock);
            if let Outcome::Refused(_) = &response.outcome {
                prop_assert_eq!(&state.settings, &before.settings);
                prop_assert_eq!(&state.membership, &before.membership);
                prop_assert_eq!(&state.plans, &before.plans);
                // A failover that failed because of the time that has passed gives the old primary back.
                if !failed_in(&batch) {
                    prop_assert_eq!(&state.upstreams, &before.upstreams);
                }
                prop_assert_eq!(&state.routes, &before.routes);
            }
            check_stored(&state, &response)?;
            started += usize::from(matches!(response.outcome, Outcome::Operation { started: true, .. }));
            check_operations(&state)?;
            traffic::check(&before, &state)?;
        }
        prop_assert!(state.operations.latest(usize::MAX).count() <= started);
        let json = serde_json::to_string(&folded).unwrap();
        prop_assert_eq!(&serde_json::from_str::<ClusterView>(&json).unwrap(), &folded);
    }
}
