//! The parts of a request that handlers take, with errors of this API.

use crate::http::{
    SERVICE_DEADLINE, body,
    fingerprint::{Fingerprint, IDEMPOTENCY_KEY},
    problem::ApiError,
};
use axum::{
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use ringmaster_cluster::requests::MAX_REQUEST_ID_BYTES;
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
};
use ringmaster_net::clock;
use ringmaster_services::{
    ClientKind, Principal, ReadRequest, WriteRequest,
    cluster_group::Consistency,
    page::{DEFAULT_LIMIT, MAX_LIMIT, Paging},
};
use serde::{Deserialize, de::DeserializeOwned};
use std::{net::SocketAddr, str::FromStr};
use utoipa::IntoParams;

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        expect_json(request.headers())?;
        parse(&body::read(request).await?).map(JsonBody)
    }
}

/// A JSON body that may be left out, or be `null`.
#[derive(Debug)]
pub struct OptionalJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = expect_json(request.headers());
        let bytes = body::read(request).await?;
        if bytes.is_empty() {
            return Ok(OptionalJson(T::default()));
        }
        is_json?;
        let body: Option<T> = parse(&bytes)?;
        Ok(OptionalJson(body.unwrap_or_default()))
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let given = if kind.is_empty() { "none".to_owned() } else { format!("{kind:?}") };
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        format!("the body is JSON: send Content-Type: application/json, not {given}"),
    ))
}

/// Syntax errors have another code than values that do not fit.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let code = if error.is_data() { Code::InvalidRequest } else { Code::MalformedJson };
        ApiError::new(code, error.to_string())
    })
}

/// The only parameter of the path.
#[derive(Debug)]
pub struct PathId<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for PathId<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        parse_id(params.iter().next().map_or("", |(_, text)| text)).map(PathId)
    }
}

/// The two parameters of the path.
#[derive(Debug)]
pub struct PathIds<A, B>(pub A, pub B);

impl<S: Send + Sync, A: FromStr, B: FromStr> FromRequestParts<S> for PathIds<A, B> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        let mut texts = params.iter().map(|(_, text)| text);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        Ok(PathIds(parse_id(first)?, parse_id(second)?))
    }
}

async fn path_params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<RawPathParams, ApiError> {
    RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::new(Code::InvalidRequest, "the path is not valid UTF-8"))
}

fn parse_id<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::new(Code::InvalidRequest, format!("{text:?} is not an id")))
}

/// The query string.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(query)) => Ok(QueryOf(query)),
            Err(error) => Err(ApiError::new(Code::InvalidRequest, error.body_text())),
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
    #[param(min_length = 1)]
    pub cursor: Option<String>,
    /// How fresh the answer must be.
    #[param(inline)]
    pub consistency: Option<Consistency>,
}

impl PageQuery {
    /// The page that begins behind the cursor, or the first one, which begins behind `start`.
    pub fn paging<T: FromStr>(&self, start: T) -> Result<Paging<T>, Refusal> {
        Ok(Paging { limit: self.limit()?, after: self.cursor()?.unwrap_or(start) })
    }

    pub fn limit(&self) -> Result<usize, Refusal> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            limit => {
                Err(Refusal::new(Code::InvalidRequest, format!("limit is 1 to {MAX_LIMIT}, not {limit}")))
            }
        }
    }

    pub fn cursor<T: FromStr>(&self) -> Result<Option<T>, Refusal> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                let detail = format!("{text:?} is not a cursor; take it from `next` of a page");
                Refusal::new(Code::InvalidRequest, detail)
            })
        };
        self.cursor.as_ref().map(parse).transpose()
    }
}

/// Which state a single resource is read from.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReadQuery {
    /// How fresh the answer must be.
    #[param(inline)]
    pub consistency: Option<Consistency>,
}

/// The caller of a handler that reads.
#[derive(Clone, Copy, Debug)]
pub struct Caller(Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Caller(principal(parts)))
    }
}

impl Caller {
    /// A read for this caller: linearizable unless the request asks for another consistency.
    pub fn read(self, consistency: Option<Consistency>) -> ReadRequest {
        ReadRequest {
            principal: self.0,
            consistency: consistency.unwrap_or_default(),
            deadline: clock::now() + SERVICE_DEADLINE,
        }
    }
}

/// A request that changes something: its caller, its id and its deadline.
#[derive(Debug)]
pub struct Write(pub WriteRequest);

impl<S: Send + Sync> FromRequestParts<S> for Write {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let key = parts.headers.get(IDEMPOTENCY_KEY).map(|key| key.to_str().unwrap_or_default());
        if key.is_some_and(|key| key.is_empty() || key.len() > MAX_REQUEST_ID_BYTES) {
            return Err(ApiError::new(
                Code::InvalidRequest,
                format!("an Idempotency-Key has 1 to {MAX_REQUEST_ID_BYTES} visible ASCII characters"),
            ));
        }
        let resent_after = resent_after(&parts.headers)?;
        if resent_after.is_some() && key.is_none() {
            return Err(ApiError::new(
                Code::InvalidRequest,
                format!("{RESENT_AFTER} goes with the Idempotency-Key of the first attempt"),
            ));
        }
        let deadline = clock::now() + SERVICE_DEADLINE;
        let fingerprint = parts.extensions.get::<Fingerprint>().map(|Fingerprint(fingerprint)| *fingerprint);
        let request = WriteRequest::new(principal(parts), key.map(str::to_owned), deadline);
        Ok(Write(request.with_fingerprint(fingerprint).with_resent_after(resent_after)))
    }
}

/// The header of every attempt but the first: the latest revision that the client had seen before it sent the first one.
pub const RESENT_AFTER: &str = "ringmaster-resent-after";

fn resent_after(headers: &HeaderMap) -> Result<Option<Revision>, ApiError> {
    let Some(value) = headers.get(RESENT_AFTER) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.parse().ok());
    revision.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        ApiError::new(
            Code::InvalidRequest,
            format!("{RESENT_AFTER} is a revision, such as 412, not {value:?}"),
        )
    })
}

fn principal(parts: &Parts) -> Principal {
    let client = match parts.headers.get("ringmaster-client").map(|client| client.as_bytes()) {
        Some(b"dashboard") => ClientKind::Dashboard,
        Some(b"cli") => ClientKind::Cli,
        Some(b"node") => ClientKind::Node,
        _ => ClientKind::Api,
    };
    let addr = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(addr)| addr.ip());
    Principal::Anonymous { client, addr }
}
