//! The configuration of upstreams, endpoints and routes, as fields of forms.
//!
//! Fields that are not listed here stay unchanged when a form is saved.

use crate::{
    address::use_address,
    api::ApiError,
    components::{
        form::{Field, Form, Kind, form},
        live::live,
        text::{refusal, skeleton},
    },
    store::{Store, use_store},
};
use leptos::{prelude::*, task::spawn_local};
use ringmaster_common::{id::Revision, traffic::upstream::UpstreamSpec};
use serde_json::{Value, json};
use std::sync::Arc;

const POLICIES: &[&str] =
    &["round_robin", "weighted_round_robin", "least_connections", "p2c_ewma", "consistent_hash"];
const PROBED: &[&str] = &["http", "grpc", "tcp"];

const UPSTREAM: [Field; 11] = [
    Field::new("policy", "Policy", "How an endpoint is chosen for a request.", Kind::Choice(POLICIES)),
    Field::new(
        "protocol",
        "Protocol",
        "Between proxy and endpoint.",
        Kind::Choice(&["http1", "http2", "tcp"]),
    ),
    Field::new(
        "health_check.type",
        "Health check",
        "Without one, an endpoint is healthy until requests show otherwise.",
        Kind::Choice(&["", "http", "grpc", "tcp", "heartbeat"]),
    ),
    Field::new("health_check.path", "Path", "Any answer from 200 to 399 is healthy.", Kind::Text)
        .only("health_check.type", &["http"]),
    Field::new("health_check.service", "Service", "The whole server by default.", Kind::Text)
        .only("health_check.type", &["grpc"]),
    Field::new("health_check.interval_ms", "Interval, ms", "2000 by default.", Kind::Number)
        .only("health_check.type", PROBED),
    Field::new("health_check.timeout_ms", "Timeout, ms", "1000 by default.", Kind::Number)
        .only("health_check.type", PROBED),
    Field::new("health_check.ttl_ms", "Heartbeat TTL, ms", "Longer silence is unhealthy.", Kind::Number)
        .only("health_check.type", &["heartbeat"]),
    Field::new(
        "active_standby",
        "One primary",
        "One endpoint serves; the others are standbys.",
        Kind::Object("automatic"),
    ),
    Field::new("active_standby.automatic", "Automatic failover", "When the primary is down.", Kind::Switch)
        .only("active_standby", &["{}"]),
    Field::new("active_standby.grace_ms", "Failover delay, ms", "3000 by default.", Kind::Number)
        .only("active_standby", &["{}"]),
];

const UPSTREAM_MORE: [Field; 18] = [
    Field::new("health_check.rise", "Successes until healthy", "2 by default.", Kind::Number)
        .only("health_check.type", PROBED),
    Field::new("health_check.fall", "Failures until unhealthy", "3 by default.", Kind::Number)
        .only("health_check.type", PROBED),
    Field::new(
        "active_standby.hold_down_ms",
        "Hold-down, ms",
        "The minimum time between automatic failovers.",
        Kind::Number,
    )
    .only("active_standby", &["{}"]),
    Field::new(
        "active_standby.fence_webhook",
        "Fence webhook",
        "Called to fence the old primary before a promotion.",
        Kind::Text,
    )
    .only("active_standby", &["{}"]),
    Field::new("retries.attempts", "Retries", "", Kind::Number),
    Field::new("retries.budget_percent", "Retry budget, %", "", Kind::Number),
    Field::new("timeouts.connect_ms", "Connect time-out, ms", "", Kind::Number),
    Field::new("timeouts.response_ms", "Response time-out, ms", "", Kind::Number),
    Field::new("timeouts.idle_ms", "Idle time-out, ms", "", Kind::Number),
    Field::new(
        "connections.idle_ms",
        "Connections idle, ms",
        "Shorter than the endpoints' own idle time-out.",
        Kind::Number,
    ),
    Field::new("connections.max_age_ms", "Age of connections, ms", "0: no limit.", Kind::Number),
    Field::new("outlier_ejection.consecutive_failures", "Ejected after failures", "", Kind::Number),
    Field::new("outlier_ejection.max_ejected_percent", "Max ejected, %", "", Kind::Number),
    Field::new("slow_start_ms", "Slow start, ms", "", Kind::Number),
    Field::new("max_in_flight", "Max in flight", "", Kind::Number),
    Field::new("drain_ms", "Drain deadline, ms", "Requests that take longer are cut off.", Kind::Number),
    Field::new(
        "sticky_cookie",
        "Sticky cookie",
        "The name of a cookie that keeps a client at its endpoint.",
        Kind::Text,
    )
    .said("of a cookie"),
    Field::new("send_proxy_protocol", "PROXY protocol", "", Kind::Switch),
];

const ENDPOINT: [Field; 2] = [
    Field::new("addr", "Address", "host:port, as the nodes reach it.", Kind::Text).said("address"),
    Field::new("weight", "Weight", "1 to 1000: its share relative to the other endpoints.", Kind::Number),
];

