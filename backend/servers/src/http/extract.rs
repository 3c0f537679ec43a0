//! What handlers take from a request, with errors of ours.

use crate::http::{MAX_BODY_BYTES, REQUEST_TIMEOUT, WRITE_DEADLINE, marks, problem::Refused};
use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use ringmaster_cluster::{
    command::{Actor, Request as CommandRequest},
    requests::MAX_REQUEST_ID_BYTES,
};
use ringmaster_cluster_group::Consistency;
use ringmaster_common::{
    error::{Code, Refusal},
    page::Page,
};
use ringmaster_net::clock;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    net::SocketAddr,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::time::timeout;
use utoipa::IntoParams;

/// How many items a page has unless the client asks for fewer or more.
pub const DEFAULT_LIMIT: usize = 100;
/// How many items a page has at the most.
pub const MAX_LIMIT: usize = 1000;

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        expect_json(request.headers())?;
        let arrived = timeout(REQUEST_TIMEOUT, Bytes::from_request(request, state)).await;
        let bytes = arrived
            .map_err(|_| Refused::new(Code::RequestTimeout, "the body did not arrive in time"))?
            .map_err(|_| {
                Refused::new(
                    Code::BodyTooLarge,
                    format!("the body did not arrive whole; it may have {MAX_BODY_BYTES} bytes"),
                )
            })?;
        parse(&bytes).map(JsonBody)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let (parts, body) = request.into_parts();
        let headers = parts.headers.clone();
        let bytes =
            Bytes::from_request(Request::from_parts(parts, Body::new(body)), state).await.map_err(|_| {
                Refused::new(
                    Code::BodyTooLarge,
                    format!("the body did not arrive whole; it may have {MAX_BODY_BYTES} bytes"),
                )
            })?;
        if bytes.is_empty() {
            return Ok(OptionalJson(T::default()));
        }
        expect_json(&headers)?;
        parse(&bytes).map(OptionalJson)
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let given = if kind.is_empty() { "none".to_owned() } else { format!("{kind:?}") };
    Err(Refused::new(
        Code::UnsupportedMediaType,
        format!("the body is JSON: send Content-Type: application/json, not {given}"),
    ))
}

/// Syntax errors are told apart from values that do not fit.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::MalformedJson };
        Refused::new(code, error.to_string())
    })
}

/// The only parameter of the path.
#[derive(Debug)]
pub struct PathId<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for PathId<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Refused::new(Code::InvalidRequest, "the path is not valid UTF-8"))?;
        let text = params.iter().next().map_or("", |(_, text)| text);
        text.parse()
            .map(PathId)
            .map_err(|_| Refused::new(Code::InvalidRequest, format!("{text:?} is not an id")))
    }
}

/// The query string.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(QueryOf(query)),
            Err(error) => Err(Refused::new(Code::InvalidRequest, error.body_text())),
        }
    }
}

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items the page may have.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
    /// Where the page begins: `next` of the page before it.
    pub cursor: Option<String>,
    /// How fresh the answer must be.
    #[param(inline)]
    pub consistency: Option<Consistency>,
}

impl PageQuery {
    pub fn limit(&self) -> Result<usize, Refusal> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            limit => {
                Err(Refusal::new(Code::InvalidRequest, format!("limit is 1 to {MAX_LIMIT}, not {limit}")))
            }
        }
    }

    /// The cursor, or `start` for the first page.
    pub fn cursor<T: FromStr>(&self, start: T) -> Result<T, Refusal> {
        match &self.cursor {
            None => Ok(start),
            Some(text) => text.parse().map_err(|_| {
                Refusal::new(
                    Code::InvalidRequest,
                    format!("{text:?} is not a cursor; take it from `next` of a page"),
                )
            }),
        }
    }
}

/// Cuts a page off the rest of a list. The cursor is made from the last item of the page.
pub fn page<T>(mut rest: impl Iterator<Item = T>, limit: usize, cursor: impl Fn(&T) -> String) -> Page<T> {
    let items: Vec<T> = rest.by_ref().take(limit).collect();
    let next = if rest.next().is_some() { items.last().map(cursor) } else { None };
    Page { items, next }
}

/// Which state a single resource is read from.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// How fresh the answer must be.
    #[param(inline)]
    pub consistency: Option<Consistency>,
}

/// A mutation: who asks, under which id, and until when.
#[derive(Debug)]
pub struct Mutation {
    pub request: CommandRequest,
    pub deadline: Instant,
}

impl<S: Send + Sync> FromRequestParts<S> for Mutation {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let key = parts.headers.get("idempotency-key").map(|key| key.to_str().unwrap_or_default());
        if let Some(key) = key
            && (key.is_empty() || key.len() > MAX_REQUEST_ID_BYTES)
        {
            return Err(Refused::new(
                Code::InvalidRequest,
                format!("an Idempotency-Key has 1 to {MAX_REQUEST_ID_BYTES} visible ASCII characters"),
            ));
        }
        let id = key.map_or_else(made_up_id, str::to_owned);
        marks::changes_under(&id);
        Ok(Mutation {
            request: CommandRequest {
                repeatable: key.is_some(),
                resent_after: None,
                id,
                actor: Actor::Operator(actor(parts)),
            },
            deadline: clock::now() + WRITE_DEADLINE,
        })
    }
}

/// The id of a request whose client chose none: a UUID of this process and a count. So those of one process
/// follow each other, and what is written about them lies side by side.
fn made_up_id() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(rand::random);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let bytes = (u128::from(*PROCESS) << 64 | u128::from(count)).to_be_bytes();
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// How the audit names who asks: by what they use and where they are. Nobody is authenticated yet,
/// and a name that anybody can claim would be worse than none.
fn actor(parts: &Parts) -> String {
    let client = match parts.headers.get("ringmaster-client").map(|client| client.as_bytes()) {
        Some(b"dashboard") => "dashboard",
        Some(b"cli") => "cli",
        Some(b"node") => "node",
        _ => "api",
    };
    match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(addr)) => format!("{client}@{}", addr.ip()),
        None => client.to_owned(),
    }
}
