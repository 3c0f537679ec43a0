//! Observations of the leader, for planners and controllers.

use crate::ClusterGroup;
use ringmaster_cluster::observations::{EndpointRates, Observations, PeerObservation};
use ringmaster_common::id::NodeId;
use ringmaster_peer::LinkState;
use std::{collections::BTreeSet, fmt, sync::OnceLock, time::Duration};

/// Reads the request rates of endpoints, once the composition of the node has connected it: this crate knows neither
/// proxies nor telemetry.
#[derive(Default)]
pub(crate) struct RatesSource(OnceLock<Box<dyn Fn() -> EndpointRates + Send + Sync>>);

impl RatesSource {
    fn read(&self) -> EndpointRates {
        self.0.get().map_or_else(EndpointRates::default, |read| read())
    }
}

impl fmt::Debug for RatesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RatesSource").finish_non_exhaustive()
    }
}

impl ClusterGroup {
    /// From now on planners know the request rates of endpoints. The first source that is connected stays.
    pub fn connect_endpoint_rates(&self, read: impl Fn() -> EndpointRates + Send + Sync + 'static) {
        let _ = self.0.rates.0.set(Box::new(read));
    }

    /// The leader's measurements, for planners and for the first step of an operation.
    pub fn observations(&self) -> Observations {
        let replica = self.0.raft.replica();
        let links = replica.peers().links();
        let peers = replica
            .status()
            .replication
            .iter()
            .map(|replication| {
                let silent =
                    links.iter().find(|link| link.peer == replication.node).and_then(|link| link.silent_for);
                let age = silent.unwrap_or(Duration::MAX);
                (replication.node, PeerObservation { lag: Some(replication.lag), age })
            })
            .collect();
        Observations {
            peers,
            with_losses: replica.followers_with_losses(),
            endpoints: self.0.rates.read(),
            joint_voters: self.joint_voters(),
            election_bound: 2 * replica.lease(),
        }
    }

    /// While a change of voters is under way: the voters before it, then those after it.
    pub fn joint_voters(&self) -> Vec<BTreeSet<NodeId>> {
        let sets = self.0.raft.replica().voter_sets();
        if sets.len() < 2 { Vec::new() } else { sets }
    }

    /// The members that answer: this node, each that it has a connection to, and each that other nodes hear from.
    /// `heard_elsewhere` gets for how long a node has been silent here.
    pub fn answering(&self, heard_elsewhere: impl Fn(Duration, NodeId) -> bool) -> BTreeSet<NodeId> {
        let answers = |link: &LinkState| {
            link.connected || heard_elsewhere(link.silent_for.unwrap_or(Duration::MAX), link.peer)
        };
        let links = self.0.raft.replica().peers().links();
        links.iter().filter(|link| answers(link)).map(|link| link.peer).chain([self.me()]).collect()
    }
}
