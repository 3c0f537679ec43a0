//! The HTTP API: one file for each resource. Each handler parses a request, calls one service and prints the result.
//!
//! The routes are the rows of [`route_table`]. Any node answers; requests for the leader are forwarded below this
//! layer. Every error is a problem document with a stable code: an unknown path, a wrong method and a body that is
//! too large, too.
//!
//! Without authentication, the API trusts every client that can reach it. So it listens on loopback alone unless it
//! is configured otherwise, and refuses foreign hosts and origins ([`guard`]).

mod body;
mod cluster;
pub mod dashboard;
mod demo;
mod docs;
mod endpoints;
mod etag;
mod events;
mod extract;
mod fingerprint;
mod guard;
mod import;
mod layers;
mod live;
mod locks;
mod metrics;
mod openapi;
mod operations;
mod plans;
mod policy;
mod probes;
mod problem;
mod registrations;
mod response_metadata;
mod route_table;
mod routes;
mod row;
pub mod server;
mod settings;
mod state;
mod stream;
mod upstreams;

use axum::Router;
use ringmaster_metrics::Metrics;
use ringmaster_services::Services;
use std::{ops::Deref, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The largest body that is read, except for an import.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The largest body that is read for a lock: names, owner and `meta` at their limits, all of it escaped.
pub const MAX_LOCK_BODY_BYTES: usize = 16 << 10;
/// The largest body that is taken off the wire to be thrown away, so that its sender reads the response.
pub const MAX_DISCARDED_BYTES: u64 = 32 << 20;
/// How long a request may take until its response begins.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a service looks for a leader and waits for a quorum. Without one it fails after this, with the reason.
pub const SERVICE_DEADLINE: Duration = Duration::from_secs(3);

/// The parts of the node that the API works with. Cheap to clone: each request gets it.
#[derive(Clone, Debug)]
pub struct Api(Arc<Parts>);

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

#[derive(Debug)]
pub struct Parts {
    services: Services,
    metrics: Arc<Metrics>,
    /// The port of the API: with a name of the loopback interface it is a host of this node.
    port: u16,
    /// The URL of this node for browsers. Its host is a host of this node, too.
    public_url: String,
    encoder: stream::Encoder,
    streams: stream::Streams,
    description: openapi::Description,
    dashboard: dashboard::Files,
}

impl Api {
    pub fn new(
        services: Services,
        metrics: Arc<Metrics>,
        port: u16,
        public_url: String,
        dashboard: dashboard::Files,
        stop: watch::Receiver<bool>,
    ) -> Api {
        let (encoder, streams) = (stream::Encoder::default(), stream::Streams::new(stop));
        let description = openapi::Description::of(route_table::ROWS);
        Api(Arc::new(Parts { services, metrics, port, public_url, encoder, streams, description, dashboard }))
    }

    /// Waits until all streams have ended, which begins with the stop of the node.
    pub async fn streams_ended(&self) {
        self.streams.ended().await;
    }
}

pub fn router(api: Api) -> Router {
    route_table::router().with_state(api)
}
