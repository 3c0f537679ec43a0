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
mod configured;
mod dashboard;
mod demo;
mod docs;
mod endpoints;
mod events;
mod extract;
mod guard;
mod import;
mod live;
mod locks;
mod marks;
mod metrics;
mod openapi;
mod operations;
mod plans;
mod probes;
mod problem;
mod registrations;
mod routes;
pub mod server;
mod settings;
mod state;
pub mod stream;
mod upstreams;

use admission::Admission;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use ringmaster_cluster_group::ClusterGroup;
use ringmaster_metrics::Metrics;
use ringmaster_proxy::Proxy;
use ringmaster_telemetry::Telemetry;
use std::{ops::Deref, sync::Arc, time::Duration};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The largest body that is read.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The largest body that is taken off the wire to be thrown away, so that its sender reads why.
pub const MAX_DISCARDED_BYTES: u64 = 32 << 20;
/// How long a request may take, from its head to the end of its answer's head.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long an API request looks for a leader and waits for a quorum. Without one it fails after
/// this, and says why.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(3);

/// The parts of the node that the API works with. Cheap to clone: each request gets it.
#[derive(Clone, Debug)]
pub struct Api(pub Arc<Parts>);

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What it consists of.
#[derive(Debug)]
pub struct Parts {
    pub group: ClusterGroup,
    pub telemetry: Arc<Telemetry>,
    pub metrics: Arc<Metrics>,
    pub proxy: Proxy,
    pub admission: Arc<Admission>,
    /// The port of the API, to know one's own names.
    pub port: u16,
    /// Host names, besides loopback and the members' addresses, that this node answers to.
    pub public_url: String,
    pub encoder: stream::Encoder,
}

/// Every route, with its description.
fn routes() -> OpenApiRouter<Api> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(cluster::cluster))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::node))
        .routes(routes!(settings::list))
        .routes(routes!(settings::get, settings::put))
        .routes(routes!(plans::list, plans::create))
        .routes(routes!(plans::get))
        .routes(routes!(plans::apply))
        .routes(routes!(locks::list))
        .routes(routes!(locks::acquire))
        .routes(routes!(locks::renew))
        .routes(routes!(locks::release))
        .routes(routes!(locks::verify))
        .routes(routes!(locks::get))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::abort))
        .routes(routes!(operations::keep))
        .routes(routes!(upstreams::list))
        .routes(routes!(upstreams::get, upstreams::put, upstreams::delete))
        .routes(routes!(endpoints::list))
        .routes(routes!(endpoints::get, endpoints::put, endpoints::delete))
        .routes(routes!(registrations::register))
        .routes(routes!(registrations::deregister))
        .routes(routes!(registrations::healthy))
        .routes(routes!(live::figures))
        .routes(routes!(live::decisions))
        .routes(routes!(live::heartbeat))
        .routes(routes!(import::import))
        .routes(routes!(routes::list))
        .routes(routes!(routes::get, routes::put, routes::delete))
        .routes(routes!(events::events))
        .routes(routes!(events::audit))
        .routes(routes!(state::state))
        .routes(routes!(stream::stream))
        .routes(routes!(demo::list, demo::add))
        .routes(routes!(demo::chaos));
    OpenApiRouter::with_openapi(openapi::frame())
        .nest("/v1", v1)
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
        .routes(routes!(docs::page))
        .routes(routes!(docs::style))
        .routes(routes!(docs::icon))
}

pub fn router(api: Api) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(dashboard::asset)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(middleware::from_fn_with_state(api.clone(), pass))
        .with_state(api)
}

/// What every request passes on its way in, and every answer on its way out. It is one layer, because
/// for each layer the router copies all that are below it, at each request.
async fn pass(State(api): State<Api>, request: Request, next: Next) -> Response {
    let counted = metrics::Counted::new(&request);
    let patience = server::patience(&request);
    let mut response = match guard::Visitor::admit(&api, &request) {
        Ok(visitor) if visitor.asks_first() => visitor.welcome(StatusCode::NO_CONTENT.into_response()),
        Ok(visitor) => {
            let answered = server::within(patience, answer(&api, request, next));
            visitor.welcome(marks::marked(answered).await)
        }
        Err(refused) => refused.into_response(),
    };
    guard::secure(&api, &mut response);
    counted.answered(&api, &response);
    response
}

/// Answers whom this node serves.
async fn answer(api: &Api, mut request: Request, next: Next) -> Response {
    let _under_way = match admission::admit(api, &request) {
        Ok(under_way) => under_way,
        Err(refused) => return admission::hang_up(refused),
    };
    if let Some(length) = problem::too_large(&request) {
        return Box::pin(problem::discard(request, length)).await;
    }
    let uri = request.uri().clone();
    DefaultBodyLimit::max(MAX_BODY_BYTES).apply(&mut request);
    problem::in_our_words(&uri, problem::without_panic(next.run(request)).await)
}
