//! Keeps the addresses of endpoints that are configured by name up to date: each name is resolved once a second.
//!
//! Connections to addresses that a name has no longer get no further requests.

use crate::{endpoint::Endpoint, table::Table};
use arc_swap::ArcSwap;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

const INTERVAL: Duration = Duration::from_secs(1);
/// How many lookups run at a time. Further ones wait for the next round.
const MAX_LOOKUPS: usize = 64;

/// Runs until the proxy is gone, which ends the watch.
pub async fn run(table: Arc<ArcSwap<Table>>, alive: watch::Receiver<impl Send + Sync>) {
    let permits = Arc::new(Semaphore::new(MAX_LOOKUPS));
    let mut round = 0usize;
    while alive.has_changed().is_ok() {
        tokio::time::sleep(INTERVAL).await;
        let table = table.load_full();
        let slots = table.upstreams().flat_map(|upstream| &upstream.slots);
        let mut named: Vec<_> = slots.map(|slot| &slot.endpoint).filter(|one| one.pool.is_name()).collect();
        // Names beyond the bound come first in another round.
        let first = (round * MAX_LOOKUPS).checked_rem(named.len()).unwrap_or(0);
        named.rotate_left(first);
        round = round.wrapping_add(1);
        for endpoint in named {
            endpoint.pool.retire_moved();
            if endpoint.pool.is_resolving() {
                continue;
            }
            let Ok(permit) = permits.clone().try_acquire_owned() else { break };
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                resolve(&endpoint).await;
                drop(permit);
            });
        }
    }
}

async fn resolve(endpoint: &Endpoint) {
    match endpoint.pool.resolve().await {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(endpoint = endpoint.id, addr = endpoint.addr, %error, "cannot resolve the name of an endpoint");
        }
    }
}
