//! The route table: every route of the API, and all that is decided about it before its handler runs.
//!
//! The router and the OpenAPI document are built from these rows alone. A row has no default: a handler without a
//! method, a path, an admission class, a time limit and a permission does not compile, and a handler without a row
//! is dead code.

use crate::http::{
    Api, cluster, dashboard, demo, docs, endpoints, events, import,
    layers::Layered,
    live, locks, metrics, openapi, operations, plans,
    policy::{
        Admit::{self, AfterBody, Always, ByService, In},
        Permission::{self, Administer, Operate, Public, Use, View},
        Policy,
        TimeLimit::{self, OfTheRequest, Standard},
    },
    probes, problem, registrations, routes,
    row::{Method, Row},
    settings, state, stream, upstreams,
};
use axum::{
    Router,
    routing::{get, on},
};
use ringmaster_services::admission::Class::{
    Control, Leases, LockIntake, Locks, Probes, Reads, Settings, Stream,
};

/// A row: method, path, handler, admission, time limit, permission.
macro_rules! row {
    ($method:ident $path:literal, $module:ident :: $handler:ident, $admit:expr, $time_limit:expr, $permission:expr) => {
        Row {
            method: Method::$method,
            path: $path,
            policy: policy($path, $admit, $time_limit, $permission),
            serve: |row| {
                let handler = Layered { policy: &row.policy, handler: $module::$handler };
                on(row.method.filter(), handler)
            },
            describe: || utoipa_axum::routes!($module::$handler),
        }
    };
}

const fn policy(route: &'static str, admit: Admit, time_limit: TimeLimit, permission: Permission) -> Policy {
    Policy { route, admit, time_limit, permission }
}

