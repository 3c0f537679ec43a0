//! This node's own health checks: a task for each endpoint that is checked.
//!
//! An opinion changes after a number of consecutive results, and is published then. The first check of a new endpoint
//! comes at once, and to pass it is enough. Flapping is damped: the more often an endpoint failed lately, the longer it
//! must pass before it is called healthy.

mod grpc;
mod probe;

use crate::{coarse_clock::CoarseInstant, endpoint::Endpoint, table::Table};
use arc_swap::ArcSwap;
use probe::{Target, probe};
use ringmaster_common::traffic::{
    health::{EndpointOpinion, HealthCheck, Rhythm, Verdict},
    upstream::EndpointState,
};
use ringmaster_net::{clock, flap_damper::FlapDamper, supervisor::Supervisor};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// The longest wait before the first check of an endpoint that is not new.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// How often the age of heartbeats is checked.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// The checks that run, by upstream, endpoint and address.
#[derive(Debug, Default)]
pub struct Checks(HashMap<(String, String, String), Running>);

#[derive(Debug)]
struct Running {
    check: HealthCheck,
    target: Target,
    task: AbortHandle,
}

impl Checks {
    /// Starts new checks and stops removed ones. `changes` grows with every opinion that changes.
    pub fn follow(
        &mut self,
        table: &Table,
        supervisor: &Supervisor,
        runtime: &Handle,
        changes: &watch::Sender<u64>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for upstream in table.upstreams() {
            let Some(check) = &upstream.config.health_check else { continue };
            let checked = upstream.slots.iter().filter(|slot| slot.state != EndpointState::Maintenance);
            for slot in checked {
                let endpoint = &slot.endpoint;
                let key = (upstream.name.clone(), endpoint.id.clone(), endpoint.addr.clone());
                let protocol = upstream.config.protocol;
                let same = |running: &Running| {
                    running.check == *check
                        && running.target.protocol == protocol
                        && running.target.proxy_protocol == upstream.config.send_proxy_protocol
                        && Arc::ptr_eq(&running.target.endpoint, endpoint)
                };
                let running = match before.remove(&key) {
                    Some(running) if same(&running) => running,
                    other => {
                        if let Some(other) = other {
                            other.task.abort();
                        }
                        let target = Target {
                            endpoint: endpoint.clone(),
                            protocol,
                            proxy_protocol: upstream.config.send_proxy_protocol,
                        };
                        let checker =
                            Checker { id: endpoint.next_checker(), is_new: slot.awaits_first_check };
                        let task = run(target.clone(), check.clone(), checker, changes.clone());
                        let task = supervisor.spawn_loop_on(runtime, "health-check", task);
                        Running { check: check.clone(), target, task }
                    }
                };
                self.0.insert(key, running);
            }
        }
        for running in before.into_values() {
            running.task.abort();
            let (endpoint, unchecked) = (&running.target.endpoint, "not checked".to_owned());
            // The check may be running right now: from now on its result is ignored.
            if endpoint.set_opinion(endpoint.next_checker(), Verdict::Unknown, unchecked) {
                changes.send_modify(|version| *version += 1);
            }
        }
    }
}

/// One check of one endpoint, from its beginning on.
struct Checker {
    id: u64,
    /// The endpoint receives no requests before it has passed.
    is_new: bool,
}

