//! Plain TCP: a client's connection is passed on to one endpoint as it is.
//!
//! Until there is a connection to an endpoint, others are tried: nothing was sent yet, so that is always safe.

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    conn::{
        context::WorkerContext,
        tunnel::{self, TunnelProtocol},
    },
    error::UpstreamError,
    forward::{Exchange, Forwarding, Response},
    outcome::ResponseEnd,
    pool::reuse::Reuse,
    prepare::selection_hints,
    random::Random,
    table::Route,
    timer::Timer,
    wire::buffer::Buffer,
};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// The status of a successful connection in metrics that count statuses.
const CONNECTED: u16 = 200;
/// The method and path of the access log.
const LINE: &[u8] = b"TCP";

struct TcpExchange {
    client: TcpStream,
    peer: SocketAddr,
    endpoint: Option<TcpStream>,
}

pub async fn serve(client: TcpStream, peer: SocketAddr, route: &Route, context: &WorkerContext) {
    if route.limit.as_ref().is_some_and(|limit| !limit.admits(CoarseInstant::now())) {
        return;
    }
    let hints = selection_hints(std::iter::empty(), peer.ip(), "", route);
    let forwarding = Forwarding::new(route, hints, peer.ip(), LINE);
    let mut exchange = TcpExchange { client, peer, endpoint: None };
    let WorkerContext { worker, tables, .. } = context;
    // The client learns of a failure by the end of its connection.
    let _ = forwarding.run(&mut exchange, *worker, tables, &mut Random::seeded()).await;
}

impl Exchange for TcpExchange {
    /// Connecting is all of the exchange that can fail over.
    async fn attempt(&mut self, attempt: &Attempt<'_>, _: Reuse) -> Result<Response, UpstreamError> {
        let here = self.client.local_addr().unwrap_or(self.peer);
        self.endpoint = Some(attempt.connect(self.peer, here).await?.stream);
        let latency = attempt.response_started();
        Ok(Response { status: CONNECTED, latency, end: ResponseEnd::Complete, idle: None, is_switched: true })
    }

    fn may_repeat(&self) -> bool {
        true
    }

    async fn tunnel(&mut self, attempt: &Attempt<'_>) {
        let Some(mut endpoint) = self.endpoint.take() else { return };
        let idle = Duration::from_millis(attempt.upstream.config.timeouts.idle_ms);
        let nothing = Buffer::default();
        let (client, endpoint) = ((&mut self.client, &nothing), (&mut endpoint, &nothing));
        let cancelled = |now| attempt.endpoint().is_past_drain_deadline(now);
        tunnel::run(client, endpoint, TunnelProtocol::Unknown, idle, &mut Timer::new(), cancelled).await;
    }
}
