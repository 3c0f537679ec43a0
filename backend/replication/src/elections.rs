//! The timing of elections.

use std::time::Duration;

/// The timing of elections. It must be alike on all members; a peer with another `timeout_max`, on which
/// leases rest, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elections {
    pub heartbeat: Duration,
    pub timeout_min: Duration,
    pub timeout_max: Duration,
}

impl Default for Elections {
    /// Versions that are to run beside each other in an upgrade need the same defaults.
    fn default() -> Self {
        Elections {
            heartbeat: Duration::from_millis(90),
            timeout_min: Duration::from_millis(190),
            timeout_max: Duration::from_millis(230),
        }
    }
}
