//! Shared HTTP/2 connections of one worker to one endpoint.
//!
//! A connection gets no further requests once it failed, the endpoint sent GOAWAY, or a request on it timed out;
//! requests in flight on it may end. A request that the endpoint has not processed, as the endpoint itself says, can be
//! sent again whatever its method.

use crate::{
    coarse_clock::CoarseInstant,
    error::UpstreamError,
    wire::http2::{MAX_STREAMS, Outgoing, Response, client_builder, describe},
};
use bytes::Bytes;
use h2::client::SendRequest;
use hyper::Request;
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

/// How many connections a worker has to one endpoint. Once all are full, requests wait on them.
const MAX_CONNECTIONS: usize = 16;
/// How often another connection is tried after one that turned out to be closed.
const MAX_CLOSED: usize = MAX_CONNECTIONS;

#[derive(Debug, Default)]
pub struct Http2Pool {
    open: Mutex<Vec<Arc<Http2Connection>>>,
    /// One connection is opened at a time, so that a burst of requests shares it.
    opening: tokio::sync::Mutex<()>,
}

struct Http2Connection {
    requests: SendRequest<Bytes>,
    peer: Option<SocketAddr>,
    streams: AtomicU32,
    /// The [`CoarseInstant`] when a request last ended.
    used: AtomicU64,
    /// It gets no more requests.
    retired: Arc<AtomicBool>,
}

impl fmt::Debug for Http2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2Connection").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// The place of one request on a connection.
#[derive(Debug)]
pub struct StreamPermit(Arc<Http2Connection>);

impl StreamPermit {
    fn on(connection: &Arc<Http2Connection>) -> StreamPermit {
        connection.streams.fetch_add(1, Relaxed);
        StreamPermit(connection.clone())
    }

    /// The connection gets no further requests: perhaps nothing arrives on it any more.
    pub fn retire_connection(&self) {
        self.0.retired.store(true, Relaxed);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.used.store(CoarseInstant::now().0, Relaxed);
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Http2Pool {
    /// Sends the head of a request on a connection with room, or on a new one from `connect`.
    pub async fn send<C>(
        &self,
        request: &Request<()>,
        end_of_stream: bool,
        limit: Duration,
        connect: impl Fn() -> C,
    ) -> Result<(StreamPermit, Outgoing, Response), UpstreamError>
    where
        C: Future<Output = Result<TcpStream, UpstreamError>>,
    {
        let mut last = String::new();
        for _ in 0..MAX_CLOSED {
            let permit = timeout(limit, self.permit(&connect)).await.unwrap_or_else(|_| {
                Err(UpstreamError::ConnectFailed(format!("no connection within {} ms", limit.as_millis())))
            })?;
            let mut requests = permit.0.requests.clone();
            let sent = match poll_fn(|context| requests.poll_ready(context)).await {
                Ok(()) => requests.send_request(request.clone(), end_of_stream),
                Err(error) => Err(error),
            };
            match sent {
                Ok((response, stream)) => {
                    return Ok((permit, Outgoing::new(stream), Response::new(response)));
                }
                // Nothing was sent. The connection closed while it was idle, which does not count against the endpoint.
                Err(error) => {
                    permit.retire_connection();
                    last = describe(&error);
                }
            }
        }
        Err(UpstreamError::ConnectFailed(last))
    }

    async fn permit<C>(&self, connect: &impl Fn() -> C) -> Result<StreamPermit, UpstreamError>
    where
        C: Future<Output = Result<TcpStream, UpstreamError>>,
    {
        if let Some(permit) = self.find(false) {
            return Ok(permit);
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(permit) = self.find(true) {
            return Ok(permit);
        }
        let connection = Arc::new(handshake(connect().await?).await?);
        let permit = StreamPermit::on(&connection);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(permit)
    }

    /// The least loaded connection; a full one only if `full` and no further one may be opened.
    fn find(&self, full: bool) -> Option<StreamPermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.retired.load(Relaxed));
        let (streams, connection) = open
            .iter()
            .map(|connection| (connection.streams.load(Relaxed), connection))
            .min_by_key(|(streams, _)| *streams)?;
        let allowed = u32::try_from(connection.requests.current_max_send_streams()).unwrap_or(u32::MAX);
        let fits = streams < allowed.min(MAX_STREAMS);
        (fits || full && open.len() >= MAX_CONNECTIONS).then(|| StreamPermit::on(connection))
    }

    /// No connection gets further requests.
    pub fn retire(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.drain(..).for_each(|connection| connection.retired.store(true, Relaxed));
    }

    /// Connections to an address that does not fit get no further requests.
    pub fn retire_unless(&self, fits: impl Fn(SocketAddr) -> bool) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let misfits = open.iter().filter(|connection| !connection.peer.is_some_and(&fits));
        misfits.for_each(|connection| connection.retired.store(true, Relaxed));
    }

    /// Closes connections without a request for as long as `limit`.
    pub fn close_idle(&self, now: CoarseInstant, limit: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| {
            let idle = connection.streams.load(Relaxed) == 0
                && now.since(CoarseInstant(connection.used.load(Relaxed))) >= limit;
            !idle && !connection.retired.load(Relaxed)
        });
    }
}

/// The connection closes once its last handle is dropped and no request is in flight on it.
async fn handshake(stream: TcpStream) -> Result<Http2Connection, UpstreamError> {
    let peer = stream.peer_addr().ok();
    let handshake = client_builder().handshake(stream).await;
    let (requests, connection) = handshake.map_err(|error| UpstreamError::ConnectFailed(describe(&error)))?;
    let retired = Arc::<AtomicBool>::default();
    let ended = retired.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an HTTP/2 connection to an endpoint failed");
        }
        ended.store(true, Relaxed);
    });
    let used = AtomicU64::new(CoarseInstant::now().0);
    Ok(Http2Connection { requests, peer, streams: AtomicU32::new(0), used, retired })
}
