//! Workers: a thread each, with a runtime, listeners and connections of its own.
//!
//! The kernel distributes incoming connections over the workers, because each has a socket at the same address. From
//! then on a request never leaves its thread, and no worker waits for another.

use crate::{
    conn::{self, context::WorkerContext},
    listen::{Listeners, Open},
};
use ringmaster_net::{
    accept::{self, WhenFull},
    supervisor::Supervisor,
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::timeout,
};

/// How many connections of clients a worker serves at the most. Further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 32_768;

#[derive(Debug)]
pub struct Worker {
    context: Arc<WorkerContext>,
    listeners: Arc<Listeners>,
    /// How many connections of clients it serves.
    connections: u32,
    supervisor: Supervisor,
}

/// What the proxy asks of all workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// Grows with each routing table.
    pub tables: u64,
    /// Set once: takes no new requests, and waits this long for those in flight.
    pub close_within: Option<Duration>,
}

impl Worker {
    pub fn new(
        context: Arc<WorkerContext>,
        listeners: Arc<Listeners>,
        connections: usize,
        supervisor: Supervisor,
    ) -> Worker {
        let connections = connections.clamp(1, MAX_CONNECTIONS) as u32;
        Worker { context, listeners, connections, supervisor }
    }

    /// Serves until it is asked to close, and then until all requests have ended or the time is up. `own` is the
    /// address of the node's own listener.
    pub async fn run(self, own: Option<SocketAddr>, mut orders: watch::Receiver<Orders>) {
        let permits = Arc::new(Semaphore::new(self.connections as usize));
        let mut listening: BTreeMap<Option<Arc<str>>, AbortHandle> = BTreeMap::new();
        let within = loop {
            if let Some(within) = orders.borrow_and_update().close_within {
                break within;
            }
            let table = self.context.tables.load_full();
            let named = table.listeners().map(|addr| Some(Arc::from(addr)));
            let wanted: Vec<_> = own.map(|_| None).into_iter().chain(named).collect();
            listening.retain(|listener, task| {
                let stays = wanted.contains(listener);
                if !stays {
                    task.abort();
                }
                stays
            });
            for listener in wanted {
                let addr = match (&listener, own) {
                    (None, Some(own)) => own.to_string(),
                    (Some(named), _) => named.to_string(),
                    (None, None) => continue,
                };
                listening.entry(listener.clone()).or_insert_with(|| {
                    let (listeners, context) = (self.listeners.clone(), self.context.clone());
                    let accepting = accept(listeners, listener, addr, permits.clone(), context);
                    self.supervisor.spawn_loop("proxy-listener", accepting)
                });
            }
            if orders.changed().await.is_err() {
                break Duration::ZERO;
            }
        };
        self.context.close();
        listening.into_values().for_each(|task| task.abort());
        // Connections that are left then end with this runtime.
        let _ = timeout(within, permits.acquire_many(self.connections)).await;
    }
}

async fn accept(
    listeners: Arc<Listeners>,
    listener: Option<Arc<str>>,
    addr: String,
    permits: Arc<Semaphore>,
    context: Arc<WorkerContext>,
) {
    let Open { socket, .. } = &listeners.open(&listener, &addr).await;
    accept::run(socket, permits, WhenFull::Wait, |stream, peer| {
        // Short responses must not wait for more to send.
        let _ = stream.set_nodelay(true);
        conn::serve(stream, peer, listener.clone(), context.clone())
    })
    .await;
}
