//! Deadlines that cost a hot request nothing.
//!
//! To set a timer for each stage of each request, and to take it down again, would cost as much as
//! routing does. So a connection has one timer that is left alone: it goes off now and then, looks what
//! has become due, and goes back to sleep. A clock is read only when something has to be waited for.

use super::moment::Moment;
use ringmaster_net::clock;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::time::{Sleep, sleep_until};

/// How long it may take until a wait notices that it should end early, as when its endpoint is drained.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The timer of one connection.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    wakes_at: Instant,
}

/// By when something has to be done. It starts with the first wait.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    limit: Duration,
    at: Option<Instant>,
}

/// Why a wait ended before what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Its time has passed.
    TimedOut,
    /// It was told to.
    Told,
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
        let wakes_at = clock::now() + LOOK_EVERY;
        Timer { sleep: Box::pin(sleep_until(wakes_at.into())), wakes_at }
    }

    /// Does `work` until it is done, `deadline` has passed, or `told` says so. `told` is asked each time
    /// the timer looks.
    pub async fn within<T>(
        &mut self,
        deadline: &mut Deadline,
        told: impl Fn(Moment) -> bool,
        work: impl Future<Output = T>,
    ) -> Result<T, Late> {
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
                    self.wake_at(now + LOOK_EVERY);
                    return Poll::Ready(Err(Late::TimedOut));
                }
                if told(Moment::of(now)) {
                    self.wake_at(now + LOOK_EVERY);
                    return Poll::Ready(Err(Late::Told));
                }
                self.wake_at(at.min(now + LOOK_EVERY));
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

/// What nobody ends early.
pub fn never_told(_: Moment) -> bool {
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
            let ended = timer.within(&mut Deadline::after(limit), never_told, pending::<()>()).await;
            let took = clock::now() - start;
            assert_eq!(ended, Err(Late::TimedOut));
            assert!(took >= limit && took < limit + Duration::from_secs(5), "{took:?} of {limit:?}");
        }
        assert_eq!(timer.within(&mut Deadline::after(Duration::ZERO), never_told, ready(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn a_deadline_covers_all_waits_together() {
        let (mut timer, start) = (Timer::new(), clock::now());
        let mut deadline = Deadline::after(Duration::from_millis(100));
        let mut waits = 0;
        while timer
            .within(&mut deadline, never_told, tokio::time::sleep(Duration::from_millis(30)))
            .await
            .is_ok()
        {
            waits += 1;
        }
        // Each wait by itself would be in time for ever.
        assert!((1..=3).contains(&waits), "{waits} in {:?}", clock::now() - start);
    }

    #[tokio::test]
    async fn a_wait_ends_when_it_is_told_to() {
        let (mut timer, end) = (Timer::new(), Moment::now().after(Duration::from_millis(100)));
        let long = &mut Deadline::after(Duration::from_secs(60));
        assert_eq!(timer.within(long, |now| now >= end, pending::<()>()).await, Err(Late::Told));
        assert!(Moment::now() < end.after(2 * LOOK_EVERY));
    }
}
