//! What the log of the cluster group holds.
//!
//! Commands never leave the backend: clients see requests and events, so that the log and the API
//! can evolve apart. Records are MessagePack with named fields: a field can be added with a default.
//! A command that this version does not know cannot be decoded, and stops the node; it is never
//! skipped, because then this node's state would differ from that of the others.

use crate::{
    encoding::encode,
    limits::Limits,
    locks::SessionRef,
    plans::Draft,
    settings,
    traffic::{self, TrafficCommand},
    version::{self, Formats, UnknownFormat},
};
// The types that come with a command, under one path.
pub use crate::{
    membership::{NodeAddresses, OpinionChange, StatusChange},
    outcome::{Outcome, Resource, Response, Stored},
    precondition::Precondition,
    recovery::Recovery,
    request::{Actor, Request, fingerprint},
    time::ClusterTime,
};
use bytes::Bytes;
use ringmaster_common::{
    Timestamp,
    action::{Action, NewNode},
    error::{Code, Refusal},
    id::{Incarnation, NodeId, OperationId, PlanId, Token},
    lock::{AcquireLock, ReleaseLock, RenewLock, check_ttl},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// One command, as the leader submitted it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// As the cluster's feature level says, when it was submitted.
    pub format: u16,
    /// Stamped by the leader as it submitted the command.
    pub stamp: ClusterTime,
    /// The leader's wall clock, for people to read. It decides nothing.
    pub wall: Timestamp,
    pub request: Request,
    pub command: Command,
}

/// A change to the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    CreateCluster {
        name: String,
        id: String,
        incarnation: Incarnation,
        feature_level: u32,
        first: NewNode,
    },
    /// Every member can do more than the cluster did so far.
    RaiseFeatureLevel {
        level: u32,
        /// A field that the version before this one does not know. It is written once the cluster is at the new level.
        #[cfg(feature = "next-version")]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_version: Option<u32>,
    },
    /// The first command of each leader.
    RecordElection {
        term: u64,
        leader: NodeId,
    },
    /// What observers say, where it changed, and what follows for the nodes' statuses.
    RecordHealth {
        opinions: Vec<OpinionChange>,
        statuses: Vec<StatusChange>,
    },
    AdmitNode {
        node: NewNode,
    },
    /// A step of an operation orders a node's status.
    OrderStatus {
        change: StatusChange,
    },
    /// Consensus has let the node go.
    DismissNode {
        node: NodeId,
    },
    PutSetting {
        key: String,
        value: Value,
        precondition: Precondition,
    },
    DeleteSetting {
        key: String,
        precondition: Precondition,
    },
    /// The node was started with other addresses.
    RelocateNode {
        node: NodeId,
        to: NodeAddresses,
    },
    /// In no log: see [`crate::recovery`].
    RecoverCluster(Recovery),
    CreatePlan {
        draft: Box<Draft>,
    },
    StartOperation {
        plan: PlanId,
        keep_within_ms: Option<u64>,
    },
    /// The runner of `term` finished the step at `position`.
    ReportStep {
        operation: OperationId,
        position: u32,
        term: u64,
        result: Result<String, Refusal>,
    },
    /// A change that the step at `position` makes, as its runner of `term` executes it. Nothing is changed unless that
    /// step runs.
    ForStep {
        operation: OperationId,
        position: u32,
        term: u64,
        command: Box<Command>,
    },
    AbortOperation {
        operation: OperationId,
    },
    KeepOperation {
        operation: OperationId,
    },
    /// The same request again is the same holder, or the same waiter.
    AcquireLock {
        acquire: AcquireLock,
        session: SessionRef,
    },
    RenewLock(RenewLock),
    ReleaseLock(ReleaseLock),
    /// The client of this connection is gone.
    LeaveLock {
        name: String,
        session: SessionRef,
        /// Whether it may send its request again, by another node.
        #[serde(default)]
        may_return: bool,
    },
    /// The node has started, and knows nothing of the clients that it had.
    DisconnectWaiters {
        node: NodeId,
        boot_id: u64,
    },
    /// A step of an operation takes the lock away from these.
    ForceRelease {
        name: String,
        tokens: BTreeSet<Token>,
    },
    Traffic(Box<TrafficCommand>),
    /// Lets time pass: what is due is done.
    Tick,
}

/// Bytes that this version cannot read: damage, or a record of a newer version.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Malformed(#[from] rmp_serde::decode::Error),
    #[error("the record has {0}")]
    Format(#[from] UnknownFormat),
}

impl Record {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        // First the format: the fields of a newer one may be others.
        version::check_format(version::format_of(bytes)?, Formats::NEWEST.record)?;
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

impl Command {
    pub fn raise_feature_level(level: u32) -> Command {
        Command::RaiseFeatureLevel {
            level,
            #[cfg(feature = "next-version")]
            by_version: None,
        }
    }

