//! An endpoint as this node's proxy knows it: what is under way, how quick it was, what this node's own
//! checks say, and the connections that wait for the next request.
//!
//! All of it outlives a new routing table, for as long as the endpoint keeps its upstream, id and address.
//! Nothing here takes a lock that a request of another worker holds for longer than to push or pop:
//! each worker has connections of its own.

use super::{
    beats::Beats,
    histogram::Histogram,
    http2::link::Links,
    moment::Moment,
    pick::hash,
    upstream::{ErrorKind, Outcome},
};
use ringmaster_common::traffic::{health::Verdict, warnings::RECENT_S};
use socket2::SockRef;
use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// How many connections wait at one endpoint, for each worker.
const MAX_IDLE: usize = 256;
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;
/// How long a connection waits before it is closed. Many servers close after a minute, some after less.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// How far back latencies reach into their moving average.
const EWMA_WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Endpoint {
    pub id: String,
    pub addr: String,
    literal: Option<SocketAddr>,
    /// What a sticky cookie says of it. Clients learn nothing from it.
    pub token: u64,
    /// What is under way: requests, or connections of plain TCP.
    pub in_flight: AtomicU32,
    /// Answers, by the first digit of their status.
    classes: [AtomicU64; 5],
    /// Requests without one, by [`ErrorKind`].
    errors: [AtomicU64; ErrorKind::ALL.len()],
    pub latency: Histogram,
    pub ewma: PeakEwma,
    /// Failures on end.
    pub failing: AtomicU32,
    /// When an ejection ends, as a [`Moment`].
    pub ejected_until: AtomicU64,
    /// How often it was ejected, less what good conduct made forgotten.
    pub ejections: AtomicU32,
    /// When it began to take requests, as a [`Moment`]; never where that is of no interest.
    pub ready_since: AtomicU64,
    /// When what is under way is cut off, as a [`Moment`].
    cut_at: AtomicU64,
    /// It is in no routing table any more.
    departed: AtomicBool,
    unhealthy: AtomicBool,
    opinion: Mutex<Opinion>,
    pub beats: Beats,
    idle: Box<[Mutex<VecDeque<Idle>>]>,
    /// Connections that requests share, of each worker.
    pub links: Box<[Links]>,
    pub told: Mutex<Told>,
}

/// What this node's own checks say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opinion {
    pub verdict: Verdict,
    pub detail: String,
    /// Who says so.
    checker: u64,
}

/// What was counted when figures were last asked for.
#[derive(Debug, Default)]
pub struct Told {
    pub at: Moment,
    pub requests: u64,
    pub failures: u64,
    /// The same of the times before, the latest last.
    before: VecDeque<(u64, u64)>,
}

impl Told {
    /// Figures are told once a second: takes these in, and gives the requests and failures of the last seconds.
    pub fn turn(&mut self, now: Moment, requests: u64, failures: u64) -> (u64, u64) {
        self.before.push_back((self.requests, self.failures));
        if self.before.len() > RECENT_S {
            self.before.pop_front();
        }
        (self.at, self.requests, self.failures) = (now, requests, failures);
        let (first, failed_first) = self.before.front().copied().unwrap_or_default();
        (requests.saturating_sub(first), failures.saturating_sub(failed_first))
    }
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Moment,
}

impl Endpoint {
    pub fn new(upstream: &str, id: &str, addr: &str, workers: usize) -> Endpoint {
        Endpoint {
            id: id.to_owned(),
            addr: addr.to_owned(),
            literal: addr.parse().ok(),
            token: hash(format!("{upstream}/{id}").as_bytes()),
            in_flight: AtomicU32::new(0),
            classes: Default::default(),
            errors: Default::default(),
            latency: Histogram::default(),
            ewma: PeakEwma::default(),
            failing: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            ready_since: AtomicU64::new(0),
            cut_at: AtomicU64::new(0),
            departed: AtomicBool::new(false),
            unhealthy: AtomicBool::new(false),
            opinion: Mutex::default(),
            beats: Beats::default(),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
            links: (0..workers).map(|_| Links::default()).collect(),
            told: Mutex::default(),
        }
    }