#[rustfmt::skip]
pub static ROWS: &[Row] = &[
    row!(Get    "/v1/cluster",                                             cluster::cluster,          In(Control),  Standard,     View),
    row!(Get    "/v1/nodes",                                               cluster::nodes,            In(Control),  Standard,     View),
    row!(Get    "/v1/nodes/{id}",                                          cluster::node,             In(Control),  Standard,     View),

    row!(Get    "/v1/settings",                                            settings::list,            In(Reads),    Standard,     View),
    row!(Get    "/v1/settings/{*key}",                                     settings::get,             In(Reads),    Standard,     View),
    row!(Put    "/v1/settings/{*key}",                                     settings::put,             In(Settings), Standard,     Operate),
    row!(Delete "/v1/settings/{*key}",                                     settings::delete,          In(Settings), Standard,     Operate),

    row!(Get    "/v1/plans",                                               plans::list,               In(Control),  Standard,     View),
    row!(Post   "/v1/plans",                                               plans::create,             In(Control),  Standard,     Operate),
    row!(Get    "/v1/plans/{id}",                                          plans::get,                In(Control),  Standard,     View),
    row!(Post   "/v1/plans/{id}/apply",                                    plans::apply,              In(Control),  Standard,     Operate),

    row!(Get    "/v1/operations",                                          operations::list,          In(Control),  Standard,     View),
    row!(Get    "/v1/operations/{id}",                                     operations::get,           In(Control),  Standard,     View),
    row!(Post   "/v1/operations/{id}/abort",                               operations::abort,         In(Control),  Standard,     Operate),
    row!(Post   "/v1/operations/{id}/keep",                                operations::keep,          In(Control),  Standard,     Operate),

    row!(Get    "/v1/locks",                                               locks::list,               In(Reads),    Standard,     View),
    row!(Get    "/v1/locks/{*name}",                                       locks::get,                In(Reads),    Standard,     View),
    // A request that waits for a lock is of another class than one that does not.
    row!(Post   "/v1/locks/acquire",                                       locks::acquire,            AfterBody(LockIntake), OfTheRequest, Use),
    row!(Post   "/v1/locks/renew",                                         locks::renew,              In(Leases),   Standard,     Use),
    row!(Post   "/v1/locks/release",                                       locks::release,            In(Leases),   Standard,     Use),
    row!(Post   "/v1/locks/verify",                                        locks::verify,             In(Locks),    Standard,     Use),

    row!(Get    "/v1/upstreams",                                           upstreams::list,           In(Reads),    Standard,     View),
    row!(Get    "/v1/upstreams/{upstream}",                                upstreams::get,            In(Reads),    Standard,     View),
    row!(Put    "/v1/upstreams/{upstream}",                                upstreams::put,            In(Control),  Standard,     Operate),
    row!(Delete "/v1/upstreams/{upstream}",                                upstreams::delete,         In(Control),  Standard,     Operate),
    row!(Get    "/v1/upstreams/{upstream}/live",                           live::metrics,             In(Reads),    Standard,     View),
    row!(Get    "/v1/upstreams/{upstream}/decisions",                      live::decisions,           In(Reads),    Standard,     View),
    row!(Get    "/v1/upstreams/{upstream}/draining",                       live::draining,            In(Reads),    Standard,     View),
    row!(Get    "/v1/upstreams/{upstream}/endpoints",                      endpoints::list,           In(Reads),    Standard,     View),
    row!(Get    "/v1/upstreams/{upstream}/endpoints/{endpoint}",           endpoints::get,            In(Reads),    Standard,     View),
    row!(Put    "/v1/upstreams/{upstream}/endpoints/{endpoint}",           endpoints::put,            In(Control),  Standard,     Operate),
    row!(Delete "/v1/upstreams/{upstream}/endpoints/{endpoint}",           endpoints::delete,         In(Control),  Standard,     Operate),
    row!(Post   "/v1/upstreams/{upstream}/endpoints/{endpoint}/heartbeat", live::heartbeat,           In(Control),  Standard,     Use),
    // Endpoints that are registered already go before all others, and a client that waits is no burden.
    row!(Post   "/v1/upstreams/{upstream}/register",                       registrations::register,   In(Leases),   Standard,     Use),
    row!(Post   "/v1/upstreams/{upstream}/deregister",                     registrations::deregister, In(Leases),   Standard,     Use),
    row!(Get    "/v1/upstreams/{upstream}/healthy",                        registrations::healthy,    In(Stream),   Standard,     Use),
    row!(Get    "/v1/routes",                                              routes::list,              In(Reads),    Standard,     View),
    row!(Get    "/v1/routes/{route}",                                      routes::get,               In(Reads),    Standard,     View),
    row!(Put    "/v1/routes/{route}",                                      routes::put,               In(Control),  Standard,     Operate),
    row!(Delete "/v1/routes/{route}",                                      routes::delete,            In(Control),  Standard,     Operate),
    row!(Post   "/v1/traffic/import",                                      import::import,            In(Control),  Standard,     Operate),

    row!(Get    "/v1/events",                                              events::events,            In(Reads),    Standard,     View),
    row!(Get    "/v1/audit",                                               events::audit,             In(Reads),    Standard,     View),
    row!(Get    "/v1/state",                                               state::state,              In(Reads),    Standard,     View),
    row!(Get    "/v1/state/digest",                                        state::digest,             In(Reads),    Standard,     View),
    // A stream is in progress for as long as it is open.
    row!(Get    "/v1/stream",                                              stream::stream,            ByService,    Standard,     View),

    row!(Get    "/v1/demo/nodes",                                          demo::list,                In(Control),  Standard,     View),
    row!(Post   "/v1/demo/nodes",                                          demo::add,                 In(Control),  Standard,     Administer),
    row!(Post   "/v1/demo/nodes/{id}/{chaos}",                             demo::chaos,               In(Control),  Standard,     Administer),

    row!(Get    "/livez",                                                  probes::livez,             Always,       Standard,     Public),
    row!(Get    "/readyz",                                                 probes::readyz,            In(Probes),   Standard,     Public),
    row!(Get    "/metrics",                                                metrics::metrics,          Always,       Standard,     View),
    row!(Get    "/openapi.json",                                           openapi::document,         Always,       Standard,     Public),
    row!(Get    "/docs",                                                   docs::page,                Always,       Standard,     Public),
    row!(Get    "/docs/style.css",                                         docs::style,               Always,       Standard,     Public),
    row!(Get    "/docs/icon.svg",                                          docs::icon,                Always,       Standard,     Public),
];

/// Requests that match no row: files and pages of the dashboard, methods that a path does not take, unknown paths.
static UNMATCHED: Policy = policy("other", Always, Standard, Public);

static LOCK_NAMESAKE: Policy = policy("/v1/locks/{*name}", In(Reads), Standard, View);

pub fn router() -> Router<Api> {
    let rows = ROWS.iter().fold(Router::new(), |router, row| router.route(row.path, (row.serve)(row)));
    // A lock that is called like an action is read as every other lock.
    let namesake = Layered { policy: &LOCK_NAMESAKE, handler: locks::get_namesake };
    let rows = locks::ACTIONS.iter().fold(rows, |router, path| router.route(path, get(namesake)));
    rows.fallback(Layered { policy: &UNMATCHED, handler: dashboard::asset })
        .method_not_allowed_fallback(Layered { policy: &UNMATCHED, handler: problem::method_not_allowed })
}
