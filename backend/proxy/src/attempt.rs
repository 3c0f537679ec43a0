//! One attempt to send a request to one endpoint. It counts as in flight there for as long as it lives: the choice
//! counts it, in [`crate::balance`], and its end takes it back.

use crate::{
    coarse_clock::CoarseInstant,
    endpoint::Endpoint,
    error::UpstreamError,
    pool::{Connection, http2::SendLimits, reuse::Reuse},
    selection::{Choice, SlotSet},
    upstream::Upstream,
    wire::proxy_protocol,
};
use ringmaster_common::traffic::{live::Candidate, upstream::Policy};
use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};

#[derive(Debug)]
pub struct Attempt<'u> {
    pub upstream: &'u Upstream,
    pub choice: Choice,
    /// The slots that were tried before.
    pub tried: SlotSet,
    pub since: CoarseInstant,
    /// The value of a new sticky cookie; none if the client has it already.
    pub sticky: Option<u64>,
    /// The endpoints as the policy saw them, where the decision is one of the sample.
    pub considered: Option<Vec<Candidate>>,
}

impl<'u> Attempt<'u> {
    pub fn endpoint(&self) -> &'u Endpoint {
        self.upstream.endpoint(self.choice.slot)
    }

    /// The head of the response has arrived. Returns how long that took, which is the latency of the endpoint.
    pub fn response_started(&self) -> Duration {
        let now = CoarseInstant::now();
        let latency = now.since(self.since);
        // Not at the end: a long response must not keep the next choice waiting for this number.
        self.observe_latency(latency, now);
        latency
    }

    /// The policy `p2c_ewma` takes it into account from now on.
    pub fn observe_latency(&self, latency: Duration, now: CoarseInstant) {
        if self.upstream.config.policy == Policy::P2cEwma {
            self.endpoint().ewma.observe(latency, now);
        }
    }

    /// Begins anew, at the same endpoint.
    pub fn restart(&mut self) {
        self.since = CoarseInstant::now();
    }

    /// Whether connections carry more than one request: not if each begins with the PROXY protocol header of its client.
    pub fn reuses_connections(&self) -> bool {
        !self.upstream.config.send_proxy_protocol
    }

    /// An idle HTTP/1 connection of this worker, for a request that may be sent twice or not.
    pub fn take_idle(&self, worker: usize, reuse: Reuse, is_resendable: bool) -> Option<Connection> {
        if reuse == Reuse::Forbidden || !self.reuses_connections() {
            return None;
        }
        let limits = &self.upstream.config.connections;
        self.endpoint().pool.take_idle(worker, self.since, limits, is_resendable)
    }

    /// What bounds the sending on an HTTP/2 connection.
    pub fn send_limits(&self, reuse: Reuse) -> SendLimits<'u> {
        let config = &self.upstream.config;
        let connect = Duration::from_millis(config.timeouts.connect_ms);
        SendLimits { connect, connections: &config.connections, now: self.since, reuse }
    }

    /// A new connection on behalf of `client`, which connected to `here`.
    pub async fn connect(&self, client: SocketAddr, here: SocketAddr) -> Result<Connection, UpstreamError> {
        let config = &self.upstream.config;
        let limit = Duration::from_millis(config.timeouts.connect_ms);
        let mut connection = match timeout(limit, self.endpoint().pool.connect(limit)).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(UpstreamError::ConnectFailed(format!("no connection: {error}"))),
            Err(_) => {
                let detail = format!("no connection within {} ms", limit.as_millis());
                return Err(UpstreamError::ConnectFailed(detail));
            }
        };
        if config.send_proxy_protocol {
            let header = proxy_protocol::header(client, here);
            let written = connection.write_all(&header).await;
            written.map_err(|error| UpstreamError::ConnectFailed(error.to_string()))?;
        }
        Ok(Connection::new(connection, CoarseInstant::now()))
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Relaxed);
    }
}
