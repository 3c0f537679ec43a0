//! This node's own health checks: a task for each endpoint that is to be checked.
//!
//! An opinion changes after so many results on end, and whoever follows is told then. An endpoint that comes and goes is
//! damped: the more often it went lately, the longer it has to be well before it is called so. Endpoints cannot
//! lead a check elsewhere: redirects are answers like others, no more than a head is read, and addresses
//! that clouds keep for themselves are refused after the name was resolved.

use super::{
    buffer::Buffer,
    endpoint::Endpoint,
    head::{self, Asked, MAX_INTERIM},
    http2::link,
    moment::Moment,
    proxy_protocol,
    table::Table,
};
use bytes::Bytes;
use hyper::Request;
use ringmaster_common::traffic::{
    health::{HealthCheck, Rhythm, Verdict},
    upstream::{EndpointState, Protocol},
};
use ringmaster_net::clock;
use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// The longest wait before the first check.
const FIRST_WITHIN: Duration = Duration::from_millis(500);
/// How often heartbeats are looked after.
const BEAT_LOOK: Duration = Duration::from_millis(100);

/// Going away within this long after coming back counts as flapping.
const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// How long an endpoint has to be well that has flapped once; it doubles with each time.
const FIRST_HOLD: Duration = Duration::from_millis(500);

/// What endpoints know checks by.
const USER_AGENT: &str = "ringmaster-health-check";

/// The checks that run, by upstream, endpoint and address.
#[derive(Debug, Default)]
pub struct Checks(HashMap<(String, String, String), Running>);

#[derive(Debug)]
struct Running {
    check: HealthCheck,
    to: Target,
    task: AbortHandle,
}

/// What is checked, and how one speaks to it.
#[derive(Clone, Debug)]
struct Target {
    endpoint: Arc<Endpoint>,
    protocol: Protocol,
    /// Connections begin with who the client is.
    proxy_protocol: bool,
}

impl Checks {
    /// Starts what is new, and ends what is gone. `changes` is told of every opinion that changes.
    pub fn follow(&mut self, table: &Table, runtime: &Handle, changes: &watch::Sender<u64>) {
        let mut before = std::mem::take(&mut self.0);
        for upstream in table.upstreams() {
            let Some(check) = &upstream.config.health_check else { continue };
            let checked = upstream.seats.iter().filter(|seat| seat.state != EndpointState::Maintenance);
            for seat in checked {
                let endpoint = &seat.endpoint;
                let key = (upstream.name.clone(), endpoint.id.clone(), endpoint.addr.clone());
                let protocol = upstream.config.protocol;
                let same = |running: &Running| {
                    running.check == *check
                        && running.to.protocol == protocol
                        && running.to.proxy_protocol == upstream.config.send_proxy_protocol
                        && Arc::ptr_eq(&running.to.endpoint, endpoint)
                };
                let running = match before.remove(&key) {
                    Some(running) if same(&running) => running,
                    other => {
                        if let Some(other) = other {
                            other.task.abort();
                        }
                        let to = Target {
                            endpoint: endpoint.clone(),
                            protocol,
                            proxy_protocol: upstream.config.send_proxy_protocol,
                        };
                        let task = run(to.clone(), check.clone(), endpoint.next_checker(), changes.clone());
                        let task = runtime.spawn(task).abort_handle();
                        Running { check: check.clone(), to, task }
                    }
                };
                self.0.insert(key, running);
            }
        }
        for running in before.into_values() {
            running.task.abort();
            let (endpoint, unchecked) = (&running.to.endpoint, "it is not checked".to_owned());
            // A check that is at it right now ends a moment later.
            if endpoint.set_opinion(endpoint.next_checker(), Verdict::Unknown, unchecked) {
                changes.send_modify(|version| *version += 1);
            }
        }
    }
}

/// `checker` is what the endpoint knows this check by.
async fn run(to: Target, check: HealthCheck, checker: u64, changes: watch::Sender<u64>) {
    let endpoint = &to.endpoint;
    let tell = |verdict, detail| {
        if endpoint.set_opinion(checker, verdict, detail) {
            changes.send_modify(|version| *version += 1);
        }
    };
    let rhythm = match (&check, check.rhythm()) {
        (HealthCheck::Heartbeat { ttl_ms }, _) => {
            return heartbeats(endpoint, Duration::from_millis(*ttl_ms), tell).await;
        }
        (_, Some(rhythm)) => rhythm,
        // Every check but that one has a rhythm.
        (_, None) => return,
    };
    let interval = Duration::from_millis(rhythm.interval_ms);
    sleep(interval.min(FIRST_WITHIN).mul_f64(rand::random())).await;
    let mut streak = Streak::default();
    loop {
        let patience = Duration::from_millis(rhythm.timeout_ms);
        let result = match timeout(patience, probe(&to, &check)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} ms", rhythm.timeout_ms)),
        };
        if let Some((verdict, detail)) = streak.count(result, rhythm, clock::now()) {
            tell(verdict, detail);
        }
        sleep(interval.mul_f64(0.9 + 0.2 * rand::random::<f64>())).await;
    }
}

/// Results of one kind on end, and what is remembered of how it came and went before.
#[derive(Debug, Default)]
struct Streak {
    good: bool,
    count: u32,
    since: Option<Instant>,
    /// How often it went away soon after it had come back.
    flaps: u32,
    /// Since when it is called healthy, if it is.
    healthy_since: Option<Instant>,
    /// It is called unhealthy, having been called healthy.
    has_gone: bool,
}

