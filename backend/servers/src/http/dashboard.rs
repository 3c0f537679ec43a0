//! The dashboard's files, built into the binary.
//!
//! The name of an asset holds a hash of its content, so a browser may keep it for ever; the page itself is fetched
//! each time. Every path below one of [`PAGES`] is the page: the dashboard routes on its own, so a link into it can
//! be opened anywhere. Every other path is not found, so that a probe of a wrong path does not report success.

use crate::http::{Api, problem::ApiError};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use ringmaster_common::error::Code;
use std::borrow::Cow;

/// A file of the dashboard.
#[derive(Debug)]
pub struct File {
    pub content: Cow<'static, [u8]>,
    pub media_type: String,
}

/// Finds a file of the dashboard by its name. The Brotli form of `x` is `x.br`. The files come from the composition of
/// the node, so that this crate and the dashboard are compiled side by side.
pub type Files = fn(name: &str) -> Option<File>;

/// The first parts of the dashboard's paths; its front page is at the root.
const PAGES: [&str; 10] =
    ["", "nodes", "consensus", "traffic", "locks", "operations", "plans", "events", "audit", "settings"];
const PAGE: &str = "index.html";
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

pub async fn asset(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path().trim_start_matches('/');
    let unknown = || ApiError::new(Code::UnknownRoute, format!("there is nothing at /{path}"));
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(ApiError::new(
            Code::MethodNotAllowed,
            format!("/{path} takes GET, not {}", request.method()),
        ));
    }
    let is_page = path.split('/').next().is_some_and(|first| PAGES.contains(&first));
    let name = if is_page { PAGE } else { path };
    serve(api.dashboard, name, request.headers()).ok_or_else(unknown)
}

fn serve(find: Files, name: &str, headers: &HeaderMap) -> Option<Response> {
    let plain = find(name)?;
    let kind = HeaderValue::from_str(&plain.media_type).ok()?;
    let cache = if name.starts_with("assets/") { IMMUTABLE } else { REVALIDATE };
    let compressed = accepts_brotli(headers).then(|| find(&format!("{name}.br"))).flatten();
    let encoding =
        compressed.is_some().then_some([(header::CONTENT_ENCODING, HeaderValue::from_static("br"))]);
    let content = compressed.unwrap_or(plain).content;
    let fixed = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, cache),
        (header::VARY, HeaderValue::from_static("accept-encoding")),
    ];
    let mut response = (fixed, content.into_owned()).into_response();
    response.headers_mut().extend(encoding.into_iter().flatten());
    Some(response)
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("br") && parts.all(|quality| !matches!(quality, "q=0" | "q=0.0"))
        })
}
