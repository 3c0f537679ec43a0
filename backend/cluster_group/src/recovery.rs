//! Recovers the cluster group from what one stopped node has on disk (see [`ringmaster_cluster::recovery`]).

use crate::ClusterApplication;
use ringmaster_cluster::{
    Body, Entry, State,
    command::{Actor, Command, Record, Recovery, Request},
    recovery::recovered_at,
    version::{FEATURE_LEVEL, Formats},
};
use ringmaster_common::id::{GroupId, NodeId};
use ringmaster_net::clock;
use ringmaster_replication::recovery::{self, Position, Remains};
use ringmaster_storage::{
    data_dir::{DataDir, Identity},
    journal::Owner,
    replacement::Replacement,
};
use std::io;

/// What a node that does not run has of the cluster group.
pub fn read(dir: &DataDir) -> io::Result<Remains<State>> {
    recovery::read(dir, GroupId::CLUSTER, &ClusterApplication::default())
}

/// Replaces the data of a stopped node by that of a cluster which has this node as its only member, and the next
/// incarnation. Returns the state of that cluster.
pub fn recover(
    dir: &DataDir,
    identity: &Identity,
    remains: Remains<State>,
    peer_addr: &str,
) -> io::Result<State> {
    let term = remains.term() + 1;
    let state = recovered(identity, remains.state);
    let at = Position { term, index: state.revision.0 };
    let owner = Owner { cluster_id: identity.cluster_id.clone(), node_id: identity.node_id };
    let replacement = Replacement::begin(dir)?;
    let application = ClusterApplication::default();
    recovery::write(replacement.path(), GroupId::CLUSTER, owner, peer_addr, &application, (&state, at))?;
    replacement.commit(&Identity { incarnation: state.incarnation, ..identity.clone() })?;
    Ok(state)
}

fn recovered(identity: &Identity, mut state: State) -> State {
    let mut incarnation = identity.incarnation.max(state.incarnation);
    incarnation.0 += 1;
    let survivor: NodeId = identity.node_id;
    let recovery = Recovery { incarnation, feature_level: FEATURE_LEVEL, survivor };
    let record = Record {
        format: Formats::NEWEST.record,
        stamp: state.clock,
        wall: clock::wall(),
        request: Request {
            id: format!("recover-{}-{incarnation}", identity.cluster_id),
            actor: Actor::Operator("cli".to_owned()),
            repeatable: false,
            fingerprint: None,
            resent_after: None,
        },
        command: Command::RecoverCluster(recovery),
    };
    let index = recovered_at(state.revision).0;
    state.apply(Entry { index, body: Body::Command(Box::new(record)) });
    state
}
