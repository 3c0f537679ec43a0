//! The identity of a node: its id, its name and its cluster, written once and read at each later start.

use super::{NodeError, join};
use crate::config::{NodeConfig, Start, made_up_name};
use ringmaster_cluster::version;
use ringmaster_common::{
    action::NewNode,
    id::{Incarnation, NodeId},
};
use ringmaster_storage::{
    data_dir::{Addresses, DataDir, Identity},
    journal::Journal,
};

/// The identity in the data directory. Where that is empty, the configuration says how to get one.
pub async fn establish(config: &NodeConfig, data_dir: &DataDir) -> Result<Identity, NodeError> {
    let known = data_dir.identity().map_err(|error| NodeError(error.to_string()))?;
    let identity = match known {
        Some(identity) => identity,
        None => {
            // First: a node that has lost its identity must not join as another one over its old log.
            data_dir.check_empty().map_err(|error| NodeError(error.to_string()))?;
            let identity = first_identity(config).await?;
            // First the journal: where there is an identity, a missing journal is a loss.
            Journal::create(data_dir.path()).map_err(|error| NodeError(error.to_string()))?;
            data_dir.write_identity(&identity).map_err(|error| NodeError(error.to_string()))?;
            identity
        }
    };
    if let Some(id) = config.id.filter(|id| *id != identity.node_id) {
        return Err(NodeError(format!(
            "{} belongs to node {}, not to node {id}; give this node its own --data-dir",
            config.data_dir.display(),
            identity.node_id
        )));
    }
    Ok(identity)
}

/// The first node of a new cluster, or a node that another cluster has admitted.
async fn first_identity(config: &NodeConfig) -> Result<Identity, NodeError> {
    let identity = |cluster_id, node_id, incarnation| {
        let name = config.name.clone().unwrap_or_else(|| made_up_name(node_id));
        let addresses = Addresses {
            api_addr: config.api_addr,
            peer_addr: config.peer_addr,
            public_url: config.public_url.clone(),
        };
        Identity { cluster_id, node_id, name, incarnation, addresses }
    };
    match &config.start {
        Start::Bootstrap => {
            let id = config.id.unwrap_or(NodeId(1));
            Ok(identity(uuid::Uuid::new_v4().to_string(), id, Incarnation(1)))
        }
        Start::Join(urls) => loop {
            let cluster = join::find_cluster(urls).await;
            version::check(cluster.feature_level).map_err(|error| NodeError(error.to_string()))?;
            let identity = identity(cluster.id, config.id.unwrap_or(cluster.next_id), cluster.incarnation);
            if join::admit(urls, &new_node(config, &identity)).await? {
                return Ok(identity);
            }
            // Another node has taken the id. The next one will do, unless this one was configured.
            if let Some(id) = config.id {
                // Consensus counts on what a node has acknowledged: it must not come back without that.
                return Err(NodeError(format!(
                    "node {id} is a member of {} already, and {} is empty. A node that has lost its data comes back \
                     under a new id: start it with another --id, or restore the directory",
                    cluster.name,
                    config.data_dir.display()
                )));
            }
        },
        Start::Resume => Err(NodeError(format!(
            "{} is empty: start the first node of a cluster with --bootstrap, and further ones with --join URL",
            config.data_dir.display()
        ))),
    }
}

/// This node as a member of its cluster.
pub fn new_node(config: &NodeConfig, identity: &Identity) -> NewNode {
    NewNode {
        id: identity.node_id,
        name: identity.name.clone(),
        zone: config.zone.clone(),
        weight: config.weight,
        api_addr: config.api_addr.to_string(),
        peer_addr: config.peer_addr.to_string(),
        public_url: config.public_url.clone(),
    }
}
