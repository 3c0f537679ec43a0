//! The only reader of time.
//!
//! [`now`] measures durations and decides; [`wall`] is for people to read and decides nothing.

use ringmaster_common::Timestamp;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in whole milliseconds. One that stands before 1970 is taken to stand at 1970.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::UNIX_EPOCH + since
}
