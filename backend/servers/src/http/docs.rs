//! `/docs`: the OpenAPI document as a page to read, made by the node itself.
//!
//! It is plain HTML: no script and no external file, so the content security policy needs no exception. It is made of
//! the document alone, so the two cannot differ.

mod html;

use crate::http::{Api, openapi::problems};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::OnceLock;

const STYLE: &str = include_str!("docs/style.css");
const ICON: &str = include_str!("../../../../frontend/favicon.svg");

/// The API as a page to read
#[utoipa::path(
    get, path = "/docs", tag = "node", operation_id = "docs",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), PageRefusals)
)]
pub async fn page(State(api): State<Api>) -> Response {
    static PAGE: OnceLock<String> = OnceLock::new();
    let page = PAGE.get_or_init(|| html::page(api.description.document()));
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.as_str()).into_response()
}

problems!(PageRefusals: []);

/// What that page looks like
#[utoipa::path(
    get, path = "/docs/style.css", tag = "node", operation_id = "docs_style",
    responses((status = 200, description = "The style sheet", body = String, content_type = "text/css"), StyleRefusals)
)]
pub async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

problems!(StyleRefusals: []);

/// The icon of that page
#[utoipa::path(
    get, path = "/docs/icon.svg", tag = "node", operation_id = "docs_icon",
    responses((status = 200, description = "The icon", body = String, content_type = "image/svg+xml"), IconRefusals)
)]
pub async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], ICON).into_response()
}

problems!(IconRefusals: []);
