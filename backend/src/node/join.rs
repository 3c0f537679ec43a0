//! Joins a cluster: the node makes a plan that adds it, and applies the plan, as an operator would.
//!
//! A node with an empty directory does so before it writes its identity, so that two that come at the same moment do not
//! both become node 4. A failed attempt is repeated after longer and longer pauses: each is an entry in the cluster's
//! history.

use super::NodeError;
use ringmaster_client::{Address, Client, ClientError};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_common::{
    action::{Action, NewNode},
    cluster::{Cluster, Node, NodeStatus},
    error::Code,
    operation::Operation,
    page::Page,
    plan::{ApplyRequest, Plan, PlanRequest, Scope},
};
use ringmaster_net::clock;
use std::time::{Duration, Instant};

/// The pause before the next look or the first repeated attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait between two plans.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
/// How long the operation may take before the node checks on it.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the reason for waiting is logged.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Blockers that waiting does not lift.
const FINAL: [&str; 2] = ["id_departed", "address_in_use"];

/// The result of an attempt to join.
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

/// Logs why the node waits, not too often.
#[derive(Default)]
struct Log(Option<Instant>);

impl Log {
    fn waiting(&mut self, message: &str, reason: &str) {
        let now = clock::now();
        if self.0.is_none_or(|last| now.saturating_duration_since(last) >= LOG_EVERY) {
            self.0 = Some(now);
            tracing::info!(reason, "{message}");
        }
    }
}

/// Waits until one of the URLs answers with a cluster.
pub async fn find_cluster(urls: &[String]) -> Cluster {
    let client = client(urls);
    let mut log = Log::default();
    loop {
        let waits_for = match client.get::<Cluster>("/v1/cluster").await {
            Ok(cluster) if !cluster.id.is_empty() => return cluster,
            Ok(_) => "it has not been created yet".to_owned(),
            Err(error) => reason(&error),
        };
        log.waiting("waiting for the cluster to join", &waits_for);
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Gets a node admitted that has no identity yet. False where another node has taken its id meanwhile.
pub async fn admit(urls: &[String], node: &NewNode) -> Result<bool, NodeError> {
    let client = client(urls);
    let (mut log, mut back_off) = (Log::default(), RETRY_PAUSE);
    loop {
        match start(&client, node).await? {
            Joining::Started => return Ok(true),
            Joining::IdTaken => return Ok(false),
            Joining::NotNow(why) => log.waiting("not a member yet; trying again", &why),
        }
        tokio::time::sleep(back_off).await;
        back_off = (2 * back_off).min(MAX_BACK_OFF);
    }
}

/// Waits until the node is a member, and starts the operation again if it failed or was cut short.
pub async fn run(group: ClusterGroup, urls: Vec<String>, node: NewNode) -> Result<(), NodeError> {
    let client = client(&urls);
    let mut applied = group.published().watch();
    let (mut log, mut back_off) = (Log::default(), RETRY_PAUSE);
    loop {
        let member = applied.wait_for(|_| group.state().membership.get(node.id).is_some());
        if tokio::time::timeout(MEMBER_TIMEOUT, member).await.is_ok() {
            return Ok(());
        }
        match start(&client, &node).await? {
            Joining::Started => {}
            Joining::IdTaken => {
                log.waiting("waiting for the state of the cluster", "this node is a member already")
            }
            Joining::NotNow(why) => log.waiting("not a member yet; trying again", &why),
        }
        tokio::time::sleep(back_off).await;
        back_off = (2 * back_off).min(MAX_BACK_OFF);
    }
}

/// Whether it is unfinished, and another change of the cluster has to wait for it.
fn changes_members(operation: &Operation) -> bool {
    operation.scope == Scope::Cluster && !operation.status.is_final()
}

/// Plans and applies. An error is one that waiting does not mend.
async fn start(client: &Client, node: &NewNode) -> Result<Joining, NodeError> {
    // The answer to an earlier attempt may have been lost with the leader that gave it.
    match client.get::<Cluster>("/v1/cluster").await {
        Ok(cluster) if cluster.nodes.iter().any(|info| is_expected(&info.node, node)) => {
            return Ok(Joining::Started);
        }
        Ok(_) => {}
        Err(error) => return Ok(Joining::NotNow(reason(&error))),
    }
    // A plan that cannot be applied now would only be noise in the history.
    match client.get::<Page<Operation>>("/v1/operations?limit=50").await {
        Ok(latest) => match latest.items.iter().find(|operation| changes_members(operation)) {
            Some(Operation { action: Action::AddNode { node: added }, .. }) if added == node => {
                return Ok(Joining::Started);
            }
            Some(other) => return Ok(Joining::NotNow(format!("operation {} changes the cluster", other.id))),
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

/// Whether the cluster waits for this node to come for the first time. One that it has heard from may have lost entries
/// that it had acknowledged.
fn is_expected(member: &Node, node: &NewNode) -> bool {
    member.id == node.id && member.peer_addr == node.peer_addr && member.status == NodeStatus::Joining
}

fn not_now(error: ClientError) -> Result<Joining, NodeError> {
    match &error {
        ClientError::Problem(problem) if problem.code == Code::InvalidRequest.as_str() => {
            Err(NodeError(format!("the cluster does not accept this node: {}", problem.detail)))
        }
        _ => Ok(Joining::NotNow(reason(&error))),
    }
}

/// The reason without the advice for the command line.
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
