//! The only reader of time.
//!
//! [`now`] measures durations and decides; [`wall`] is for people to read and decides nothing. What is done
//! again and again goes by [`ticks`]: to wake up costs an idle node more than what it does then.

use ringmaster_common::Timestamp;
use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// What all ticks are counted from.
static FIRST_TICK: LazyLock<Instant> = LazyLock::new(now);

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in whole milliseconds. One that stands before 1970 is taken to stand at 1970.
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::UNIX_EPOCH + since
}

/// Ticks every `period`, together with all others whose periods it shares: who wakes together wakes up once.
/// The first comes within a period; those that were missed are left out.
pub fn ticks(period: Duration) -> Interval {
    let first = *FIRST_TICK;
    let passed = now().saturating_duration_since(first).as_nanos() / period.as_nanos() + 1;
    let whole = u32::try_from(passed).map_or(Duration::MAX, |passed| period.saturating_mul(passed));
    let next = first.checked_add(whole).unwrap_or_else(now);
    let mut ticks = interval_at(next.into(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
