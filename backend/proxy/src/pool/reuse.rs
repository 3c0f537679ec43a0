//! When a connection to an endpoint gets another request.

use crate::coarse_clock::CoarseInstant;
use ringmaster_common::traffic::upstream::Connections;
use std::time::Duration;

/// How much earlier than an endpoint says that it closes idle connections they are given up: requests take their time to
/// arrive. Half the time if that is less.
const KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// Whether a request may go on a connection that carried others before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    /// It has failed on such a connection.
    Forbidden,
}

pub fn is_idle_for_long(idle_for: Duration, limits: &Connections) -> bool {
    idle_for >= Duration::from_millis(limits.idle_ms)
}

pub fn is_too_old(opened: CoarseInstant, now: CoarseInstant, limits: &Connections) -> bool {
    limits.max_age_ms > 0 && now.since(opened) >= Duration::from_millis(limits.max_age_ms)
}

/// Whether the endpoint is about to close an idle connection that it keeps for `keep_alive`.
pub fn is_closing_soon(idle_for: Duration, keep_alive: Duration) -> bool {
    idle_for >= keep_alive.saturating_sub(KEEP_ALIVE_MARGIN.min(keep_alive / 2))
}
