//! The links between nodes.
//!
//! Each node listens on its peer address, and dials every other member: one lasting connection for
//! each ordered pair. Requests go out on the connection that one has dialled, answers come back on
//! it. So a node that can be reached but cannot reach, and one that can reach but not be reached,
//! look different, as they should. A frame is a WebSocket message ([`frame`]); the first message
//! each way is the [`handshake`]. Beside the connections go [`probe`]s, which show a cut of one way
//! as different from a cut of both.
//!
//! What always holds:
//! - Calls to a peer are queued in the order in which they were made, urgent ones before bulk, and
//!   the peer's [`Service`] gets them in that order. Answers may come in any order.
//! - Nothing waits for room: what finds a bound reached fails at once with [`CallError::Busy`].
//! - When a connection ends, or the peer was silent for [`SILENCE_LIMIT`], every unanswered call
//!   fails at once. A lost call may have been served.
//!
//! It deliberately knows nothing of Raft or of any other meaning of the bodies that it carries, and
//! makes no call twice. It decides nothing about a peer that is silent: it says for how long.

mod accept;
mod arrivals;
mod connection;
mod frame;
mod handshake;
mod link;
mod outgoing;
mod probe;
mod service;
#[cfg(test)]
mod tests;

pub use self::{
    frame::{Channel, Failure, FailureCode, Lane, MAX_BODY_BYTES, Trace},
    service::{Answer, Incoming, Service, Session},
};

use self::{accept::Refusals, link::Link};
use bytes::Bytes;
use ringmaster_common::{
    id::{GroupId, Incarnation, NodeId},
    telemetry::Reachability,
};
use ringmaster_net::{clock, supervisor::Supervisor};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{broadcast, watch},
    task::AbortHandle,
    time::timeout,
};

/// The path at which peers upgrade to a WebSocket.
const PATH: &str = "/peer";
/// The largest frame, header and all.
pub const MAX_FRAME_BYTES: usize = 16 << 20;
/// How many bulk calls to one peer may be unanswered.
pub const MAX_IN_FLIGHT_BULK: usize = 1280;
/// How many urgent calls to one peer may be unanswered.
const MAX_IN_FLIGHT_URGENT: usize = 256;
/// How many bulk frames may wait to be written to one connection.
const MAX_QUEUED_BULK: usize = 2048;
/// How many bytes of bulk frames may wait to be written to one connection.
const MAX_QUEUED_BULK_BYTES: usize = 64 << 20;
/// How many urgent frames may wait to be written to one connection.
const MAX_QUEUED_URGENT: usize = 512;
/// How many connections may be accepted at a time, those in the handshake among them.
const MAX_ACCEPTED: usize = 160;
/// How many of them may be in the handshake: for one more, the oldest is given up.
const MAX_HANDSHAKES: usize = 64;
/// The largest message of the handshake that is accepted: its sender may be a stranger.
const MAX_HELLO_BYTES: usize = 16 << 10;
/// How long the name's resolution and TCP's handshake may take.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the WebSocket's handshake and ours may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// The first and the longest pause between two attempts to dial.
const MIN_REDIAL_DELAY: Duration = Duration::from_millis(20);
pub const MAX_REDIAL_DELAY: Duration = Duration::from_millis(500);
/// How often the dialler pings a connection on which nothing else is heard.
const PING_INTERVAL: Duration = Duration::from_millis(200);
/// How often it pings any connection, to measure the round trip.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection on which nothing was heard for this long is given up.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(1);
/// How many changes a slow listener may be behind.
const CHANGES_KEPT: usize = 256;

/// The identity of this node.
#[derive(Clone, Debug)]
pub struct Local {
    pub cluster_id: String,
    pub node_id: NodeId,
    /// Nodes of another incarnation hold another history; they are refused.
    pub incarnation: Incarnation,
    /// The feature level of this process. Peers learn it, and compare it elsewhere.
    pub feature_level: u32,
    /// For how long it stands by a leader. Nodes with another time-out are refused: leases rest on it.
    pub election_timeout_max: Duration,
    /// The formats of frames that it speaks.
    pub formats: RangeInclusive<u8>,
}

/// The links of this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    /// The runtime of all links.
    runtime: Handle,
    supervisor: Supervisor,
    listening: [AbortHandle; 2],
}