    pub fn count(&self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Answered(status) => &self.classes[usize::from(status / 100).clamp(1, 5) - 1],
            Outcome::Failed(kind) => &self.errors[kind as usize],
        };
        count.fetch_add(1, Relaxed);
    }

    /// Answers, by the first digit of their status, from 1 on.
    pub fn answers(&self) -> [u64; 5] {
        self.classes.each_ref().map(|count| count.load(Relaxed))
    }

    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors[kind as usize].load(Relaxed)
    }

    /// What was sent to it, and was answered or will not be.
    pub fn requests(&self) -> u64 {
        let unanswered = ErrorKind::ALL.into_iter().filter(|kind| *kind != ErrorKind::BrokenOff);
        self.answers().iter().sum::<u64>() + unanswered.map(|kind| self.errors(kind)).sum::<u64>()
    }

    /// Answers of 500 and above or without an end, and requests that got none.
    pub fn failures(&self) -> u64 {
        self.answers()[4] + ErrorKind::ALL.map(|kind| self.errors(kind)).iter().sum::<u64>()
    }

    /// Whether this node's own checks are against it.
    pub fn seems_unhealthy(&self) -> bool {
        self.unhealthy.load(Relaxed)
    }

    pub fn opinion(&self) -> Opinion {
        self.opinion.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever checked it before has nothing to say any more, however late. Returns what the next one gives
    /// as its own.
    pub fn next_checker(&self) -> u64 {
        let mut opinion = self.opinion.lock().unwrap_or_else(PoisonError::into_inner);
        opinion.checker += 1;
        opinion.checker
    }

    /// Says whether the verdict is another than before.
    pub fn set_opinion(&self, checker: u64, verdict: Verdict, detail: String) -> bool {
        let mut opinion = self.opinion.lock().unwrap_or_else(PoisonError::into_inner);
        if opinion.checker != checker {
            return false;
        }
        if opinion.verdict == verdict {
            // What is found may be another thing than before; only minds that change are of interest elsewhere.
            opinion.detail = detail;
            return false;
        }
        if opinion.verdict == Verdict::Unhealthy {
            self.ready_since.store(Moment::now().0, Relaxed);
        }
        *opinion = Opinion { verdict, detail, checker };
        self.unhealthy.store(verdict == Verdict::Unhealthy, Relaxed);
        true
    }

    /// How much longer it is left out for its failures.
    pub fn ejected_for(&self, now: Moment) -> Option<Duration> {
        match self.ejected_until.load(Relaxed) {
            0 => None,
            until => now.until(Moment(until)),
        }
    }

    /// From then on what is under way is cut off; none: it may take its time.
    pub fn cut_at(&self, moment: Option<Moment>) {
        let at = moment.unwrap_or_default().0;
        let known = self.cut_at.load(Relaxed);
        // The earliest holds: a table that says the same again prolongs nothing.
        if at == 0 || known == 0 || at < known {
            self.cut_at.store(at, Relaxed);
        }
    }

    pub fn is_cut(&self, now: Moment) -> bool {
        let at = self.cut_at.load(Relaxed);
        at != 0 && now.0 >= at
    }

    /// A connection that waits, and that the endpoint has not closed meanwhile, as far as is known; or as the
    /// kernel says, where that is worth a system call.
    pub fn take_idle(&self, worker: usize, ask_kernel: bool) -> Option<TcpStream> {
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        // The last one that came in is the likeliest to live.
        while let Some(Idle { stream, .. }) = idle.pop_back() {
            if is_quiet(&stream) && !(ask_kernel && has_news(&stream)) {
                return Some(stream);
            }
        }
        None
    }

    /// Nobody begins anything here any more, and nothing waits for that.
    pub fn depart(&self) {
        self.departed.store(true, Relaxed);
        for idle in &self.idle {
            idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.links.iter().for_each(Links::retire);
    }

    /// Keeps a connection on which nothing is under way.
    pub fn keep_idle(&self, worker: usize, stream: TcpStream) {
        let mut idle = self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE && !self.departed.load(Relaxed) {
            idle.push_back(Idle { stream, since: Moment::now() });
        }
    }

    /// Closes connections that nobody has needed for long, and those that the endpoint closed.
    pub fn close_idle(&self, now: Moment) {
        for idle in &self.idle {
            let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| now.since(kept.since) < MAX_IDLE_TIME && is_quiet(&kept.stream));
        }
        self.links.iter().for_each(|links| links.close_idle(now, MAX_IDLE_TIME));
    }

    /// A name is asked for anew each time, and all addresses behind it are tried in turn.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        if let Some(addr) = self.literal {
            return connect(addr).await;
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in lookup_host(&self.addr).await?.take(MAX_ADDRESSES) {
            match connect(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// An address that nobody serves from is refused, whatever name led there.
async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    if is_forbidden(addr.ip()) {
        let why = "link-local addresses are not served from";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.connect(addr).await
}

/// Something came that was not read yet, or its end.
fn has_news(stream: &TcpStream) -> bool {
    let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Nothing came on it, not even its end. Costs no system call where nothing did.
fn is_quiet(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Clouds tell their machines secrets at such addresses. Nobody shall reach them through this node.
pub fn is_forbidden(ip: IpAddr) -> bool {
    /// Where one cloud keeps its secrets outside the link-local network.
    const METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let v4 = |ip: Ipv4Addr| ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == METADATA;
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => {
                ip.is_unicast_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.segments()[..3] == [0xfd00, 0xec2, 0]
            }
        },
    }
}

/// A moving average of latencies that believes bad news at once and good news slowly. It fades while
/// nothing is heard, so that who was slow once is tried again.
#[derive(Debug, Default)]
pub struct PeakEwma {
    micros: AtomicU64,
    at: AtomicU64,
}

impl PeakEwma {
    pub fn observe(&self, took: Duration, now: Moment) {
        let took = took.as_micros() as f64;
        let (known, faded) = self.read(now);
        let next = if took >= known { took } else { known * faded + took * (1.0 - faded) };
        self.micros.store(next.to_bits(), Relaxed);
        self.at.store(now.0, Relaxed);
    }

    /// In microseconds; 0 where nothing is known.
    pub fn value(&self, now: Moment) -> f64 {
        let (known, faded) = self.read(now);
        known * faded
    }

    fn read(&self, now: Moment) -> (f64, f64) {
        let age = now.since(Moment(self.at.load(Relaxed)));
        let faded = (-age.as_secs_f64() / EWMA_WINDOW.as_secs_f64()).exp();
        (f64::from_bits(self.micros.load(Relaxed)), faded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_news_counts_at_once_and_fades() {
        let (ewma, start) = (PeakEwma::default(), Moment(1_000_000));
        ewma.observe(Duration::from_millis(1), start);
        ewma.observe(Duration::from_millis(80), start);
        assert_eq!(ewma.value(start), 80_000.0);
        ewma.observe(Duration::from_millis(1), start.after(Duration::from_millis(10)));
        assert!(ewma.value(start) > 75_000.0, "one good answer is not enough");
        assert!(ewma.value(start.after(Duration::from_secs(60))) < 1_000.0, "it is tried again");
    }

    #[test]
    fn nobody_reaches_what_a_machine_keeps_to_itself() {
        for addr in [
            "169.254.169.254",
            "100.100.100.200",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "192.0.2.1"] {
            assert!(!is_forbidden(addr.parse().unwrap()), "{addr}");
        }
    }

    #[test]
    fn a_cut_is_not_prolonged() {
        let endpoint = Endpoint::new("u", "e", "127.0.0.1:1", 1);
        endpoint.cut_at(Some(Moment(100)));
        endpoint.cut_at(Some(Moment(200)));
        assert!(!endpoint.is_cut(Moment(99)) && endpoint.is_cut(Moment(100)));
        endpoint.cut_at(None);
        assert!(!endpoint.is_cut(Moment(300)));
    }
}
