//! Events: the facts that applying a log entry produced.
//!
//! The view is nothing but the fold of these, so an event carries all that the fold needs.

use crate::{
    Timestamp,
    action::Action,
    cluster::{Node, NodeStatus, Sees},
    error::Refusal,
    id::{Incarnation, NodeId, OperationId, PlanId, Revision},
    operation::{Operation, OperationStatus, Step},
    setting::Setting,
};
use serde::{Deserialize, Serialize};

/// All events of one revision, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventBatch {
    pub revision: Revision,
    /// When the leader stamped the entry, by its wall clock.
    pub at: Timestamp,
    /// Who asked for it.
    pub actor: String,
    /// The request that caused it, as it stands in logs and in the audit.
    pub request_id: String,
    pub events: Vec<Event>,
}

/// A fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    ClusterCreated {
        name: String,
        id: String,
        incarnation: Incarnation,
    },
    NodeJoined {
        node: Node,
    },
    NodeStatusChanged {
        node: NodeId,
        from: NodeStatus,
        to: NodeStatus,
        reason: String,
    },
    OpinionChanged {
        observer: NodeId,
        subject: NodeId,
        sees: Sees,
    },
    MembershipChanged {
        voters: Vec<NodeId>,
        learners: Vec<NodeId>,
    },
    LeaderElected {
        term: u64,
        leader: NodeId,
    },
    SettingChanged {
        setting: Setting,
    },
    PlanCreated {
        plan: PlanId,
        action: Action,
        blocked: bool,
    },
    PlanExpired {
        plan: PlanId,
    },
    OperationStarted {
        operation: Operation,
    },
    /// The step at position `step` is now this one.
    StepChanged {
        operation: OperationId,
        position: u32,
        step: Step,
    },
    /// Steps were added at the end: those of a revert.
    StepsAdded {
        operation: OperationId,
        steps: Vec<Step>,
    },
    OperationChanged {
        operation: OperationId,
        status: OperationStatus,
        error: Option<Refusal>,
        ended_at: Option<Timestamp>,
        keep_until: Option<Timestamp>,
    },
    OperationUndone {
        operation: OperationId,
        by: OperationId,
    },
    /// An entry was added to the audit; `count` is the number of all entries ever made.
    Audited {
        count: u64,
    },
}

/// Who asked for what, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Counts from 1, without gaps.
    pub number: u64,
    pub revision: Revision,
    pub at: Timestamp,
    pub actor: String,
    pub request_id: String,
    /// What was asked for, in a few words.
    pub request: String,
    /// Null where it was done; else why it was refused.
    pub refused: Option<Refusal>,
    /// The operation that it started or changed.
    pub operation: Option<OperationId>,
}
