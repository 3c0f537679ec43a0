//! Becoming a member: the node makes a plan for that, like anybody else, and applies it.
//!
//! It goes on until it is a member. A plan that went stale because another node joined meanwhile is
//! made anew.

use crate::{
    client::{Address, Client},
    raft::cluster_group::ClusterGroup,
};
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::Cluster,
    operation::Operation,
    plan::{ApplyRequest, Plan, PlanRequest},
};
use std::time::Duration;

/// How long to wait before trying again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the plan may take to make this node a member before it is looked into again.
const MEMBER_PATIENCE: Duration = Duration::from_secs(10);
/// A reason for not getting on is logged again after this many tries.
const LOG_EVERY: u32 = 50;

fn client(urls: &[String]) -> Client {
    // The configuration has checked them.
    Client::new(urls.iter().filter_map(|url| url.parse::<Address>().ok())).for_node()
}

/// Waits until one of the URLs answers for a cluster.
pub async fn find_cluster(urls: &[String]) -> Cluster {
    let client = client(urls);
    for attempt in 0u32.. {
        let why = match client.get::<Cluster>("/v1/cluster").await {
            Ok(cluster) if !cluster.id.is_empty() => return cluster,
            Ok(_) => "it has not been created yet".to_owned(),
            Err(error) => error.to_string(),
        };
        if attempt % LOG_EVERY == 0 {
            tracing::info!(%why, "waiting for the cluster to join");
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("the loop ends by returning")
}

/// Joins, unless this node is a member already.
pub async fn run(group: ClusterGroup, urls: Vec<String>, node: NewNode) {
    if urls.is_empty() {
        return;
    }
    let client = client(&urls);
    for attempt in 0u32.. {
        match join(&client, &group, &node).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(why) if attempt % LOG_EVERY == 0 => tracing::info!(why, "not a member yet; trying again"),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the node is a member by now.
async fn join(client: &Client, group: &ClusterGroup, node: &NewNode) -> Result<bool, String> {
    if group.state().membership.get(node.id).is_some() {
        return Ok(true);
    }
    let request = PlanRequest { action: Action::AddNode { node: node.clone() } };
    let plan: Plan = client.post("/v1/plans", &request).await.map_err(|error| error.to_string())?;
    if let Some(blocker) = plan.blockers.first() {
        return Err(format!("{}; {}", blocker.detail, blocker.lifted_by));
    }
    let path = format!("/v1/plans/{}/apply", plan.id);
    client.post::<Operation>(&path, &ApplyRequest::default()).await.map_err(|error| error.to_string())?;
    tracing::info!(plan = %plan.id, "joining");
    let mut applied = group.published().watch();
    let member = applied.wait_for(|_| group.state().membership.get(node.id).is_some());
    Ok(tokio::time::timeout(MEMBER_PATIENCE, member).await.is_ok())
}
