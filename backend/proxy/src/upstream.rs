//! An upstream as the proxy uses it: its configuration, a slot for each endpoint, and what outlives a new routing table.
//!
//! Data and how it is compiled; which slot a request goes to is decided in [`crate::balance`].

use crate::{coarse_clock::CoarseInstant, decisions::Decisions, endpoint::Endpoint, limits::RetryBudget};
use ringmaster_common::traffic::{
    health::Verdict,
    upstream::{self as traffic, Configured, EndpointState, Upstream as Configuration},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// How long what is in flight at a failed primary may take once it is replaced. Most of it waits for a response that does
/// not come.
const FAILED_PRIMARY_DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    /// Without its endpoints, which have [`Upstream::slots`].
    pub config: Configured<traffic::Endpoint>,
    pub slots: Vec<Slot>,
    /// With active/standby: the slot of the primary, if there is one.
    pub primary: Option<Option<usize>>,
    /// The header `ringmaster-epoch` of each request, with active/standby.
    pub epoch: Option<String>,
    pub stats: Arc<UpstreamStats>,
}

#[derive(Debug)]
pub struct Slot {
    pub endpoint: Arc<Endpoint>,
    pub weight: u32,
    pub state: EndpointState,
    pub verdict: Verdict,
    /// It receives no requests before a check of this node or the cluster's verdict finds it healthy.
    pub awaits_first_check: bool,
}

/// What outlives a routing table.
#[derive(Debug)]
pub struct UpstreamStats {
    /// The next turn of a round robin.
    pub cursor: AtomicUsize,
    /// The current weight of each slot in the smooth weighted round robin of each worker.
    current_weights: Box<[Mutex<Vec<i64>>]>,
    pub retry_budget: RetryBudget,
    pub retries: AtomicU64,
    pub retries_reported: AtomicU64,
    /// Requests for which no endpoint was eligible.
    pub no_endpoint: AtomicU64,
    pub no_endpoint_reported: AtomicU64,
    /// Requests whose client disconnected before the response.
    pub client_disconnects: AtomicU64,
    pub decisions: Decisions,
    /// Held while an endpoint is ejected, so that the bounds on ejections hold.
    pub ejecting: Mutex<()>,
}

impl UpstreamStats {
    fn new(workers: usize) -> UpstreamStats {
        UpstreamStats {
            cursor: AtomicUsize::default(),
            current_weights: (0..workers).map(|_| Mutex::default()).collect(),
            retry_budget: RetryBudget::default(),
            retries: AtomicU64::default(),
            retries_reported: AtomicU64::default(),
            no_endpoint: AtomicU64::default(),
            no_endpoint_reported: AtomicU64::default(),
            client_disconnects: AtomicU64::default(),
            decisions: Decisions::default(),
            ejecting: Mutex::default(),
        }
    }

    /// Of one worker: no other worker waits for it.
    pub fn current_weights(&self, worker: usize) -> MutexGuard<'_, Vec<i64>> {
        self.current_weights[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_weights(&self) {
        (0..self.current_weights.len()).for_each(|worker| self.current_weights(worker).clear());
    }
}

impl Upstream {
    pub fn compile(from: &Configuration, previous: Option<&Upstream>, workers: usize) -> Upstream {
        let known: BTreeMap<_, _> = previous
            .iter()
            .flat_map(|upstream| &upstream.slots)
            .map(|slot| ((slot.endpoint.id.as_str(), slot.endpoint.addr.as_str()), slot))
            .collect();
        let now = CoarseInstant::now();
        let is_standby = |endpoint: &traffic::Endpoint| {
            from.config.active_standby.is_some()
                && from.primary.as_ref().and_then(|primary| primary.endpoint.as_ref()) != Some(&endpoint.id)
        };
        let slots: Vec<_> = from
            .config
            .endpoints
            .iter()
            .map(|configured| {
                let before = known.get(&(configured.id.as_str(), configured.addr.as_str()));
                let endpoint = match before {
                    Some(slot) => slot.endpoint.clone(),
                    None => Arc::new(Endpoint::new(&from.name, &configured.id, &configured.addr, workers)),
                };
                let awaits_first_check = from.awaits_first_check(configured);
                let is_open = configured.state == EndpointState::Ready
                    && configured.health.verdict != Verdict::Unhealthy
                    && !awaits_first_check;
                let was_open = before.is_some_and(|slot| {
                    slot.state == EndpointState::Ready
                        && slot.verdict != Verdict::Unhealthy
                        && !slot.awaits_first_check
                });
                // The endpoints of the first table need no slow start: others to compare with do not exist. A new endpoint
                // may pass a check of this node before the cluster has a verdict.
                if previous.is_some() && (is_open && !was_open || before.is_none()) {
                    endpoint.ready_since.store(now.0, Relaxed);
                }
                let is_ready = configured.state == EndpointState::Ready;
                let may_finish = is_ready && !is_standby(configured);
                let mut drain = Duration::from_millis(from.config.drain_ms);
                if is_ready && configured.health.verdict == Verdict::Unhealthy {
                    drain = drain.min(FAILED_PRIMARY_DRAIN);
                }
                let deadline = now.after(drain);
                endpoint.set_drain_deadline((!may_finish).then_some(deadline));
                Slot {
                    endpoint,
                    weight: configured.weight,
                    state: configured.state,
                    verdict: configured.health.verdict,
                    awaits_first_check,
                }
            })
            .collect();
        let stats =
            previous.map_or_else(|| Arc::new(UpstreamStats::new(workers)), |upstream| upstream.stats.clone());
        let ids = |slots: &[Slot]| slots.iter().map(|slot| slot.endpoint.token).collect::<Vec<_>>();
        if previous.is_some_and(|previous| ids(&previous.slots) != ids(&slots)) {
            stats.forget_weights();
        }
        let primary = from.config.active_standby.as_ref().map(|_| {
            let id = from.primary.as_ref()?.endpoint.as_ref()?;
            slots.iter().position(|slot| slot.endpoint.id == *id)
        });
        let epoch = from
            .config
            .active_standby
            .as_ref()
            .and(from.primary.as_ref())
            .map(|primary| primary.epoch.to_string());
        let config = from.config.clone().with_endpoints(Vec::new());
        Upstream { name: from.name.clone(), config, slots, primary, epoch, stats }
    }

    pub fn endpoint(&self, slot: usize) -> &Endpoint {
        &self.slots[slot].endpoint
    }

    /// All requests that ended at an endpoint.
    pub fn requests(&self) -> u64 {
        self.slots.iter().map(|slot| slot.endpoint.requests()).sum()
    }
}

#[cfg(test)]
pub mod tests;
