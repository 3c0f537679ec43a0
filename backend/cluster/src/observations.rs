//! What the leader measured. It is no part of the state: planners read it beside the state, and the first step of an
//! operation reads it again.

use ringmaster_common::id::NodeId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    pub peers: BTreeMap<NodeId, PeerObservation>,
    /// The nodes that lack log entries which they had acknowledged.
    pub with_losses: BTreeSet<NodeId>,
    pub endpoints: EndpointRates,
    /// While a change of voters is under way: the voters before it and those after it. Writes need a majority of both.
    pub joint_voters: Vec<BTreeSet<NodeId>>,
    /// The longest that an election takes when the leader is lost.
    pub election_bound: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerObservation {
    /// Entries of the leader's log that the peer lacks; none where the leader does not know.
    pub lag: Option<u64>,
    /// Since the leader last heard from it.
    pub age: Duration,
}

/// The load of endpoints, by upstream and endpoint. An endpoint without load is left out.
pub type EndpointRates = BTreeMap<(String, String), EndpointRate>;

/// The load that all proxies together put on an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EndpointRate {
    pub requests_per_s: f64,
    pub in_flight: u32,
    /// Age of the oldest report that it is summed from.
    pub age: Duration,
}
