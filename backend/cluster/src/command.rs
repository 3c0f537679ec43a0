//! What the log of the cluster group holds.
//!
//! Commands never leave the backend: clients see requests and events, so that the log and the API
//! can evolve apart. Records are MessagePack with named fields: a field can be added with a default.
//! A command that this version does not know cannot be decoded, and stops the node; it is never
//! skipped, because then this node's state would differ from that of the others.

use crate::version::{self, Formats, UnknownFormat};
use crate::{
    locks::Attachment,
    plans::Draft,
    traffic::{self, TrafficCommand},
};
use bytes::Bytes;
use ringmaster_common::{
    Timestamp,
    action::{Action, NewNode},
    cluster::{Liveness, NodeStatus},
    duration::millis,
    error::Refusal,
    id::{Incarnation, NodeId, OperationId, PlanId, Revision, Token},
    lock::{AcquireLock, LockGrant, ReleaseLock, RenewLock},
    operation::Operation,
    plan::Plan,
    setting::Setting,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeSet, fmt, time::Duration};

/// Milliseconds of cluster time: the leader's monotonic clock, carried on from leader to leader.
/// It never runs faster than any real clock, and never backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    pub fn after(self, duration: Duration) -> ClusterTime {
        ClusterTime(self.0.saturating_add(millis(duration)))
    }
}

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

/// Who asks, and under which id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// A repeat under the same id is answered with the first outcome.
    pub id: String,
    pub actor: Actor,
    /// Whether the client chose the id, and so may repeat the request itself.
    pub repeatable: bool,
    /// Where the node that has the client sends it again: its first attempt is ordered after this, if at all.
    #[serde(default)]
    pub resent_after: Option<Revision>,
}

/// Who asked for a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Somebody outside; what they do is audited.
    Operator(String),
    /// A controller on this node.
    Node(NodeId),
    /// openraft itself, which writes entries of its own.
    Consensus,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::Operator(name) => f.write_str(name),
            Actor::Node(node) => write!(f, "node {node}"),
            Actor::Consensus => f.write_str("consensus"),
        }
    }
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
    AbortOperation {
        operation: OperationId,
    },
    KeepOperation {
        operation: OperationId,
    },
    /// The same request again is the same holder, or the same waiter.
    AcquireLock {
        acquire: AcquireLock,
        attachment: Attachment,
    },
    RenewLock(RenewLock),
    ReleaseLock(ReleaseLock),
    /// The client of this connection is gone.
    LeaveLock {
        name: String,
        attachment: Attachment,
        /// Whether it may send its request again, by another node.
        #[serde(default)]
        may_return: bool,
    },
    /// The node has started, and knows nothing of the clients that it had.
    DetachWaiters {
        node: NodeId,
        lifetime: u64,
    },
    /// A step of an operation takes the lock away from these.
    ForceRelease {
        name: String,
        tokens: BTreeSet<Token>,
    },
    Traffic(Box<TrafficCommand>),
    /// Lets time pass: what is due is done.
    Tick,
    /// What a version before this one does not understand.
    #[cfg(feature = "next-version")]
    Novelty,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpinionChange {
    pub observer: NodeId,
    pub subject: NodeId,
    pub sees: Liveness,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    pub node: NodeId,
    pub status: NodeStatus,
    pub reason: String,
}

/// The version that a conditional write expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    #[default]
    None,
    /// `If-Match` with versions.
    AnyOf(Vec<Revision>),
    /// `If-Match: *`
    Exists,
    /// `If-None-Match: *`
    Absent,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Where the log holds the command that was carried out; for a repeat, the first one.
    pub revision: Revision,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Refused(Refusal),
    Setting {
        setting: Setting,
        created: bool,
    },
    /// What was put is in the state, where whoever asked reads it.
    Configured {
        created: bool,
    },
    Plan(Box<Plan>),
    LockGranted(LockGrant),
    /// They wait; their node is told what becomes of it.
    LockQueued,
    /// `started` tells whether this very command started it.
    Operation {
        operation: Box<Operation>,
        started: bool,
    },
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

impl Response {
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Response, DecodeError> {
        Ok(rmp_serde::from_slice(bytes)?)
    }
}

/// Room for most of what is encoded, so that it need not be moved as it grows.
const USUAL_BYTES: usize = 1024;

fn encode(value: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    rmp_serde::encode::write_named(&mut bytes, value).expect("plain data encodes");
    bytes.into()
}

impl Command {
    /// What makes a repeat of a request the same request. A plan is known by what it was asked for:
    /// what it measured differs at each try.
    pub fn fingerprint(&self) -> u32 {
        let bytes = match self {
            Command::CreatePlan { draft } => return Command::fingerprint_of_plan(&draft.action),
            command => encode(command),
        };
        crc32fast::hash(&bytes)
    }

    pub fn fingerprint_of_plan(action: &Action) -> u32 {
        crc32fast::hash(&encode(action))
    }

    /// The feature level at which all members can read it; 0 where they always could.
    pub fn level(&self) -> u32 {
        match self {
            Command::Traffic(_) => traffic::LEVEL,
            Command::CreatePlan { draft } => draft.goal.level(),
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
        matches!(self, Command::PutSetting { .. }) || !self.is_remembered()
    }

    /// In a few words, for the audit; none for what no operator asks for.
    pub fn audited_as(&self) -> Option<String> {
        match self {
            Command::PutSetting { key, .. } => Some(format!("set {key}")),
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
            | Command::CreatePlan { .. }
            | Command::ReportStep { .. }
            | Command::RaiseFeatureLevel { .. }
            | Command::AcquireLock { .. }
            | Command::RenewLock(_)
            | Command::ReleaseLock(_)
            | Command::LeaveLock { .. }
            | Command::DetachWaiters { .. }
            | Command::ForceRelease { .. }
            | Command::Tick => None,
            #[cfg(feature = "next-version")]
            Command::Novelty => None,
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
        let newer = Record::decode(&reshaped(newest + 1)).expect_err("nobody knows its fields");
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
