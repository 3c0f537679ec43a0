//! The HTTP API: one file a resource.
//!
//! Any node answers; what only the leader can do is forwarded below this layer. Every error is a
//! problem document with a stable code, also those of the framework: an unknown route, a method that
//! does not fit, a body that is too large.
//!
//! Until there is authentication, the API trusts whoever can reach it. So it listens on loopback
//! alone unless told otherwise, and refuses foreign hosts and origins ([`guard`]).

pub mod admission;
mod cluster;
mod dashboard;
mod demo;
mod events;
mod extract;
mod guard;
mod metrics;
mod operations;
mod plans;
mod probes;
mod problem;
pub mod server;
mod settings;
pub mod stream;

use crate::{metrics::Metrics, raft::cluster_group::ClusterGroup, telemetry::Telemetry};
use admission::Admission;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use std::{sync::Arc, time::Duration};
use tower_http::catch_panic::CatchPanicLayer;

/// The largest body that is read.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The largest body that is taken off the wire to be thrown away, so that its sender reads why.
pub const MAX_DISCARDED_BYTES: u64 = 32 << 20;
/// How long a request may take, from its head to the end of its answer's head.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an API request looks for a leader and waits for a quorum. Without one it fails after
/// this, and says why.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(3);

/// What the API needs of the node.
#[derive(Clone)]
pub struct Api {
    pub group: ClusterGroup,
    pub telemetry: Arc<Telemetry>,
    pub metrics: Arc<Metrics>,
    pub admission: Arc<Admission>,
    /// The port of the API, to know one's own names.
    pub port: u16,
    /// Host names, besides loopback and the members' addresses, that this node answers to.
    pub public_url: String,
    pub encoder: Arc<stream::Encoder>,
}

pub fn router(api: Api) -> Router {
    let v1 = Router::new()
        .route("/cluster", get(cluster::cluster))
        .route("/nodes", get(cluster::nodes))
        .route("/nodes/{id}", get(cluster::node))
        .route("/settings", get(settings::list))
        .route("/settings/{*key}", get(settings::get).put(settings::put))
        .route("/plans", get(plans::list).post(plans::create))
        .route("/plans/{id}", get(plans::get))
        .route("/plans/{id}/apply", post(plans::apply))
        .route("/operations", get(operations::list))
        .route("/operations/{id}", get(operations::get))
        .route("/operations/{id}/abort", post(operations::abort))
        .route("/operations/{id}/keep", post(operations::keep))
        .route("/events", get(events::events))
        .route("/audit", get(events::audit))
        .route("/stream", get(stream::stream))
        .route("/demo/nodes", get(demo::list).post(demo::add))
        .route("/demo/nodes/{id}/{chaos}", post(demo::chaos));
    Router::new()
        .nest("/v1", v1)
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/metrics", get(metrics::metrics))
        .fallback(dashboard::asset)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn(problem::in_our_words))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(problem::too_large_to_read))
        .layer(middleware::from_fn_with_state(api.clone(), admission::admit))
        .layer(middleware::from_fn(server::in_time))
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .layer(middleware::from_fn_with_state(api.clone(), metrics::count))
        .with_state(api)
}
