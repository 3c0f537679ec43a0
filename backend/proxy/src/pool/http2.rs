//! Shared HTTP/2 connections of one worker to one endpoint.
//!
//! A connection gets no further requests once it failed, the endpoint sent GOAWAY, a request on it timed out, or many were
//! cancelled on it: servers end a connection on which too many streams are reset, and with it the requests of others;
//! requests in flight on it may end. A request that the endpoint has not processed, as the endpoint itself says, can be
//! sent again whatever its method. It then goes first on a connection of its own, where nothing can come before it.

use crate::{
    coarse_clock::CoarseInstant,
    error::UpstreamError,
    outcome::ResponseEnd,
    pool::reuse::{Reuse, is_idle_for_long, is_too_old},
    wire::http2::{MAX_STREAMS, Outgoing, Response, client_builder, describe},
};
use bytes::Bytes;
use h2::client::SendRequest;
use hyper::Request;
use ringmaster_common::traffic::upstream::Connections;
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
/// How many requests may be cancelled on a connection.
const MAX_CANCELLED: u32 = 50;
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
    cancelled: AtomicU32,
    opened: CoarseInstant,
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

impl Http2Connection {
    fn is_within(&self, now: CoarseInstant, limits: &Connections) -> bool {
        let is_idle = self.streams.load(Relaxed) == 0;
        let idle_for = now.since(CoarseInstant(self.used.load(Relaxed)));
        let is_idle_for_long = is_idle && is_idle_for_long(idle_for, limits);
        !is_idle_for_long && !is_too_old(self.opened, now, limits)
    }
}

/// The place of one request on a connection.
#[derive(Debug)]
pub struct StreamPermit {
    connection: Arc<Http2Connection>,
    /// The request is not cancelled when the permit is dropped.
    is_complete: bool,
}

impl StreamPermit {
    fn on(connection: &Arc<Http2Connection>) -> StreamPermit {
        connection.streams.fetch_add(1, Relaxed);
        StreamPermit { connection: connection.clone(), is_complete: false }
    }

    /// To be called unless the request is cancelled.
    pub fn end(&mut self, end: Result<ResponseEnd, &UpstreamError>) {
        self.is_complete = matches!(end, Ok(ResponseEnd::Complete));
        // Perhaps nothing arrives on the connection any more.
        if matches!(end, Err(UpstreamError::Timeout(_))) {
            self.retire_connection();
        }
    }

    /// The connection gets no further requests.
    fn retire_connection(&self) {
        self.connection.retired.store(true, Relaxed);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let Http2Connection { used, streams, cancelled, .. } = &*self.connection;
        used.store(CoarseInstant::now().0, Relaxed);
        streams.fetch_sub(1, Relaxed);
        if !self.is_complete && cancelled.fetch_add(1, Relaxed) + 1 >= MAX_CANCELLED {
            self.retire_connection();
        }
    }
}

impl Http2Pool {
    /// Sends the head of a request on a connection with room, or on a new one from `connect`. `may_repeat`: the endpoint may
    /// see it twice.
    pub async fn send<C>(
        &self,
        request: &Request<()>,
        end_of_stream: bool,
        may_repeat: bool,
        limits: SendLimits<'_>,
        connect: impl Fn() -> C,
    ) -> Result<(StreamPermit, Outgoing, Response), UpstreamError>
    where
        C: Future<Output = Result<TcpStream, UpstreamError>>,
    {
        let SendLimits { connect: limit, reuse, .. } = limits;
        let mut last = String::new();
        for _ in 0..MAX_CLOSED {
            let permit = async {
                match reuse {
                    Reuse::Allowed => self.permit(limits, &connect).await,
                    Reuse::Forbidden => self.new_permit(&connect).await,
                }
            };
            let (permit, is_used) = timeout(limit, permit).await.unwrap_or_else(|_| {
                Err(UpstreamError::ConnectFailed(format!("no connection within {} ms", limit.as_millis())))
            })?;
            let mut requests = permit.connection.requests.clone();
            let sent = match poll_fn(|context| requests.poll_ready(context)).await {
                Ok(()) => requests.send_request(request.clone(), end_of_stream),
                Err(error) => Err(error),
            };
            match sent {
                Ok((response, stream)) => {
                    if reuse == Reuse::Forbidden {
                        self.share(&permit.connection);
                    }
                    let response = Response::new(response, is_used && may_repeat);
                    return Ok((permit, Outgoing::new(stream), response));
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

    /// A place on a connection, and whether that had been opened for another request.
    async fn permit<C>(
        &self,
        limits: SendLimits<'_>,
        connect: &impl Fn() -> C,
    ) -> Result<(StreamPermit, bool), UpstreamError>
    where
        C: Future<Output = Result<TcpStream, UpstreamError>>,
    {
        if let Some(permit) = self.find(false, limits) {
            return Ok((permit, true));
        }
        let _one_at_a_time = self.opening.lock().await;
        if let Some(permit) = self.find(true, limits) {
            return Ok((permit, true));
        }
        let new = self.new_permit(connect).await?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(new.0.connection.clone());
        Ok(new)
    }

    async fn new_permit<C>(&self, connect: &impl Fn() -> C) -> Result<(StreamPermit, bool), UpstreamError>
    where
        C: Future<Output = Result<TcpStream, UpstreamError>>,
    {
        let connection = Arc::new(handshake(connect().await?).await?);
        Ok((StreamPermit::on(&connection), false))
    }

    /// Further requests may use the connection, if there is room for it. If not, it closes after its request.
    fn share(&self, connection: &Arc<Http2Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() < MAX_CONNECTIONS {
            open.push(connection.clone());
        }
    }

    /// The least loaded connection; a full one only if `full` and no further one may be opened.
    fn find(&self, full: bool, limits: SendLimits<'_>) -> Option<StreamPermit> {
        let SendLimits { now, connections, .. } = limits;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.retired.load(Relaxed) && connection.is_within(now, connections));
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

    /// Closes connections that were idle for long, and those that are old once their requests have ended.
    pub fn close_idle(&self, now: CoarseInstant, limits: &Connections) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.retired.load(Relaxed) && connection.is_within(now, limits));
    }
}

/// What bounds the sending of one request.
#[derive(Clone, Copy, Debug)]
pub struct SendLimits<'a> {
    /// How long it may take to connect.
    pub connect: Duration,
    pub connections: &'a Connections,
    /// When the attempt began.
    pub now: CoarseInstant,
    pub reuse: Reuse,
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
    let opened = CoarseInstant::now();
    let used = AtomicU64::new(opened.0);
    let (streams, cancelled) = (AtomicU32::new(0), AtomicU32::new(0));
    Ok(Http2Connection { requests, peer, streams, cancelled, opened, used, retired })
}