impl Streak {
    /// What follows from one more result: an opinion, once there are enough.
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
        if self.good != good || self.since.is_none() {
            (self.good, self.count, self.since) = (good, 0, Some(now));
        }
        self.count = self.count.saturating_add(1);
        let age = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if !good {
            if self.count < rhythm.fall {
                return None;
            }
            if let Some(since) = self.healthy_since.take() {
                let soon = self.has_gone && age(Some(since)) < FLAP_WINDOW;
                self.flaps = if soon { self.flaps.saturating_add(1) } else { 0 };
                self.has_gone = true;
            }
            return Some((Verdict::Unhealthy, detail));
        }
        let hold = self.hold(rhythm);
        if self.count < rhythm.rise || self.healthy_since.is_none() && age(self.since) < hold {
            return None;
        }
        let detail = match self.flaps {
            0 => detail,
            flaps => format!(
                "{detail}, and is well for {} ms; it had come and gone {} times",
                hold.as_millis(),
                flaps + 1
            ),
        };
        self.healthy_since.get_or_insert(now);
        Some((Verdict::Healthy, detail))
    }

    fn hold(&self, rhythm: Rhythm) -> Duration {
        match self.flaps {
            0 => Duration::ZERO,
            flaps => FIRST_HOLD
                .saturating_mul(1 << (flaps - 1).min(16))
                .min(Duration::from_millis(rhythm.max_hold_ms)),
        }
    }
}

/// What it found, either way.
async fn probe(to: &Target, check: &HealthCheck) -> Result<String, String> {
    let Target { endpoint, protocol, proxy_protocol } = to;
    let mut stream = endpoint.connect().await.map_err(|error| reason(&error))?;
    if *proxy_protocol {
        let header = proxy_protocol::on_own_behalf();
        stream.write_all(&header).await.map_err(|error| reason(&error))?;
    }
    let HealthCheck::Http { path, host, status, .. } = check else {
        return Ok("connected".to_owned());
    };
    let host = host.as_deref().unwrap_or(&endpoint.addr);
    let found = match protocol {
        Protocol::Http2 => ask_http2(stream, host, path).await?,
        Protocol::Http1 | Protocol::Tcp => ask(stream, host, path).await?,
    };
    let fits = match status {
        Some(status) => found == *status,
        None => (200..400).contains(&found),
    };
    let says = format!("answered {found}");
    if fits { Ok(says) } else { Err(says) }
}

async fn ask(mut stream: TcpStream, host: &str, path: &str) -> Result<u16, String> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\naccept: */*\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| reason(&error))?;
    let (mut arrived, mut interim) = (Buffer::default(), 0);
    while !arrived.is_full() {
        match arrived.read_from(&mut stream).await {
            Ok(0) => return Err("closed the connection without an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(reason(&error)),
        }
        let asked = Asked { head: false, upgrade: false };
        while let Some(head) =
            head::response(arrived.filled(), &mut head::room(), asked).map_err(|refusal| refusal.detail)?
        {
            if head.status >= 200 {
                return Ok(head.status);
            }
            let len = head.len;
            arrived.consume(len);
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(head::never_final().detail);
            }
        }
    }
    Err("its head is too large".to_owned())
}

async fn ask_http2(stream: TcpStream, host: &str, path: &str) -> Result<u16, String> {
    let request = Request::get(format!("http://{host}{path}")).header("user-agent", USER_AGENT).body(());
    let request = request.map_err(|error| error.to_string())?;
    let says = |error| link::says(&error);
    let (requests, connection) = link::builder().handshake::<_, Bytes>(stream).await.map_err(says)?;
    let asking = async { requests.ready().await?.send_request(request, true)?.0.await };
    // The connection is at work for as long as the question is, and gone with it.
    tokio::select! {
        answer = asking => answer.map(|answer| answer.status().as_u16()).map_err(says),
        ended = connection => Err(ended.err().map_or_else(|| "closed the connection".to_owned(), says)),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}

async fn heartbeats(endpoint: &Endpoint, ttl: Duration, tell: impl Fn(Verdict, String)) {
    loop {
        match endpoint.beats.lives(ttl, Moment::now()) {
            Some(true) => tell(Verdict::Healthy, "told that it lives".to_owned()),
            Some(false) => tell(Verdict::Unhealthy, format!("no heartbeat for {} ms", ttl.as_millis())),
            None => {}
        }
        sleep(BEAT_LOOK.min(ttl / 4)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opinion_takes_so_many_results_on_end() {
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
    fn who_comes_and_goes_has_to_be_well_for_longer_each_time() {
        let rhythm = Rhythm { interval_ms: 100, timeout_ms: 1, rise: 1, fall: 1, max_hold_ms: 30_000 };
        let (mut streak, mut now) = (Streak::default(), clock::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            let well = loop {
                now += Duration::from_millis(100);
                if let Some((_, detail)) = streak.count(Ok("answered 200".to_owned()), rhythm, now) {
                    break detail;
                }
            };
            waits.push(now.saturating_duration_since(streak.since.unwrap()).as_millis());
            assert_eq!(well.contains("come and gone"), waits.len() > 2, "{well}");
            now += Duration::from_millis(100);
            assert!(
                streak.count(Err("refused".to_owned()), rhythm, now).is_some(),
                "bad news is told at once"
            );
        }
        assert_eq!(waits, [0, 0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
        // Who was well for long begins anew.
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