    /// The fingerprint of a request that comes from no client's bytes.
    pub fn fingerprint(&self) -> u32 {
        fingerprint(&[&encode(self)])
    }

    /// That of a request for a plan. A plan is known by its action: its measurements differ at each try.
    pub fn fingerprint_of_plan(action: &Action) -> u32 {
        fingerprint(&[&encode(action)])
    }

    /// Whether the command is well-formed, by the limits of the cluster's feature level. The node that accepts it checks
    /// that before it proposes it; `apply` does not, so that versions with other rules apply the same log alike.
    pub fn check_form(&self, limits: &Limits) -> Result<(), Refusal> {
        let invalid = |detail: String| Refusal::new(Code::InvalidRequest, detail);
        match self {
            Command::PutSetting { key, value, .. } => settings::check_at(limits, key, value),
            Command::AcquireLock { acquire, .. } => acquire.check().map_err(invalid),
            Command::RenewLock(renew) => check_ttl(renew.ttl_ms).map_err(invalid),
            Command::Traffic(command) => command.check_form(),
            Command::ForStep { command, .. } => command.check_form(limits),
            _ => Ok(()),
        }
    }

    /// The feature level at which all members can read it; 0 where they always could.
    pub fn level(&self) -> u32 {
        match self {
            Command::Traffic(_) | Command::DeleteSetting { .. } | Command::RelocateNode { .. } => {
                traffic::LEVEL
            }
            Command::CreatePlan { draft } => draft.level(),
            Command::ForStep { command, .. } => command.level(),
            _ => 0,
        }
    }

    /// Whether a repeat is answered from the table of requests. Locks know their requests themselves,
    /// and there are too many of them for a table.
    pub fn is_remembered(&self) -> bool {
        !matches!(
            self,
            Command::AcquireLock { .. }
                | Command::RenewLock(_)
                | Command::ReleaseLock(_)
                | Command::LeaveLock { .. }
        )
    }

    /// Whether clients ask for it, at a high rate, and for what no controller follows.
    pub fn is_of_clients(&self) -> bool {
        matches!(self, Command::PutSetting { .. } | Command::DeleteSetting { .. }) || !self.is_remembered()
    }

    /// In a few words, for the audit; none for what no operator asks for.
    pub fn audited_as(&self) -> Option<String> {
        match self {
            Command::PutSetting { key, .. } => Some(format!("set {key}")),
            Command::DeleteSetting { key, .. } => Some(format!("delete setting {key}")),
            Command::RecoverCluster(Recovery { incarnation, survivor, .. }) => {
                Some(format!("recover the cluster from node {survivor}, as incarnation {incarnation}"))
            }
            Command::StartOperation { plan, keep_within_ms: None } => Some(format!("apply plan {plan}")),
            Command::StartOperation { plan, keep_within_ms: Some(ms) } => {
                Some(format!("apply plan {plan}, reverting it unless it is kept within {ms} ms"))
            }
            Command::AbortOperation { operation } => Some(format!("abort operation {operation}")),
            Command::KeepOperation { operation } => Some(format!("keep operation {operation}")),
            Command::Traffic(command) => command.audited_as(),
            Command::CreateCluster { .. }
            | Command::RecordElection { .. }
            | Command::RecordHealth { .. }
            | Command::AdmitNode { .. }
            | Command::OrderStatus { .. }
            | Command::DismissNode { .. }
            | Command::RelocateNode { .. }
            | Command::CreatePlan { .. }
            | Command::ReportStep { .. }
            | Command::ForStep { .. }
            | Command::RaiseFeatureLevel { .. }
            | Command::AcquireLock { .. }
            | Command::RenewLock(_)
            | Command::ReleaseLock(_)
            | Command::LeaveLock { .. }
            | Command::DisconnectWaiters { .. }
            | Command::ForceRelease { .. }
            | Command::Tick => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as a later version might write it.
    #[derive(Serialize)]
    struct Reshaped {
        shards: Vec<u64>,
        format: u16,
        command: &'static str,
    }

    #[test]
    fn a_record_of_a_newer_format_is_told_from_damage() {
        let reshaped = |format| {
            rmp_serde::to_vec_named(&Reshaped { shards: vec![7], format, command: "split" }).unwrap()
        };
        let newest = Formats::NEWEST.record;
        let newer = Record::decode(&reshaped(newest + 1)).expect_err("its fields are unknown");
        assert!(matches!(newer, DecodeError::Format(_)), "{newer}");
        assert_eq!(
            newer.to_string(),
            format!("the record has format {}, and this version reads up to {newest}", newest + 1)
        );
        for damaged in [reshaped(newest), Vec::new(), vec![0xc1; 9]] {
            let error = Record::decode(&damaged).expect_err("it is no record");
            assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
        }
    }
}