async fn run(target: Target, check: HealthCheck, checker: Checker, changes: watch::Sender<u64>) {
    let endpoint = &target.endpoint;
    let publish = |verdict, detail| {
        if endpoint.set_opinion(checker.id, verdict, detail) {
            changes.send_modify(|version| *version += 1);
        }
    };
    let rhythm = match (&check, check.rhythm()) {
        (HealthCheck::Heartbeat { ttl_ms }, _) => {
            return heartbeats(endpoint, Duration::from_millis(*ttl_ms), publish).await;
        }
        (_, Some(rhythm)) => rhythm,
        // All other checks have a rhythm.
        (_, None) => return,
    };
    let interval = Duration::from_millis(rhythm.interval_ms);
    if !checker.is_new {
        sleep(interval.min(FIRST_WITHIN).mul_f64(rand::random())).await;
    }
    let mut streak = Streak { is_new: checker.is_new, ..Streak::default() };
    loop {
        let limit = Duration::from_millis(rhythm.timeout_ms);
        // Its memory is needed while the check is made: there is a task for each endpoint, and most of them sleep.
        let probing = Box::pin(probe(&target, &check, limit));
        let result = match timeout(limit, probing).await {
            Ok(result) => result,
            Err(_) => Err(format!("no response within {} ms", rhythm.timeout_ms)),
        };
        if let Some((verdict, detail)) = streak.count(result, rhythm, clock::now()) {
            publish(verdict, detail);
        }
        endpoint.set_checked(checker.id);
        sleep(interval.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
    }
}

/// Consecutive results of one kind, and how often the endpoint flapped.
#[derive(Debug, Default)]
struct Streak {
    /// The endpoint has no verdict yet, and its first success counts.
    is_new: bool,
    good: bool,
    count: u32,
    /// Its verdict is healthy.
    is_healthy: bool,
    /// Its verdict was healthy and became unhealthy, at least once.
    has_failed: bool,
    damper: FlapDamper,
}

impl Streak {
    /// Takes in one more result. Returns an opinion once there are enough.
    fn count(
        &mut self,
        result: Result<String, String>,
        rhythm: Rhythm,
        now: Instant,
    ) -> Option<(Verdict, String)> {
        let (good, detail) = match result {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        if self.good != good {
            (self.good, self.count) = (good, 0);
        }
        self.count = self.count.saturating_add(1);
        if !good {
            self.damper.looks_failed();
            if self.count < rhythm.fall {
                return None;
            }
            self.is_new = false;
            if std::mem::take(&mut self.is_healthy) {
                self.damper.failed(now);
                self.has_failed = true;
            }
            return Some((Verdict::Unhealthy, detail));
        }
        let max_hold = Duration::from_millis(rhythm.max_hold_ms);
        let is_steady = self.is_healthy || self.damper.looks_healthy(now, max_hold);
        let rise = if std::mem::take(&mut self.is_new) { 1 } else { rhythm.rise };
        if self.count < rise || !is_steady {
            return None;
        }
        let detail = match self.damper.flaps() {
            0 => detail,
            flaps => {
                let hold = self.damper.hold(max_hold).as_millis();
                format!("{detail}, for {hold} ms; it had flapped {flaps} times")
            }
        };
        if !self.is_healthy && self.has_failed {
            self.damper.recovered(now);
        }
        self.is_healthy = true;
        Some((Verdict::Healthy, detail))
    }
}

async fn heartbeats(endpoint: &Endpoint, ttl: Duration, publish: impl Fn(Verdict, String)) {
    loop {
        match endpoint.last_heartbeat.is_alive(ttl, CoarseInstant::now()) {
            Some(true) => publish(Verdict::Healthy, "heartbeat received".to_owned()),
            Some(false) => publish(Verdict::Unhealthy, format!("no heartbeat for {} ms", ttl.as_millis())),
            None => {}
        }
        sleep(HEARTBEAT_INTERVAL.min(ttl / 4)).await;
    }
}

/// Publishes all opinions when one of them changes.
pub async fn publish(
    mut changes: watch::Receiver<u64>,
    opinions: watch::Sender<Arc<[EndpointOpinion]>>,
    table: Arc<ArcSwap<Table>>,
) {
    while changes.changed().await.is_ok() {
        let table = table.load_full();
        let checked = table.upstreams().filter(|upstream| upstream.config.health_check.is_some());
        let all = checked.flat_map(|upstream| {
            upstream.slots.iter().filter_map(|slot| opinion_of(&upstream.name, &slot.endpoint))
        });
        let all: Vec<_> = all.collect();
        opinions.send_if_modified(|known| {
            let is_new = **known != *all;
            if is_new {
                *known = all.into();
            }
            is_new
        });
    }
}

fn opinion_of(upstream: &str, endpoint: &Endpoint) -> Option<EndpointOpinion> {
    let opinion = endpoint.opinion();
    (opinion.verdict != Verdict::Unknown).then(|| EndpointOpinion {
        upstream: upstream.to_owned(),
        endpoint: endpoint.id.clone(),
        addr: endpoint.addr.clone(),
        verdict: opinion.verdict,
        detail: opinion.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::traffic::upstream::Protocol;
    use ringmaster_net::flap_damper::FLAP_WINDOW;

    #[test]
    fn a_check_that_sleeps_takes_little_memory() {
        let endpoint = Arc::new(Endpoint::new("u", "e", "127.0.0.1:9", 1));
        let target = Target { endpoint, protocol: Protocol::Http2, proxy_protocol: false };
        let check: HealthCheck = serde_json::from_str(r#"{"type": "grpc"}"#).unwrap();
        let task = run(target, check, Checker { id: 1, is_new: true }, watch::channel(0).0);
        assert!(size_of_val(&task) < 2 << 10, "{} bytes", size_of_val(&task));
    }

    #[test]
    fn an_opinion_takes_a_number_of_consecutive_results() {
        let rhythm = Rhythm { interval_ms: 1, timeout_ms: 1, rise: 2, fall: 3, max_hold_ms: 0 };
        let mut streak = Streak::default();
        let mut verdict = Verdict::Unknown;
        let mut count = |good: bool| {
            let result = if good { Ok(String::new()) } else { Err(String::new()) };
            if let Some((changed, _)) = streak.count(result, rhythm, clock::now()) {
                verdict = changed;
            }
            verdict
        };
        let verdicts: Vec<_> =
            [true, true, false, false, true, false, false, false, true, true].map(&mut count).into();
        use Verdict::{Healthy as H, Unhealthy as U, Unknown};
        assert_eq!(verdicts, [Unknown, H, H, H, H, H, H, U, U, H]);
    }

    #[test]
    fn the_first_success_of_a_new_endpoint_is_enough_until_it_has_failed() {
        let rhythm = Rhythm { interval_ms: 1, timeout_ms: 1, rise: 3, fall: 2, max_hold_ms: 0 };
        let run = |results: &[bool]| {
            let mut streak = Streak { is_new: true, ..Streak::default() };
            let count = |good: &bool| {
                let result = if *good { Ok(String::new()) } else { Err(String::new()) };
                streak.count(result, rhythm, clock::now()).map(|(verdict, _)| verdict)
            };
            results.iter().map(count).collect::<Vec<_>>()
        };
        let (healthy, unhealthy) = (Some(Verdict::Healthy), Some(Verdict::Unhealthy));
        assert_eq!(run(&[true]), [healthy]);
        assert_eq!(run(&[false, true]), [None, healthy]);
        assert_eq!(run(&[false, false, true, true, true]), [None, unhealthy, None, None, healthy]);
    }

    #[test]
    fn an_endpoint_that_flaps_must_pass_for_longer_each_time() {
        let rhythm = Rhythm { interval_ms: 100, timeout_ms: 1, rise: 1, fall: 1, max_hold_ms: 30_000 };
        let (mut streak, mut now) = (Streak::default(), clock::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            let first_good = now + Duration::from_millis(100);
            let well = loop {
                now += Duration::from_millis(100);
                if let Some((_, detail)) = streak.count(Ok("status 200".to_owned()), rhythm, now) {
                    break detail;
                }
            };
            waits.push(now.saturating_duration_since(first_good).as_millis());
            assert_eq!(well.contains("flapped"), waits.len() > 2, "{well}");
            now += Duration::from_millis(100);
            assert!(
                streak.count(Err("refused".to_owned()), rhythm, now).is_some(),
                "a failure counts at once"
            );
        }
        assert_eq!(waits, [0, 0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
        // A long time without failures resets the count.
        let longest = Duration::from_secs(30);
        now += longest;
        streak.count(Ok(String::new()), rhythm, now);
        now += longest;
        assert!(streak.count(Ok(String::new()), rhythm, now).is_some());
        now += FLAP_WINDOW;
        streak.count(Err(String::new()), rhythm, now);
        assert!(streak.count(Ok(String::new()), rhythm, now).is_some());
    }
}
