//! Workers: a thread each, with a runtime, listeners and connections of its own.
//!
//! The kernel deals incoming connections out among the workers, because each has a socket at the same address.
//! From then on nothing of a request leaves its thread, and no worker waits for another.

use super::{
    answer::Refusals,
    http1::Visit,
    listen::{Listeners, Open},
    proxy_protocol,
    table::Table,
    tcp,
};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

/// How many connections of clients a worker serves at the most. Further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 32_768;
/// How long to wait before accepting again after an error, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a worker's connections share.
#[derive(Debug)]
pub struct Worker {
    pub index: usize,
    pub table: Arc<ArcSwap<Table>>,
    listeners: Arc<Listeners>,
    /// How many connections of clients it serves.
    connections: u32,
    pub refusals: Arc<Refusals>,
    closing: AtomicBool,
}

/// What all workers are told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// Grows with each routing table.
    pub tables: u64,
    /// How long what is under way may go on, once nothing new is taken.
    pub close_within: Option<Duration>,
}

impl Worker {
    pub fn new(
        index: usize,
        connections: usize,
        (table, listeners, refusals): (Arc<ArcSwap<Table>>, Arc<Listeners>, Arc<Refusals>),
    ) -> Arc<Worker> {
        let connections = connections.clamp(1, MAX_CONNECTIONS) as u32;
        Arc::new(Worker { index, table, listeners, connections, refusals, closing: AtomicBool::new(false) })
    }

    /// Whether it takes no more requests.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Serves until it is told to close, and then until all has ended or its time is up.
    pub async fn run(self: Arc<Self>, usual: Option<SocketAddr>, mut orders: watch::Receiver<Orders>) {
        let permits = Arc::new(Semaphore::new(self.connections as usize));
        let mut listening: BTreeMap<Option<Arc<str>>, AbortHandle> = BTreeMap::new();
        let within = loop {
            if let Some(within) = orders.borrow_and_update().close_within {
                break within;
            }
            let table = self.table.load_full();
            let named = table.listeners().map(|addr| Some(Arc::from(addr)));
            let wanted: Vec<_> = usual.map(|_| None).into_iter().chain(named).collect();
            listening.retain(|listener, task| {
                let stays = wanted.contains(listener);
                if !stays {
                    task.abort();
                }
                stays
            });
            for listener in wanted {
                let addr = match (&listener, usual) {
                    (None, Some(usual)) => usual.to_string(),
                    (Some(named), _) => named.to_string(),
                    (None, None) => continue,
                };
                listening.entry(listener.clone()).or_insert_with(|| {
                    let accept = self.clone().accept(listener, addr, permits.clone());
                    tokio::spawn(accept).abort_handle()
                });
            }
            if orders.changed().await.is_err() {
                break Duration::ZERO;
            }
        };
        self.closing.store(true, Relaxed);
        listening.into_values().for_each(|task| task.abort());
        // Who is still under way afterwards ends with this runtime.
        let _ = timeout(within, permits.acquire_many(self.connections)).await;
    }

    async fn accept(self: Arc<Self>, listener: Option<Arc<str>>, addr: String, permits: Arc<Semaphore>) {
        let Open { socket, .. } = &self.listeners.open(&listener, &addr).await;
        loop {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match socket.accept().await {
                Ok((stream, peer)) => {
                    // Small answers must not wait for more to send.
                    let _ = stream.set_nodelay(true);
                    let (listener, worker) = (listener.clone(), self.clone());
                    tokio::spawn(async move {
                        let _permit = permit;
                        worker.serve(stream, peer, listener).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Worker {
    async fn serve(self: Arc<Self>, mut stream: TcpStream, mut peer: SocketAddr, listener: Option<Arc<str>>) {
        // One that listens for both kinds of addresses sees one kind inside the other.
        peer.set_ip(peer.ip().to_canonical());
        let mut tcp = None;
        if listener.is_some() {
            let table = self.table.load_full();
            let Some(site) = table.site(listener.as_deref()) else { return };
            tcp.clone_from(&site.tcp);
            if site.proxy_protocol {
                match proxy_protocol::read(&mut stream).await {
                    Ok(client) => peer = client.unwrap_or(peer),
                    Err(error) => {
                        return tracing::debug!(%peer, %error, "a connection does not begin with the PROXY protocol");
                    }
                }
            }
        }
        match tcp {
            Some(route) => tcp::serve(stream, peer, &route, &self.table).await,
            None => Visit::new(stream, peer, listener, self).serve().await,
        }
    }
}