const ROUTE: [Field; 4] = [
    Field::new("upstream", "Upstream", "The upstream that serves the requests.", Kind::Upstream),
    Field::new("path_prefix", "Path prefix", "Whole segments: /api matches /api/x, not /apis.", Kind::Text),
    Field::new("host", "Host", "Any, where empty; *.example.org is any name below.", Kind::Text)
        .said("route's host"),
    Field::new("listener", "Listener", "host:port; the listener of all proxies, where empty.", Kind::Text)
        .said("an address is"),
];

const ROUTE_MORE: [Field; 3] = [
    Field::new(
        "rewrite_prefix",
        "Rewrite the prefix to",
        "Replaces the prefix in the path that is sent to the endpoint.",
        Kind::Text,
    ),
    Field::new(
        "rate_limit_per_s",
        "Requests a second",
        "Per node; requests beyond it get 429.",
        Kind::Number,
    ),
    Field::new(
        "max_body_bytes",
        "Max body, bytes",
        "Longer ones get 413; 67108864 by default.",
        Kind::Number,
    ),
];

/// The form that the address of the page of traffic names.
pub fn open(store: Store, new: Option<&str>, edited: Option<String>) -> Option<AnyView> {
    let address = use_address();
    let close = move || {
        address.set_parameter("new", None, true);
        address.set_parameter("edit", None, true);
    };
    let shown = match (new, edited) {
        (Some("upstream"), _) => {
            let body = json!({ "health_check": { "type": "tcp" }, "endpoints": [] });
            untrack(|| {
                upstream(None, body, None, move |name| match name {
                    Some(name) => address.go(&format!("/traffic/upstreams/{name}"), false),
                    None => close(),
                })
            })
        }
        (Some("route"), _) => untrack(|| route(store, None, json!({ "path_prefix": "/" }), None, close)),
        (_, Some(name)) => loaded(format!("/v1/routes/{name}"), move |body, version| {
            route(store, Some(name.clone()), body, version, close)
        }),
        _ => return None,
    };
    Some(view! { <section class="card" aria-label="Configure">{shown}</section> }.into_any())
}

/// A form over what is there now, once it was asked for.
pub fn loaded(path: String, make: impl Fn(Value, Option<Revision>) -> AnyView + Send + 'static) -> AnyView {
    let store = use_store();
    let known = RwSignal::new(None::<Result<Value, ApiError>>);
    spawn_local(async move { known.set(Some(store.api.value(&path).await)) });
    live(move || match known.get() {
        None => skeleton(4),
        Some(Err(error)) => refusal(&error),
        Some(Ok(body)) => untrack(|| {
            let version = body["version"].as_u64().map(Revision);
            make(body, version)
        }),
    })
    .into_any()
}

pub fn upstream(
    name: Option<String>,
    body: Value,
    version: Option<Revision>,
    done: impl Fn(Option<String>) + Send + Sync + 'static,
) -> AnyView {
    form(Form {
        what: "upstream",
        place: "/v1/upstreams/".to_owned(),
        current: current(name.clone()),
        name,
        body,
        version,
        fields: &UPSTREAM,
        defaults: json!(UpstreamSpec::default()),
        more: &UPSTREAM_MORE,
        named_by: "",
        read_only: &[],
        removable: true,
        done: Arc::new(done),
    })
}

/// The version of an upstream as it is now, and who configured it.
fn current(name: Option<String>) -> Memo<Option<(Revision, String)>> {
    let store = use_store();
    Memo::new(move |_| {
        store.with_view(|view| {
            let upstream = view.upstreams.get(name.as_ref()?)?;
            Some((upstream.version, upstream.updated_by.clone()))
        })
    })
}

/// Endpoints are part of their upstream's configuration, so its version is theirs.
pub fn endpoint(
    upstream: String,
    name: Option<String>,
    body: Value,
    version: Option<Revision>,
    done: impl Fn(Option<String>) + Send + Sync + 'static,
) -> AnyView {
    form(Form {
        what: "endpoint",
        place: format!("/v1/upstreams/{upstream}/endpoints/"),
        current: current(Some(upstream)),
        name,
        body,
        version,
        fields: &ENDPOINT,
        defaults: json!({ "weight": 1 }),
        more: &[],
        named_by: "id",
        read_only: &[],
        removable: true,
        done: Arc::new(done),
    })
}

fn route(
    store: Store,
    name: Option<String>,
    body: Value,
    version: Option<Revision>,
    close: impl Fn() + Send + Sync + 'static,
) -> AnyView {
    let of = name.clone();
    let current = Memo::new(move |_| {
        store.with_view(|view| {
            let route = view.routes.get(of.as_ref()?)?;
            Some((route.version, route.updated_by.clone()))
        })
    });
    form(Form {
        what: "route",
        place: "/v1/routes/".to_owned(),
        name,
        body,
        version,
        fields: &ROUTE,
        defaults: Value::Null,
        more: &ROUTE_MORE,
        current,
        named_by: "",
        read_only: &[],
        removable: true,
        done: Arc::new(move |_| close()),
    })
}
