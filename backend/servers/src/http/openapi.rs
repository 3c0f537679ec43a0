//! `/openapi.json`: what this API takes and answers, told by the code that serves it.
//!
//! A route and its description come from one annotation on the function that answers it, and reach the
//! router and the document together; so neither can have what the other lacks. The types are those of
//! `common`. Every example in the document is sent to a running cluster by a test.

use crate::http::{extract::Mutation, routes};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use ringmaster_common::{
    demo::Chaos,
    error::{Code, PROBLEM_JSON, Problem, Refusal},
    stream::{ClientMessage, ServerMessage},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::LazyLock};
use utoipa::{
    IntoParams, OpenApi,
    openapi::{
        self, ContentBuilder, ObjectBuilder, Ref, RefOr, Required, ResponseBuilder,
        example::ExampleBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{Schema, Type},
    },
};

/// Declares what may go wrong at a route, besides what may go wrong everywhere.
macro_rules! problems {
    ($name:ident: [$($set:ident),*] $(, $code:ident)*) => {
        #[derive(Debug)]
        pub enum $name {}

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::Response>,
            > {
                $crate::http::openapi::responses(&[
                    $($crate::http::openapi::$set,)*
                    &[$(ringmaster_common::error::Code::$code),*],
                ])
            }
        }
    };
}
pub(super) use problems;

/// What any request may be answered.
const ANY: &[Code] = &[
    Code::ForeignOrigin,
    Code::UnknownHost,
    Code::MethodNotAllowed,
    Code::RequestTimeout,
    Code::Overloaded,
    Code::Internal,
];
/// What a request for agreed state may be answered, besides.
pub const READ: &[Code] = &[Code::InvalidRequest, Code::NoLeader, Code::OutcomeUnknown, Code::NotReady];
/// What a request that changes agreed state may be answered, besides.
pub const WRITE: &[Code] =
    &[Code::InvalidRequest, Code::IdempotencyKeyReused, Code::NoLeader, Code::OutcomeUnknown];
/// What a request with a body may be answered, besides.
pub const BODY: &[Code] = &[Code::MalformedJson, Code::BodyTooLarge, Code::UnsupportedMediaType];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringmaster",
        description = "The control room of a small fleet. Any node answers; what only the leader can do is \
                       forwarded to it.\n\nWhat operators do goes through plans: a plan says what would happen, and is \
                       refused if anything that it looked at has changed when it is applied. Errors are problem \
                       documents (RFC 9457) with a stable `code`. Lists are answered a page at a time. Durations are \
                       integers of milliseconds, times are RFC 3339 in UTC, and ids and revisions are below 2^53.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "cluster", description = "Who the members are, and how they are. Answered without a quorum, too."),
        (name = "plans", description = "The one door for what operators do."),
        (name = "operations", description = "Plans being run. They outlive the node that runs them."),
        (name = "settings", description = "Configuration that the whole cluster agrees on: plain GET and PUT, with ETags."),
        (name = "locks", description = "Leases with fencing tokens, and fair queues. A resource is safe if it keeps the highest token that it has seen."),
        (name = "traffic", description = "Upstreams, their endpoints, and the routes that lead there. Configuration under ETags; states change by plans."),
        (name = "history", description = "What happened, and who asked for it."),
        (name = "node", description = "This node itself, for supervisors, load balancers and monitoring."),
        (name = "demo", description = "Chaos, in a demo alone."),
    ),
    components(schemas(Chaos, ClientMessage, Problem, ServerMessage))
)]
struct Frame;

/// The document, as JSON.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let document = tidied(routes().into_openapi());
    serde_json::to_value(document).expect("a document is plain data")
});
static TEXT: LazyLock<String> = LazyLock::new(|| DOCUMENT.to_string());

/// What the routes are added to.
pub fn frame() -> openapi::OpenApi {
    Frame::openapi()
}

/// What may hold more than is configured, because what a GET tells may be put back.
const PUT_BACK: &[&str] = &["Configured_Endpoint", "Configured_EndpointSpec", "EndpointSpec", "RouteSpec"];

/// The router spells a path's tail as `{*key}`, OpenAPI as `{key}`.
fn tidied(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    let schemas = document.components.iter_mut().flat_map(|components| &mut components.schemas);
    for (_, schema) in schemas.filter(|(name, _)| PUT_BACK.contains(&name.as_str())) {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.additional_properties = None;
        }
    }
    document
}

/// The API as an OpenAPI document
///
/// A page that people can read is at `/docs`.
#[utoipa::path(
    get, path = "/openapi.json", tag = "node", operation_id = "openapi",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object), Refusals)
)]
pub async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

problems!(Refusals: []);

/// A response for each status, with an example for each code.
pub fn responses(codes: &[&[Code]]) -> BTreeMap<String, RefOr<openapi::Response>> {
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in ANY.iter().chain(codes.iter().copied().flatten()) {
        let same = by_status.entry(code.status()).or_default();
        if !same.contains(code) {
            same.push(*code);
        }
    }
    by_status
        .into_iter()
        .map(|(status, codes)| {
            let lines: Vec<_> = codes.iter().map(|code| format!("`{code}`: {}", code.title())).collect();
            let examples = codes.iter().map(|code| {
                let problem = Problem::from(Refusal::new(*code, code.title()));
                (
                    code.as_str(),
                    ExampleBuilder::new().summary(code.title()).value(Some(json!(problem))).build(),
                )
            });
            let content = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .examples_from_iter(examples)
                .build();
            let response =
                ResponseBuilder::new().description(lines.join("\n\n")).content(PROBLEM_JSON, content).build();
            (status.to_string(), response.into())
        })
        .collect()
}

/// Every mutation takes an idempotency key.
impl IntoParams for Mutation {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Names the request. A repeat under the same key is answered as the first one was, and does nothing.",
            ))
            .schema(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some(ringmaster_cluster::requests::MAX_REQUEST_ID_BYTES)),
            ))
            .build();
        vec![key]
    }
}

#[cfg(test)]
mod tests;
