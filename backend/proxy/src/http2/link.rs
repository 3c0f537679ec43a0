//! Connections to endpoints that speak HTTP/2. Requests of one worker share them.
//!
//! A connection that fails, that the endpoint says goodbye on, or on which a request waited in vain, gets no
//! further requests; those that are under way end as they may. What the endpoint has not looked at, by its own
//! word, can be sent again whatever it is.

use super::{
    STREAM_WINDOW,
    ends::{Answer, Outgoing},
};
use crate::{
    ask::Ask,
    attempt::Attempt,
    course::Failure,
    head::{Framing, bad},
    moment::Moment,
    relay::Carried,
};
use bytes::Bytes;
use h2::{
    Reason,
    client::{Builder, SendRequest},
};
use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// How many requests share a connection at a time, if the endpoint allows as many.
const MAX_STREAMS: u32 = 100;
/// How many connections each worker has to one endpoint. Once all are full, requests wait on them.
const MAX_LINKS: usize = 16;
/// How much of all answers on a connection may be on its way: a client that is slow holds up no other.
const CONNECTION_WINDOW: u32 = MAX_STREAMS * STREAM_WINDOW;
/// How often another connection is looked for after one that turned out to be dead.
const MAX_DEAD: usize = MAX_LINKS;

/// A worker's connections to one endpoint.
#[derive(Debug, Default)]
pub struct Links {
    open: Mutex<Vec<Arc<Link>>>,
    /// One is opened at a time, so that a crowd of requests shares it.
    opening: tokio::sync::Mutex<()>,
}

struct Link {
    requests: SendRequest<Bytes>,
    streams: AtomicU32,
    /// The [`Moment`] when a request last ended.
    used: AtomicU64,
    /// It gets no more requests.
    retired: Arc<AtomicBool>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// A request's place on a connection.
#[derive(Debug)]
pub struct Seat(Arc<Link>);

impl Seat {
    fn on(link: &Arc<Link>) -> Seat {
        link.streams.fetch_add(1, Relaxed);
        Seat(link.clone())
    }

    /// What waited in vain may have done so because nothing arrives any more.
    pub fn left(&self, carried: &Result<Carried, Failure>) {
        if matches!(carried, Err(Failure::TimedOut(_))) {
            self.0.retired.store(true, Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.used.store(Moment::now().0, Relaxed);
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Links {
    /// The least loaded one; of those that are full only if `full`.
    fn find(&self, full: bool) -> Option<Seat> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|link| !link.retired.load(Relaxed));
        let (streams, link) =
            open.iter().map(|link| (link.streams.load(Relaxed), link)).min_by_key(|(n, _)| *n)?;
        let allowed = u32::try_from(link.requests.current_max_send_streams()).unwrap_or(u32::MAX);
        let fits = streams < allowed.min(MAX_STREAMS);
        (fits || full && open.len() >= MAX_LINKS).then(|| Seat::on(link))
    }

    async fn seat(
        &self,
        attempt: &Attempt<'_>,
        client: SocketAddr,
        here: SocketAddr,
    ) -> Result<Seat, Failure> {
        if let Some(seat) = self.find(false) {
            return Ok(seat);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(seat) = self.find(true) {
            return Ok(seat);
        }
        let link = Arc::new(open_on(attempt.connect(client, here).await?).await?);
        let seat = Seat::on(&link);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        Ok(seat)
    }

    /// None of them gets further requests.
    pub fn retire(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain(..).for_each(|link| link.retired.store(true, Relaxed));
    }

    /// Closes what nobody has needed for so long.
    pub fn close_idle(&self, now: Moment, limit: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|link| {
            let idle = link.streams.load(Relaxed) == 0 && now.since(Moment(link.used.load(Relaxed))) >= limit;
            !idle && !link.retired.load(Relaxed)
        });
    }
}

/// The connection ends once nobody has a hold of its link and nothing is under way on it.
async fn open_on(stream: TcpStream) -> Result<Link, Failure> {
    let handshake = builder().handshake(stream).await;
    let (requests, connection) = handshake.map_err(|error| Failure::Unreached(says(&error)))?;
    let retired = Arc::<AtomicBool>::default();
    let ended = retired.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an endpoint has failed");
        }
        ended.store(true, Relaxed);
    });
    Ok(Link { requests, streams: AtomicU32::new(0), used: AtomicU64::new(Moment::now().0), retired })
}

pub fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(super::MAX_HEADER_LIST)
        .max_send_buffer_size(super::SEND_BUFFER);
    builder
}

/// Sends the head of a request.
pub async fn open(
    attempt: &Attempt<'_>,
    ask: &Ask<'_>,
    worker: usize,
    client: SocketAddr,
    here: SocketAddr,
) -> Result<(Seat, Outgoing, Answer), Failure> {
    let links = &attempt.endpoint().links[worker];
    let limit = Duration::from_millis(attempt.upstream().config.timeouts.connect_ms);
    let onward = ask.onward.as_deref().ok_or_else(|| Failure::Client(bad("it is not for HTTP/2")))?;
    let mut why = String::new();
    for _ in 0..MAX_DEAD {
        let seat = timeout(limit, links.seat(attempt, client, here)).await;
        let seat = seat.unwrap_or_else(|_| {
            Err(Failure::Unreached(format!("no connection within {} ms", limit.as_millis())))
        })?;
        let mut requests = seat.0.requests.clone();
        let sent = match poll_fn(|context| requests.poll_ready(context)).await {
            Ok(()) => requests.send_request(onward.clone(), ask.framing == Framing::Empty),
            Err(error) => Err(error),
        };
        match sent {
            Ok((answer, stream)) => return Ok((seat, Outgoing::new(stream), Answer::new(answer))),
            // Nothing was sent. It was closed while it waited, which says nothing about the endpoint.
            Err(error) => {
                seat.0.retired.store(true, Relaxed);
                why = says(&error);
            }
        }
    }
    Err(Failure::Unreached(why))
}

/// Why there is no answer.
pub fn failure(error: &h2::Error) -> Failure {
    let unseen = error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    match (error.is_remote(), unseen) {
        (true, true) => Failure::Unreached(says(error)),
        (true, false) => Failure::Unanswered(says(error)),
        (false, _) if error.is_io() => Failure::Unanswered(says(error)),
        (false, _) => Failure::Untrusted(bad(says(error))),
    }
}

pub fn says(error: &h2::Error) -> String {
    format!("HTTP/2: {error}")
}