/// A request to a peer.
#[derive(Clone, Debug)]
pub struct Request {
    pub channel: Channel,
    pub group: GroupId,
    pub trace: Trace,
    pub lane: Lane,
    pub body: Bytes,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("the node is not a member")]
    UnknownPeer,
    #[error("there is no connection to the node")]
    NotConnected,
    #[error("too much is on its way to the node")]
    Busy,
    #[error("a body of {0} bytes is larger than {MAX_BODY_BYTES}")]
    TooLarge(usize),
    #[error("the connection was lost before the answer came")]
    Disconnected,
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the node answered: {0}")]
    Failed(Failure),
}

impl CallError {
    /// Whether the request may have been served all the same.
    pub fn may_have_been_served(&self) -> bool {
        match self {
            CallError::UnknownPeer | CallError::NotConnected | CallError::Busy | CallError::TooLarge(_) => {
                false
            }
            CallError::Disconnected | CallError::TimedOut(_) => true,
            CallError::Failed(failure) => match failure.code {
                FailureCode::Busy
                | FailureCode::UnknownChannel
                | FailureCode::UnknownGroup
                | FailureCode::Malformed
                | FailureCode::Unavailable => false,
                FailureCode::Stopped | FailureCode::Unanswered => true,
            },
        }
    }
}

/// A link as it is now.
#[derive(Clone, Debug)]
pub struct LinkState {
    pub peer: NodeId,
    /// Whether this node can call the peer.
    pub connected: bool,
    /// The latest round trip on this connection.
    pub rtt: Option<Duration>,
    /// Since anything was heard of the peer, on the connection either has dialled.
    pub silent_for: Option<Duration>,
    /// The phi-accrual suspicion for that silence, by how regularly the peer was heard before: 3 means that it would be
    /// as long by chance once in a thousand times.
    pub phi: f64,
    /// The feature level of the peer's process, as it last said.
    pub feature_level: Option<u32>,
    /// Why there is no connection.
    pub trouble: Option<String>,
    /// The directions in which probes arrive.
    pub reachability: Reachability,
}

/// A connection that this node had dialled came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkChange {
    pub peer: NodeId,
    pub connected: bool,
}

/// The data that the tasks of all connections share.
#[derive(Debug)]
struct Shared {
    local: Local,
    links: RwLock<BTreeMap<NodeId, Dialled>>,
    refusals: Mutex<Refusals>,
    changes: broadcast::Sender<LinkChange>,
    /// Former members: they are refused.
    departed: watch::Sender<Arc<BTreeSet<NodeId>>>,
    /// Whether a peer has said that this node is a former member itself.
    dismissed: watch::Sender<bool>,
    /// The last peer that has said that the cluster was recovered without this node, with its words.
    superseded: watch::Sender<Option<(NodeId, String)>>,
    /// The answer to the last peer that took this node for a member of its own cluster.
    stranger: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Dialled {
    link: Arc<Link>,
    task: AbortHandle,
}

impl Peers {
    /// Starts to listen, on this runtime. No peer is dialled before [`Peers::set_members`].
    pub fn start(
        local: Local,
        listener: TcpListener,
        services: Vec<Arc<dyn Service>>,
        supervisor: &Supervisor,
    ) -> Peers {
        let shared = Arc::new(Shared {
            local,
            links: RwLock::default(),
            refusals: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            departed: watch::Sender::default(),
            dismissed: watch::Sender::default(),
            superseded: watch::Sender::default(),
            stranger: watch::Sender::default(),
        });
        let probes = probe::exchange(listener.local_addr(), Arc::clone(&shared));
        let connections = accept::listen(listener, Arc::clone(&shared), services.into());
        let listening = [
            supervisor.spawn_loop("peer-listener", connections),
            // They end at once where there is no UDP socket.
            supervisor.spawn_job("peer-probes", probes),
        ];
        Peers { shared, runtime: Handle::current(), supervisor: supervisor.clone(), listening }
    }

    /// The identity of this node.
    pub fn local(&self) -> &Local {
        &self.shared.local
    }

    /// Dials new members, ends the links to former ones, and dials members anew whose address has changed. This node
    /// itself is ignored.
    pub fn set_members(&self, members: &[(NodeId, String)]) {
        let mut links = self.shared.links.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *links);
        for (id, addr) in members.iter().filter(|(id, _)| *id != self.shared.local.node_id) {
            let kept = match before.remove(id) {
                Some(dialled) if dialled.link.addr == *addr => dialled,
                former => {
                    if let Some(former) = former {
                        former.end(&self.shared);
                    }
                    self.dial(*id, addr.clone())
                }
            };
            links.insert(*id, kept);
        }
        for gone in before.into_values() {
            gone.end(&self.shared);
        }
    }

