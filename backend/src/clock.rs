//! The only reader of time.
//!
//! [`now`] measures durations and decides; [`wall`] is for people to read and decides nothing.

use ringmaster_common::Timestamp;
use std::time::Instant;

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in whole milliseconds: what JSON shows is what is stored.
pub fn wall() -> Timestamp {
    let now = Timestamp::now();
    // A time that was just read is in range; rounding down cannot leave it.
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
