//! The other members, asked before a recovery: a quorum that still answers is not lost.

use super::{Survivor, refused};
use crate::cli::CliError;
use futures::future::join_all;
use ringmaster_client::{Address, Client};
use ringmaster_common::cluster::{Cluster, Node};
use std::time::Duration;
use tokio::time::timeout;

/// How long a member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Refuses where a quorum answers, or where the cluster was recovered from another node. Returns what an operator should
/// know before the recovery.
pub async fn check(survivor: &Survivor) -> Result<Vec<String>, CliError> {
    let (me, state) = (survivor.identity.node_id, &survivor.remains.state);
    let others = state.membership.iter().filter(|node| node.id != me);
    let mut warnings = Vec::new();
    for (node, answer) in join_all(others.map(ask)).await {
        let Some(cluster) = answer.filter(|cluster| cluster.id == state.id) else { continue };
        if cluster.incarnation > state.incarnation {
            return Err(refused(
                "recovered_elsewhere",
                format!(
                    "node {} answers at {} in incarnation {} of this cluster: it was recovered already. Have this node join \
                     with an empty data directory",
                    node.id, node.api_addr, cluster.incarnation
                ),
            ));
        }
        if cluster.quorum.has && cluster.leader.is_some() {
            return Err(refused(
                "quorum_not_lost",
                format!(
                    "node {} answers at {}, and has a quorum: start this node as before, or remove it and have it join with \
                     an empty data directory",
                    node.id, node.api_addr
                ),
            ));
        }
        warnings.push(format!(
            "node {} runs at {}. Stop it first, and compare what it has: ringmaster recover --inspect",
            node.id, node.api_addr
        ));
    }
    if survivor.remains.voters.iter().all(|voter| *voter == me) {
        warnings.push(format!("node {me} is the only voter: it starts without a recovery"));
    }
    if !survivor.remains.voters.contains(&me) {
        warnings.push(format!("node {me} is no voter: a voter that is left has at least as much"));
    }
    Ok(warnings)
}

async fn ask(node: &Node) -> (&Node, Option<Cluster>) {
    let Ok(address) = format!("http://{}", node.api_addr).parse::<Address>() else { return (node, None) };
    let client = Client::new([address]).named("cli");
    let answer = timeout(ANSWER_TIMEOUT, client.get::<Cluster>("/v1/cluster")).await;
    (node, answer.ok().and_then(Result::ok))
}
