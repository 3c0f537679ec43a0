//! Members: who they are, who votes, and how they are.

use crate::Context;
use imbl::OrdMap;
use ringmaster_common::{
    action::NewNode,
    cluster::{Liveness, Node, NodeStatus},
    event::Event,
    id::{NodeId, Revision},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// How many former members are remembered.
pub const MAX_DEPARTED: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Former members. None of them may come back: what they once acknowledged, they may have lost.
    #[serde(default)]
    pub departed: BTreeSet<NodeId>,
    /// The revision that last changed voters or learners.
    pub version: Revision,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpinionChange {
    pub observer: NodeId,
    pub subject: NodeId,
    pub sees: Liveness,
}

/// Under which addresses a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    pub api_addr: String,
    pub peer_addr: String,
    pub public_url: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    pub node: NodeId,
    pub status: NodeStatus,
    pub reason: String,
}

impl Membership {
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// "members are 1, 2, 3"
    pub fn known(&self) -> String {
        let ids: Vec<_> = self.nodes.keys().map(NodeId::to_string).collect();
        format!("members are {}", ids.join(", "))
    }

    /// An id that no member has or had.
    pub fn next_id(&self) -> NodeId {
        let highest = self.nodes.keys().chain(&self.departed).max();
        NodeId(highest.map_or(1, |id| id.0 + 1))
    }

    pub(super) fn admit(&mut self, context: &mut Context, new: &NewNode) {
        if self.nodes.contains_key(&new.id) || self.departed.contains(&new.id) {
            return;
        }
        let node = Node {
            id: new.id,
            name: new.name.clone(),
            zone: new.zone.clone(),
            weight: new.weight,
            api_addr: new.api_addr.clone(),
            peer_addr: new.peer_addr.clone(),
            public_url: new.public_url.clone(),
            status: NodeStatus::Joining,
            status_reason: "it was admitted and has not been heard from yet".to_owned(),
            status_since: context.wall,
            status_revision: context.revision,
            voter: self.voters.contains(&new.id),
            opinions: Vec::new(),
        };
        self.nodes.insert(node.id, Arc::new(node.clone()));
        context.emit(Event::NodeJoined { node });
    }

    /// A member was started with other addresses.
    pub(super) fn relocate(&mut self, context: &mut Context, id: NodeId, moved: &NodeAddresses) {
        let NodeAddresses { api_addr, peer_addr, public_url } = moved.clone();
        let is_there = self.get(id).is_some_and(|node| {
            (&node.api_addr, &node.peer_addr, &node.public_url) != (&api_addr, &peer_addr, &public_url)
        });
        if is_there {
            self.edit(id, |node| node.set_addresses(&api_addr, &peer_addr, &public_url));
            context.emit(Event::NodeMoved { node: id, api_addr, peer_addr, public_url });
        }
    }

    /// `survivor` alone is left of all members, as the only voter.
    pub(super) fn reduce_to(&mut self, context: &mut Context, survivor: NodeId) {
        // Those that were about to join are no nodes of the state yet, or no voters.
        let former: BTreeSet<NodeId> =
            self.nodes.keys().chain(&self.voters).chain(&self.learners).copied().collect();
        for gone in former.into_iter().filter(|id| *id != survivor) {
            self.dismiss(context, gone);
            self.departed.insert(gone);
        }
        self.adopt(context, [survivor].into(), BTreeSet::new());
        // An order to drain it was for a cluster that had other nodes.
        let reason = "the cluster was recovered from it".to_owned();
        self.set_status(context, &StatusChange { node: survivor, status: NodeStatus::Up, reason });
    }

    /// A node that consensus has let go leaves the state, too.
    pub(super) fn dismiss(&mut self, context: &mut Context, id: NodeId) {
        if self.nodes.remove(&id).is_none() {
            return;
        }
        self.departed.insert(id);
        let others: Vec<_> = self.nodes.keys().copied().collect();
        for other in others {
            self.edit(other, |node| node.forget_observer(id));
        }
        context.emit(Event::NodeLeft { node: id });
    }

    /// An operator's order, which the failure detector does not overrule.
    pub(super) fn order(&mut self, context: &mut Context, change: &StatusChange) {
        self.set_status(context, change);
    }

    /// openraft's membership entry was applied.
    pub(super) fn adopt(
        &mut self,
        context: &mut Context,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) {
        if (&self.voters, &self.learners) == (&voters, &learners) {
            return;
        }
        // The very first members come before there is a cluster, and before any stamp: creating the
        // cluster emits them.
        if !self.nodes.is_empty() {
            context.emit(Event::MembershipChanged {
                voters: voters.iter().copied().collect(),
                learners: learners.iter().copied().collect(),
            });
        }
        let changed: Vec<_> =
            self.iter().filter(|node| node.voter != voters.contains(&node.id)).map(|node| node.id).collect();
        for id in changed {
            self.edit(id, |node| node.voter = voters.contains(&id));
        }
        (self.voters, self.learners, self.version) = (voters, learners, context.revision);
    }

    pub(super) fn record_health(
        &mut self,
        context: &mut Context,
        opinions: &[OpinionChange],
        statuses: &[StatusChange],
    ) {
        for OpinionChange { observer, subject, sees } in opinions {
            let observes = self.nodes.contains_key(observer);
            if observes && self.edit(*subject, |node| node.set_opinion(*observer, *sees, context.wall)) {
                context.emit(Event::OpinionChanged { observer: *observer, subject: *subject, sees: *sees });
            }
        }
        for change in statuses {
            // The leader may have judged before it saw the order.
            if self.get(change.node).is_some_and(|node| !node.status.is_ordered()) {
                self.set_status(context, change);
            }
        }
    }

    fn set_status(&mut self, context: &mut Context, change: &StatusChange) {
        let StatusChange { node: id, status, reason } = change;
        let Some(from) = self.get(*id).map(|node| node.status).filter(|from| from != status) else {
            return;
        };
        self.edit(*id, |node| node.set_status(*status, reason, context.wall, context.revision));
        context.emit(Event::NodeStatusChanged { node: *id, from, to: *status, reason: reason.clone() });
    }

    /// Whether there is such a node.
    fn edit(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) -> bool {
        match self.nodes.get_mut(&id) {
            Some(node) => {
                change(Arc::make_mut(node));
                true
            }
            None => false,
        }
    }
}
