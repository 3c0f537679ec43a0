//! `/metrics`, as Prometheus reads them.

mod accept;

use crate::http::{Api, openapi::problems, problem::ApiError};
use axum::{
    extract::State,
    http::{HeaderMap, Method, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::error::Code;
use ringmaster_metrics::Format;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of this node
///
/// In the OpenMetrics format where it is accepted, else in the older text format of Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node", operation_id = "metrics",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "text/plain"),
            (String = "application/openmetrics-text")
        )),
        MetricsRefusals
    )
)]
pub async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let (format, kind) = if accept::prefers_open_metrics(accepted) {
        (Format::OpenMetrics, OPEN_METRICS)
    } else {
        (Format::Prometheus, PROMETHEUS)
    };
    let text = tokio::task::spawn_blocking(move || api.metrics.expose(format))
        .await
        .map_err(|_| ApiError::new(Code::Internal, "the metrics could not be read; the log says why"))?;
    Ok(([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], text).into_response())
}

problems!(MetricsRefusals: []);

/// The label of a method. Clients may send methods that they made up.
pub fn method_label(method: &Method) -> &'static str {
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
