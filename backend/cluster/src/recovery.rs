//! Recovery from a lost quorum: one node continues alone with what it has, in a new incarnation.
//!
//! The command is in no log. `ringmaster recover` applies it to the state that a stopped node has on disk, and writes the
//! result as the snapshot that the new incarnation begins with.
//!
//! The lost members may have acknowledged entries that this node never had. What they handed out in them (revisions,
//! fencing tokens, epochs) must not be handed out again for something else: a resource that has seen the token of a
//! lost grant would take the next holder for an older one. So each of these counters leaves out [`RECOVERY_GAP`].

use crate::{Context, State};
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::{Incarnation, NodeId, Revision},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many revisions, fencing tokens and epochs a recovery leaves out. At 10,000 writes a second, the lost members would
/// have been ahead of the survivor by three years; and there is room for thousands of recoveries below 2^53.
pub const RECOVERY_GAP: u64 = 1_000_000_000_000;

/// A recovery, as the command has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    pub incarnation: Incarnation,
    /// What the version that recovers can do: all that is left runs it.
    pub feature_level: u32,
    pub survivor: NodeId,
}

impl State {
    /// The members, by their ids; those that consensus counts already among them.
    pub fn members(&self) -> Vec<NodeId> {
        let membership = &self.membership;
        let mut members: Vec<_> =
            membership.nodes.keys().chain(&membership.voters).chain(&membership.learners).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    pub(super) fn recover(&mut self, context: &mut Context, recovery: &Recovery) {
        let Recovery { incarnation, feature_level, survivor } = *recovery;
        self.incarnation = incarnation;
        let last_revision = self.revision;
        context.emit(Event::ClusterRecovered {
            incarnation,
            node: survivor,
            last_revision,
            former_members: self.members(),
        });
        if feature_level > self.feature_level {
            self.feature_level = feature_level;
            context.emit(Event::FeatureLevelRaised { level: feature_level });
        }
        let why = format!("the cluster was recovered from node {survivor}, as incarnation {incarnation}");
        let refusal =
            Refusal::new(Code::ClusterRecovered, format!("{why}; look what it left behind, and plan anew"));
        let failed = self.operations.fail_all(context, &refusal);
        self.clean_up(context, failed);
        let gone: Vec<_> = self.membership.nodes.keys().copied().filter(|id| *id != survivor).collect();
        Arc::make_mut(&mut self.membership).reduce_to(context, survivor);
        for gone in gone {
            self.locks.disconnect(context, gone, None);
            self.upstreams.forget_observer(gone);
        }
        self.locks.skip_tokens(RECOVERY_GAP);
        self.upstreams.skip_epochs(context, RECOVERY_GAP, &why);
    }
}

/// The revision at which a state that stands at `last` is recovered.
pub fn recovered_at(last: Revision) -> Revision {
    Revision(last.0.saturating_add(RECOVERY_GAP))
}
