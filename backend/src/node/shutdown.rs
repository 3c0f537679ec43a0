//! An orderly stop: first leadership, then clients, then the node's own tasks, and consensus last.

use ringmaster_cluster_group::ClusterGroup;
use ringmaster_net::{clock, supervisor::Supervisor};
use ringmaster_peer::Peers;
use ringmaster_planner as planner;
use ringmaster_proxy::Proxy;
use std::time::Duration;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

/// How long a stopping leader waits for another node to lead.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);
/// After this long without a new leader, it tries another node: an election takes a few fsyncs.
const TRANSFER_RETRY_AFTER: Duration = Duration::from_millis(40);
/// How often a stopping leader looks whether another node leads.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long a stopping node waits for requests of its clients.
const CLIENT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long requests through the proxy may take when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of a running node that need an end of their own.
pub struct Running<'a> {
    pub supervisor: &'a Supervisor,
    pub group: ClusterGroup,
    pub peers: Peers,
    pub proxy: Proxy,
    pub stop_http: watch::Sender<bool>,
    /// Ready once the HTTP server has ended.
    pub http_ended: oneshot::Receiver<()>,
}

impl Running<'_> {
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.supervisor.begin_stop();
        transfer_leadership(&self.group).await;
        // First the clients: their requests may still need the new leader.
        self.stop_http.send_replace(true);
        let http = timeout(CLIENT_TIMEOUT, self.http_ended);
        let _ = tokio::join!(http, self.proxy.shutdown(DRAIN_TIMEOUT));
        self.supervisor.stop().await;
        // The links before Raft, which could not serve further requests of peers.
        self.peers.shutdown();
        self.group.shutdown().await;
    }
}

/// Listens from now on, and is ready when a signal asks for a stop.
pub fn stop_signal() -> impl Future<Output = ()> {
    let handlers = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = handlers else {
            // Without handlers, the signals end the process.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// A stopping leader transfers leadership first, so that writes pause for milliseconds instead of an election. A node
/// that has just started does not take it yet; then the transfer is tried again.
async fn transfer_leadership(group: &ClusterGroup) {
    let me = group.me();
    let deadline = clock::now() + TRANSFER_TIMEOUT;
    if group.leader() != Some(me) {
        return;
    }
    let another_leads = || group.leader().is_some_and(|leader| leader != me);
    let mut tried = None;
    while !another_leads() && clock::now() < deadline {
        let (state, observed) = (group.state(), group.observations());
        let best = planner::successor(&state, &observed, |id| id != me && Some(id) != tried)
            .or_else(|| planner::successor(&state, &observed, |id| id != me));
        let Some(best) = best else { return };
        tracing::info!(to = %best, "transferring leadership");
        if group.transfer(best).await.is_err() {
            return;
        }
        tried = Some(best);
        let retry_at = clock::now() + TRANSFER_RETRY_AFTER;
        while !another_leads() && clock::now() < retry_at {
            sleep(POLL_INTERVAL).await;
        }
    }
}
