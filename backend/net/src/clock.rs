//! The only reader of time.
//!
//! [`now`] measures durations, and decisions rest on it; [`wall`] is for people to read, and no decision rests on it.
//! Periodic work uses [`ticks`]: on an idle node, waking up costs more than the work itself.

use ringmaster_common::Timestamp;
use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// All ticks are counted from here.
static FIRST_TICK: LazyLock<Instant> = LazyLock::new(now);

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "this is the only reader of the monotonic clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in whole milliseconds. A clock set before 1970 is read as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the only reader of the wall clock")]
pub fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::UNIX_EPOCH + since
}

/// Ticks every `period`, at the same moments as all other tickers of that period, so that the process wakes up once
/// for all of them. The first tick comes within a period; missed ticks are skipped.
pub fn ticks(period: Duration) -> Interval {
    let first = *FIRST_TICK;
    let passed = now().saturating_duration_since(first).as_nanos() / period.as_nanos() + 1;
    let whole = u32::try_from(passed).map_or(Duration::MAX, |passed| period.saturating_mul(passed));
    let next = first.checked_add(whole).unwrap_or_else(now);
    let mut ticks = interval_at(next.into(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tickers_of_one_period_tick_together_whenever_they_begin() {
        let (first, unit) = (*FIRST_TICK, Duration::from_millis(20));
        for periods in [1, 2, 3] {
            let period = periods * unit;
            tokio::time::sleep(Duration::from_millis(7)).await;
            let asked = now();
            let mut ticks = ticks(period);
            for nth in 1..=3 {
                let tick = ticks.tick().await.into_std();
                let off = tick.duration_since(first).as_nanos() % period.as_nanos();
                assert_eq!(off, 0, "tick {nth} of every {period:?}");
                assert!(nth > 1 || tick <= asked + period, "the first comes within a period");
            }
        }
    }

    #[tokio::test]
    async fn missed_ticks_are_skipped() {
        let period = Duration::from_millis(10);
        let mut ticks = ticks(period);
        let first = ticks.tick().await;
        tokio::time::sleep(10 * period).await;
        let late = ticks.tick().await;
        let next = ticks.tick().await;
        assert!(late < now().into(), "one of the missed ticks comes at once");
        assert!(next > first + 9 * period, "the others never come");
    }
}
