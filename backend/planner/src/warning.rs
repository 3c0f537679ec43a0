//! The risks to know before a plan is applied, each with a stable code.

use crate::words::GROUP;
use ringmaster_cluster::plans::FactKey;
use ringmaster_common::{id::NodeId, plan};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    RecentlyUp {
        node: NodeId,
        up_for: Duration,
        election_bound: Duration,
    },
    /// No voter may fail while leadership moves.
    NoSpareVoterNow,
    /// No other voter may fail while the node is stopped.
    NoSpareVoterWithout {
        node: NodeId,
    },
    /// No voter may fail after the change.
    NoSpareVoterAfter,
    OnlyVoter {
        node: NodeId,
    },
    EvenVoters {
        voters: usize,
    },
    Final {
        node: NodeId,
    },
    NoEndpointLeft {
        upstream: String,
    },
    OneEndpointLeft {
        upstream: String,
    },
    NotFenced {
        upstream: String,
        endpoint: String,
    },
    HealthUnknown {
        upstream: String,
        endpoint: String,
    },
    HolderNotAsked {
        lock: String,
    },
    DelayLifted {
        lock: String,
    },
    LockDelay {
        lock: String,
        delay_ms: u64,
    },
}

impl Warning {
    /// One stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Warning::RecentlyUp { .. } => "recently_up",
            Warning::NoSpareVoterNow
            | Warning::NoSpareVoterWithout { .. }
            | Warning::NoSpareVoterAfter
            | Warning::OnlyVoter { .. } => "no_spare_voter",
            Warning::EvenVoters { .. } => "even_voters",
            Warning::Final { .. } => "final",
            Warning::NoEndpointLeft { .. } => "no_endpoint_left",
            Warning::OneEndpointLeft { .. } => "one_endpoint_left",
            Warning::NotFenced { .. } => "not_fenced",
            Warning::HealthUnknown { .. } => "health_unknown",
            Warning::HolderNotAsked { .. } => "holder_not_asked",
            Warning::DelayLifted { .. } => "delay_lifted",
            Warning::LockDelay { .. } => "lock_delay",
        }
    }

    /// As clients see it.
    pub fn text(&self) -> plan::Warning {
        plan::Warning { code: self.code().to_owned(), detail: self.detail(), subject: self.subject() }
    }

    fn detail(&self) -> String {
        match self {
            Warning::RecentlyUp { node, up_for, election_bound } => format!(
                "Node {node} has been up for {} s. If it fails again, the next election takes up to {} ms.",
                up_for.as_secs(),
                election_bound.as_millis()
            ),
            Warning::NoSpareVoterNow => {
                "No voter may fail: if one fails while leadership moves, writes stop until it is back.".to_owned()
            }
            Warning::NoSpareVoterWithout { node } => {
                format!("While node {node} is stopped, no other voter may fail.")
            }
            Warning::NoSpareVoterAfter => {
                "After the change no voter may fail: if one fails, writes stop until it is back.".to_owned()
            }
            Warning::OnlyVoter { node } => format!(
                "Node {node} becomes the only voter. While it is down, writes stop; if its disk is lost, the cluster \
                 is lost."
            ),
            Warning::EvenVoters { voters: 2 } => {
                "Two voters tolerate no failure: losing either stops writes.".to_owned()
            }
            Warning::EvenVoters { voters } => {
                format!("{voters} voters tolerate as many failures as {}, and no more.", voters - 1)
            }
            Warning::Final { node } => format!(
                "Node {node} cannot rejoin: ids are never reused, and its data directory becomes useless. The same \
                 machine can join as a new node."
            ),
            Warning::NoEndpointLeft { upstream } => format!("No endpoint of {upstream} serves after the change."),
            Warning::OneEndpointLeft { upstream } => {
                format!("Only one endpoint of {upstream} serves after the change; if it fails, requests fail.")
            }
            Warning::NotFenced { endpoint, .. } => format!(
                "{endpoint} is not fenced: no fencing webhook is configured. If it is still running, it may keep \
                 writing; only services that check epochs refuse it."
            ),
            Warning::HealthUnknown { upstream, endpoint } => {
                format!("The health of {endpoint} is unknown: {upstream} has no health check.")
            }
            Warning::HolderNotAsked { .. } => "The holder is not notified. Unless the resource checks tokens, both may \
                                               write until it notices."
                .to_owned(),
            Warning::DelayLifted { .. } => {
                "The last holder asked for the delay: it may still be at work, as it did not release the lock."
                    .to_owned()
            }
            Warning::LockDelay { delay_ms, .. } => {
                format!("The lock is not granted for {delay_ms} ms after that, as its holder asked.")
            }
        }
    }

    fn subject(&self) -> String {
        match self {
            Warning::RecentlyUp { node, .. }
            | Warning::NoSpareVoterWithout { node }
            | Warning::Final { node } => FactKey::Node(*node).to_string(),
            Warning::NoSpareVoterNow
            | Warning::NoSpareVoterAfter
            | Warning::OnlyVoter { .. }
            | Warning::EvenVoters { .. } => GROUP.to_owned(),
            Warning::NoEndpointLeft { upstream }
            | Warning::OneEndpointLeft { upstream }
            | Warning::NotFenced { upstream, .. }
            | Warning::HealthUnknown { upstream, .. } => FactKey::Upstream(upstream.clone()).to_string(),
            Warning::HolderNotAsked { lock }
            | Warning::DelayLifted { lock }
            | Warning::LockDelay { lock, .. } => FactKey::Lock(lock.clone()).to_string(),
        }
    }
}