    /// Refuses these from now on, and ends what they had begun.
    pub fn set_departed(&self, departed: &BTreeSet<NodeId>) {
        self.shared.departed.send_if_modified(|known| {
            let changed = **known != *departed;
            if changed {
                *known = Arc::new(departed.clone());
            }
            changed
        });
    }

    /// Waits until a peer says that this node is no longer a member.
    pub async fn dismissed(&self) {
        // The sender lives as long as this node's links.
        let _ = self.shared.dismissed.subscribe().wait_for(|dismissed| *dismissed).await;
    }

    /// Waits until a peer says that the cluster was recovered without this node, and says which one and how.
    pub async fn superseded(&self) -> (NodeId, String) {
        let mut superseded = self.shared.superseded.subscribe();
        match superseded.wait_for(Option::is_some).await {
            Ok(found) => found.clone().expect("it was waited for"),
            // The sender lives as long as this node's links.
            Err(_) => std::future::pending().await,
        }
    }

    /// Forgets such an answer: it was wrong, or is given again.
    pub fn forget_superseded(&self) {
        self.shared.superseded.send_replace(None);
    }

    /// Waits until a node of another cluster takes this one for a member of its own, and says which
    /// clusters they are.
    pub async fn dialled_by_strangers(&self) -> String {
        let mut stranger = self.shared.stranger.subscribe();
        match stranger.wait_for(Option::is_some).await {
            Ok(clusters) => clusters.clone().unwrap_or_default(),
            // The sender lives as long as this node's links.
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks `to`, and waits for the answer for at most `limit`.
    ///
    /// The request is queued by the call itself, before the future is first polled: so requests
    /// that are made one after the other arrive in that order. Dropping the future gives up.
    pub fn call(
        &self,
        to: NodeId,
        request: Request,
        limit: Duration,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send + use<> {
        let started = self.link(to).and_then(|link| link.start_call(request));
        async move { timeout(limit, started?).await.unwrap_or(Err(CallError::TimedOut(limit))) }
    }

    /// Sends a request that is not answered. Without room or connection it is dropped.
    pub fn cast(&self, to: NodeId, request: Request) {
        if let Err(error) = self.link(to).and_then(|link| link.cast(request)) {
            tracing::trace!(peer = %to, %error, "a cast was dropped");
        }
    }

    /// Every link, in the order of peers.
    pub fn links(&self) -> Vec<LinkState> {
        self.shared.read_links().values().map(|dialled| dialled.link.state()).collect()
    }

    /// The changes of links from now on.
    pub fn changes(&self) -> broadcast::Receiver<LinkChange> {
        self.shared.changes.subscribe()
    }

    /// Ends every connection, stops listening, and fails what is unanswered.
    pub fn shutdown(&self) {
        self.listening.iter().for_each(AbortHandle::abort);
        self.set_members(&[]);
    }

    fn dial(&self, id: NodeId, addr: String) -> Dialled {
        let link = Arc::new(Link::new(id, addr));
        let running = Arc::clone(&link).run(Arc::clone(&self.shared));
        let task = self.supervisor.spawn_loop_on(&self.runtime, "peer-link", running);
        Dialled { link, task }
    }

    fn link(&self, to: NodeId) -> Result<Arc<Link>, CallError> {
        let links = self.shared.read_links();
        links.get(&to).map(|dialled| Arc::clone(&dialled.link)).ok_or(CallError::UnknownPeer)
    }
}

impl Shared {
    /// A frame came from `peer` on a connection that it had dialled.
    fn heard(&self, peer: NodeId) {
        if let Some(dialled) = self.read_links().get(&peer) {
            dialled.link.heard(clock::now());
        }
    }

    /// A peer that could reach this node can perhaps be reached.
    fn has_connected(&self, peer: NodeId) {
        self.heard(peer);
        if let Some(dialled) = self.read_links().get(&peer) {
            dialled.link.dial_soon();
        }
    }

    fn changed(&self, change: LinkChange) {
        // There may be no listener.
        let _ = self.changes.send(change);
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        lock(&self.refusals)
    }

    fn read_links(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Dialled>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dialled {
    fn end(self, shared: &Shared) {
        self.task.abort();
        self.link.close(shared);
    }
}

fn in_flight_limit(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => MAX_IN_FLIGHT_URGENT,
        Lane::Bulk => MAX_IN_FLIGHT_BULK,
    }
}

/// Nothing here panics halfway through a change, so what a poisoned lock guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
