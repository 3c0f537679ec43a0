//! Becoming a member: the node makes a plan for that, like anybody else, and applies it.
//!
//! A node whose directory is empty does so before it takes its identity down, so that two that come at
//! the same moment do not both believe to be node 4. What does not work now is tried again, less and
//! less often: every try is written into the cluster's history.

use super::NodeError;
use ringmaster_client::{Address, Client, ClientError};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::{Cluster, Node, NodeStatus},
    error::Code,
    operation::Operation,
    page::Page,
    plan::{ApplyRequest, Plan, PlanRequest},
};
use ringmaster_net::clock;
use std::time::{Duration, Instant};

/// How long to wait before looking again for what changes by itself.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait between two plans.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long an operation may take to make this node a member before it is looked into again.
const MEMBER_PATIENCE: Duration = Duration::from_secs(10);
/// A reason for not getting on is logged again after this long.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Blockers that no waiting lifts.
const FINAL: [&str; 2] = ["id_departed", "address_in_use"];

/// How a try to join went.
enum Joining {
    Started,
    /// The id belongs to another member.
    IdTaken,
    NotNow(String),
}

fn client(urls: &[String]) -> Client {
    // The configuration has checked them.
    Client::new(urls.iter().filter_map(|url| url.parse::<Address>().ok())).named("node")
}

/// Says why it does not get on, not too often.
#[derive(Default)]
struct Log(Option<Instant>);

impl Log {
    fn why(&mut self, what: &str, why: &str) {
        let now = clock::now();
        if self.0.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY) {
            self.0 = Some(now);
            tracing::info!(why, "{what}");
        }
    }
}

/// Waits until one of the URLs answers for a cluster.
pub async fn find_cluster(urls: &[String]) -> Cluster {
    let client = client(urls);
    let mut log = Log::default();
    loop {
        let why = match client.get::<Cluster>("/v1/cluster").await {
            Ok(cluster) if !cluster.id.is_empty() => return cluster,
            Ok(_) => "it has not been created yet".to_owned(),
            Err(error) => reason(&error),
        };
        log.why("waiting for the cluster to join", &why);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Has a node admitted that has no identity yet. False where its id was given to another meanwhile.
pub async fn admit(urls: &[String], node: &NewNode) -> Result<bool, NodeError> {
    let client = client(urls);
    let (mut log, mut back_off) = (Log::default(), PAUSE);
    loop {
        match start(&client, node).await? {
            Joining::Started => return Ok(true),
            Joining::IdTaken => return Ok(false),
            Joining::NotNow(why) => log.why("not a member yet; trying again", &why),
        }
        tokio::time::sleep(back_off).await;
        back_off = (2 * back_off).min(MAX_BACK_OFF);
    }
}

/// Makes sure that the node becomes a member: what was started may have failed, or been cut short.
pub async fn run(group: ClusterGroup, urls: Vec<String>, node: NewNode) -> Result<(), NodeError> {
    let client = client(&urls);
    let mut applied = group.published().watch();
    let (mut log, mut back_off) = (Log::default(), PAUSE);
    loop {
        let member = applied.wait_for(|_| group.state().membership.get(node.id).is_some());
        if tokio::time::timeout(MEMBER_PATIENCE, member).await.is_ok() {
            return Ok(());
        }
        match start(&client, &node).await? {
            Joining::Started => {}
            Joining::IdTaken => log.why("waiting to hear of the cluster", "this node is a member already"),
            Joining::NotNow(why) => log.why("not a member yet; trying again", &why),
        }
        tokio::time::sleep(back_off).await;
        back_off = (2 * back_off).min(MAX_BACK_OFF);
    }
}

/// Plans and applies. An error is one that no waiting mends.
async fn start(client: &Client, node: &NewNode) -> Result<Joining, NodeError> {
    // The answer to an earlier try may have been lost with the leader that gave it.
    match client.get::<Cluster>("/v1/cluster").await {
        Ok(cluster) if cluster.nodes.iter().any(|info| is_expected(&info.node, node)) => {
            return Ok(Joining::Started);
        }
        Ok(_) => {}
        Err(error) => return Ok(Joining::NotNow(reason(&error))),
    }
    // A plan that could not be applied now would only be noise in the history.
    match client.get::<Page<Operation>>("/v1/operations?limit=1").await {
        Ok(latest) => match latest.items.iter().find(|operation| !operation.status.is_final()) {
            Some(Operation { action: Action::AddNode { node: added }, .. }) if added == node => {
                return Ok(Joining::Started);
            }
            Some(other) => return Ok(Joining::NotNow(format!("operation {} is under way", other.id))),
            None => {}
        },
        Err(error) => return Ok(Joining::NotNow(reason(&error))),
    }
    let request = PlanRequest { action: Action::AddNode { node: node.clone() } };
    let plan: Plan = match client.post("/v1/plans", &request).await {
        Ok(plan) => plan,
        Err(error) => return not_now(error),
    };
    if plan.blockers.iter().any(|blocker| blocker.code == "id_in_use") {
        return Ok(Joining::IdTaken);
    }
    if let Some(blocker) = plan.blockers.iter().find(|blocker| FINAL.contains(&blocker.code.as_str())) {
        return Err(NodeError(format!(
            "node {} cannot join: {}; {}",
            node.id, blocker.detail, blocker.lifted_by
        )));
    }
    if let Some(blocker) = plan.blockers.first() {
        return Ok(Joining::NotNow(format!("{}; {}", blocker.detail, blocker.lifted_by)));
    }
    let path = format!("/v1/plans/{}/apply", plan.id);
    match client.post::<Operation>(&path, &ApplyRequest::default()).await {
        Ok(_) => {
            tracing::info!(node = %node.id, plan = %plan.id, "joining");
            Ok(Joining::Started)
        }
        Err(error) => not_now(error),
    }
}

/// Whether the cluster waits for this very node to come. One that it has heard of before may have lost
/// what it once acknowledged, and is not expected in the same place.
fn is_expected(member: &Node, node: &NewNode) -> bool {
    member.id == node.id && member.peer_addr == node.peer_addr && member.status == NodeStatus::Joining
}

fn not_now(error: ClientError) -> Result<Joining, NodeError> {
    match &error {
        ClientError::Problem(problem) if problem.code == Code::InvalidRequest.as_str() => {
            Err(NodeError(format!("the cluster does not take this node: {}", problem.detail)))
        }
        _ => Ok(Joining::NotNow(reason(&error))),
    }
}

/// Without the advice that is meant for the command line.
fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable(attempts) => {
            let tried: Vec<_> =
                attempts.iter().map(|attempt| format!("{}: {}", attempt.url, attempt.reason)).collect();
            format!("no node answers ({}); is one of them running?", tried.join(", "))
        }
        other => other.to_string(),
    }
}
