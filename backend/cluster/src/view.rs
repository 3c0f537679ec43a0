//! From the state to what clients see of it.

use crate::State;
use ringmaster_common::view::ClusterView;

/// The view of a state. Folding the events of later entries keeps it equal to the view of the
/// state that those entries lead to.
pub fn view(state: &State) -> ClusterView {
    ClusterView {
        name: state.name.clone(),
        id: state.id.clone(),
        incarnation: state.incarnation,
        feature_level: state.feature_level,
        revision: state.history.last_revision(),
        elected: state.election.clone(),
        nodes: state.membership.nodes.iter().map(|(_, node)| node.as_ref().clone()).collect(),
        settings: state.settings.iter().cloned().collect(),
        operations: state.operations.shown().cloned().collect(),
        upstreams: state.upstreams.iter().cloned().collect(),
        routes: state.routes.iter().cloned().collect(),
        audit_count: state.audit.count,
    }
}
