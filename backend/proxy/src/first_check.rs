//! New endpoints of an upstream with an active health check receive no request before they have passed their first
//! check. A request for which no other endpoint is left waits for the result of that check.

use crate::{
    coarse_clock::CoarseInstant,
    selection::{Ineligible, SlotSet},
    upstream::Upstream,
};
use ringmaster_net::clock;
use std::time::Duration;
use tokio::time::sleep;

/// How often a waiting request looks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

impl Upstream {
    /// Waits until one of the endpoints that wait for their first check has passed it, but no longer than until each of
    /// them has failed one, nor for longer than a connection may take. Returns whether an endpoint is eligible then.
    pub async fn first_check(&self, tried: &SlotSet) -> bool {
        let why_ineligible = |slot: usize| self.why_ineligible(slot, tried, CoarseInstant::now());
        let waiting: Vec<_> = (0..self.slots.len())
            .filter(|slot| why_ineligible(*slot) == Some(Ineligible::Unchecked))
            .map(|slot| &self.slots[slot].endpoint)
            .collect();
        let deadline = clock::now() + Duration::from_millis(self.config.timeouts.connect_ms);
        while waiting.iter().any(|endpoint| !endpoint.is_checked())
            && !waiting.iter().any(|endpoint| endpoint.is_healthy())
            && clock::now() < deadline
        {
            sleep(POLL_INTERVAL).await;
        }
        // One may have passed before it was looked at.
        (0..self.slots.len()).any(|slot| why_ineligible(slot).is_none())
    }
}
