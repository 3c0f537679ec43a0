//! `/metrics`, and the counting of requests.

use crate::http::{Api, openapi::problems, problem::Refused};
use axum::{
    extract::{MatchedPath, Request, State as Extension},
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::error::Code;
use ringmaster_metrics::Format;
use ringmaster_net::clock;
use std::time::Instant;

/// Where the router matched nothing: a file of the dashboard, a page of it, or nothing at all.
const UNROUTED: &str = "other";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The figures of this node, as Prometheus reads them
///
/// OpenMetrics where it is accepted, else the older text format.
#[utoipa::path(
    get, path = "/metrics", tag = "node", operation_id = "metrics",
    responses((status = 200, description = "The figures", body = String, content_type = "text/plain"), MetricsRefusals)
)]
pub async fn metrics(Extension(api): Extension<Api>, headers: HeaderMap) -> Result<Response, Refused> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (format, kind) = if accepted.contains("application/openmetrics-text") {
        (Format::OpenMetrics, OPEN_METRICS)
    } else {
        (Format::Prometheus, PROMETHEUS)
    };
    let text = tokio::task::spawn_blocking(move || api.metrics.expose(format))
        .await
        .map_err(|_| Refused::new(Code::Internal, "the figures could not be read; the log tells why"))?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

problems!(MetricsRefusals: []);

/// A request that is counted, whatever becomes of it.
#[derive(Debug)]
pub struct Counted {
    started: Instant,
    method: &'static str,
    route: Option<MatchedPath>,
}

impl Counted {
    pub fn new(request: &Request) -> Counted {
        let route = request.extensions().get::<MatchedPath>().cloned();
        Counted { started: clock::now(), method: label(request.method()), route }
    }

    pub fn answered(self, api: &Api, response: &Response) {
        let route = self.route.as_ref().map_or(UNROUTED, MatchedPath::as_str);
        api.metrics.answered(route, self.method, response.status().as_u16(), self.started.elapsed());
    }
}

/// Clients may send methods that they made up.
fn label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
