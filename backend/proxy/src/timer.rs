//! Deadlines that cost a hot request nothing.
//!
//! A timer for each stage of each request would cost as much as routing. So a connection has one timer that is left
//! alone: it fires now and then, checks what has become due, and sleeps again. The clock is read only when there is
//! something to wait for.

use crate::coarse_clock::CoarseInstant;
use ringmaster_net::clock;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::time::{Sleep, sleep_until};

/// How long it takes at the most until a wait notices that it is cancelled, as when its endpoint is drained.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The timer of one connection.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    wakes_at: Instant,
}

/// A time limit that starts with the first wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    at: Option<Instant>,
}

/// Why a wait ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    TimedOut,
    Cancelled,
}

impl Deadline {
    pub fn after(limit: Duration) -> Deadline {
        Deadline { limit, at: None }
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl Timer {
    pub fn new() -> Timer {
        let wakes_at = clock::now() + CHECK_INTERVAL;
        Timer { sleep: Box::pin(sleep_until(wakes_at.into())), wakes_at }
    }

    /// Does `work` until it is done, `deadline` has passed, or it is cancelled. `cancelled` is called each time that the
    /// timer fires.
    pub async fn within<T>(
        &mut self,
        deadline: &mut Deadline,
        cancelled: impl Fn(CoarseInstant) -> bool,
        work: impl Future<Output = T>,
    ) -> Result<T, WaitError> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            let at = match deadline.at {
                Some(at) => at,
                None => *deadline.at.insert(clock::now() + deadline.limit),
            };
            if at < self.wakes_at {
                self.wake_at(at);
            }
            while self.sleep.as_mut().poll(context).is_ready() {
                let now = clock::now();
                if now >= at {
                    self.wake_at(now + CHECK_INTERVAL);
                    return Poll::Ready(Err(WaitError::TimedOut));
                }
                if cancelled(CoarseInstant::of(now)) {
                    self.wake_at(now + CHECK_INTERVAL);
                    return Poll::Ready(Err(WaitError::Cancelled));
                }
                self.wake_at(at.min(now + CHECK_INTERVAL));
            }
            Poll::Pending
        })
        .await
    }

    fn wake_at(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at.into());
        self.wakes_at = at;
    }
}

/// Does `work`; returns none if `other` ends first.
pub async fn unless<T>(other: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    let (mut other, mut work) = (pin!(other), pin!(work));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => other.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// For waits that are never cancelled.
pub fn never(_: CoarseInstant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_and_not_before() {
        let mut timer = Timer::new();
        for limit in [600, 20, 300] {
            let limit = Duration::from_millis(limit);
            let start = clock::now();
            let ended = timer.within(&mut Deadline::after(limit), never, pending::<()>()).await;
            let took = clock::now() - start;
            assert_eq!(ended, Err(WaitError::TimedOut));
            assert!(took >= limit && took < limit + Duration::from_secs(5), "{took:?} of {limit:?}");
        }
        assert_eq!(timer.within(&mut Deadline::after(Duration::ZERO), never, ready(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn a_deadline_covers_all_waits_together() {
        let (mut timer, start) = (Timer::new(), clock::now());
        let mut deadline = Deadline::after(Duration::from_millis(100));
        let mut waits = 0;
        while timer.within(&mut deadline, never, tokio::time::sleep(Duration::from_millis(30))).await.is_ok()
        {
            waits += 1;
        }
        // Each wait alone would never time out.
        assert!((1..=3).contains(&waits), "{waits} in {:?}", clock::now() - start);
    }

    #[tokio::test]
    async fn a_wait_ends_when_it_is_cancelled() {
        let (mut timer, end) = (Timer::new(), CoarseInstant::now().after(Duration::from_millis(100)));
        let long = &mut Deadline::after(Duration::from_secs(60));
        assert_eq!(timer.within(long, |now| now >= end, pending::<()>()).await, Err(WaitError::Cancelled));
        assert!(CoarseInstant::now() < end.after(2 * CHECK_INTERVAL));
    }
}
