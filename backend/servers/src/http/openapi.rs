//! `/openapi.json`: the requests and responses of this API, described by the code that serves it.
//!
//! The document has the rows of the route table, each with the annotation of its handler and with the permission that
//! it needs (`x-permission`). So the router and the document cannot differ. The types are those of `common`. A test
//! sends every example of the document to a running cluster.
//!
//! Programs make clients from the document; [`shape`] gives it the form that they understand.

mod headers;
mod shape;

use crate::http::{Api, extract::Write, row::Row};
use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use ringmaster_common::{
    demo::Chaos,
    error::{Code, PROBLEM_JSON, Problem, Refusal},
    stream::{ClientMessage, ServerMessage},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::OnceLock};
use utoipa::{
    IntoParams, OpenApi,
    openapi::{
        self, ContentBuilder, ObjectBuilder, Ref, RefOr, Required, ResponseBuilder,
        example::ExampleBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{Schema, Type},
    },
};

/// Declares the errors of a route, besides those of every route.
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

/// The errors of every request.
const ANY: &[Code] = &[
    Code::ForeignOrigin,
    Code::UnknownHost,
    Code::MethodNotAllowed,
    Code::RequestTimeout,
    Code::Overloaded,
    Code::Internal,
];
/// The further errors of a read of the replicated state.
pub const READ: &[Code] = &[Code::InvalidRequest, Code::NoLeader, Code::NotReady];
/// The further errors of a write.
pub const WRITE: &[Code] =
    &[Code::InvalidRequest, Code::IdempotencyKeyReused, Code::NoLeader, Code::OutcomeUnknown];
/// The further errors of a request with a body.
pub const BODY: &[Code] = &[Code::MalformedJson, Code::BodyTooLarge, Code::UnsupportedMediaType];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ringmaster",
        description = "The control room of a small fleet. Any node answers; requests for the leader are forwarded \
                       to it.\n\nEvery action of an operator is a plan first: a plan shows its steps and its impact, and is \
                       refused if a fact that it depends on has changed when it is applied. Errors are problem \
                       documents (RFC 9457) with a stable `code`. Lists are answered a page at a time. Durations are \
                       integers of milliseconds, times are RFC 3339 in UTC, and ids and revisions are below 2^53.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    // The node that serves the document.
    servers((url = "/")),
    tags(
        (name = "cluster", description = "The members and their health. Answered without a quorum, too."),
        (name = "plans", description = "The actions of operators: planned, shown, then applied."),
        (name = "operations", description = "Plans being run. They outlive the node that runs them."),
        (name = "settings", description = "Configuration of the whole cluster: plain GET, PUT and DELETE, with ETags."),
        (name = "locks", description = "Leases with fencing tokens, and fair queues. A resource is safe if it stores the highest token that it has seen and refuses lower ones."),
        (name = "traffic", description = "Upstreams, their endpoints, and the routes that lead there. Configuration with ETags; states change by plans."),
        (name = "history", description = "The events and the audit."),
        (name = "node", description = "This node itself, for supervisors, load balancers and monitoring."),
        (name = "demo", description = "Chaos. Only in a demo."),
    ),
    components(schemas(Chaos, ClientMessage, Problem, ServerMessage))
)]
struct Frame;

/// The document of the API. It is made when it is first asked for.
#[derive(Debug)]
pub struct Description {
    rows: &'static [Row],
    document: OnceLock<Value>,
    text: OnceLock<Bytes>,
}

impl Description {
    pub fn of(rows: &'static [Row]) -> Self {
        Description { rows, document: OnceLock::new(), text: OnceLock::new() }
    }

    /// As JSON.
    pub fn document(&self) -> &Value {
        self.document.get_or_init(|| {
            let mut document = serde_json::to_value(describe(self.rows)).expect("a document is plain data");
            shape::shape(&mut document);
            document
        })
    }

    fn text(&self) -> Bytes {
        self.text.get_or_init(|| self.document().to_string().into()).clone()
    }
}

fn describe(rows: &[Row]) -> openapi::OpenApi {
    let mut document = Frame::openapi();
    let mut schemas = Vec::new();
    for row in rows {
        let (named, paths, _) = (row.describe)();
        schemas.extend(named);
        let operation = annotated(row, paths);
        // The router spells the tail of a path as `{*key}`, OpenAPI as `{key}`.
        let path = row.path.replace("{*", "{");
        document.paths.add_path_operation(path, vec![row.method.documented()], operation);
    }
    let components = document.components.get_or_insert_default();
    components.schemas.extend(schemas);
    for (_, schema) in components.schemas.iter_mut().filter(|(name, _)| PUT_BACK.contains(&name.as_str())) {
        if let RefOr::T(Schema::Object(object)) = schema {
            object.additional_properties = None;
        }
    }
    document
}

/// The annotation of a row's handler, with the permission of the row.
fn annotated(row: &Row, mut paths: openapi::Paths) -> openapi::path::Operation {
    let item = paths.paths.remove(row.path);
    let mut operation = item.and_then(|item| row.method.operation_of(item)).unwrap_or_else(|| {
        panic!("the annotation of the handler of {:?} {} names another method or path", row.method, row.path)
    });
    let permission = json!(row.policy.permission.as_str());
    operation.extensions.get_or_insert_default().insert("x-permission".to_owned(), permission);
    operation
}

/// The schemas that may hold other fields, because the body of a GET may be put back unchanged.
const PUT_BACK: &[&str] = &["Configured_Endpoint", "Configured_EndpointSpec", "EndpointSpec", "RouteSpec"];

/// The API as an OpenAPI document
///
/// A page that people can read is at `/docs`.
#[utoipa::path(
    get, path = "/openapi.json", tag = "node", operation_id = "openapi",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = Object), Refusals)
)]
pub async fn document(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], api.description.text()).into_response()
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

/// Every mutation takes an idempotency key, and what the client knows of its first attempt.
impl IntoParams for Write {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "The id of the request. A repeat under the same key gets the first answer again, and changes nothing.",
            ))
            .schema(Some(
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .min_length(Some(1))
                    .max_length(Some(ringmaster_cluster::requests::MAX_REQUEST_ID_BYTES)),
            ))
            .build();
        let resent_after = ParameterBuilder::new()
            .name("Ringmaster-Resent-After")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "For every attempt but the first under one Idempotency-Key: the latest `ringmaster-revision` that the \
                 client had seen before it sent the first one. Where the answer to the first may have been forgotten \
                 since, the request is refused with `outcome_unknown` and not carried out again.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0))))
            .build();
        vec![key, resent_after]
    }
}

#[cfg(test)]
mod tests;
