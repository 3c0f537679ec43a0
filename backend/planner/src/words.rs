//! How nodes and the group are called in the sentences of plans.

use ringmaster_cluster::State;
use ringmaster_common::id::NodeId;

/// The subject of warnings and blockers that concern the cluster group as a whole.
pub const GROUP: &str = "group/0";

pub fn named(state: &State, id: NodeId) -> String {
    match state.membership.get(id) {
        Some(node) => format!("node {id} ({})", node.name),
        None => format!("node {id}"),
    }
}

/// "node 4", "nodes 4 and 5", "nodes 1, 2 and 3"
pub fn nodes(ids: impl IntoIterator<Item = NodeId>) -> String {
    let ids: Vec<_> = ids.into_iter().map(|id| id.to_string()).collect();
    match ids.as_slice() {
        [] => "no node".to_owned(),
        [one] => format!("node {one}"),
        [others @ .., last] => format!("nodes {} and {last}", others.join(", ")),
    }
}

pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
