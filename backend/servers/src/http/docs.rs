//! `/docs`: the OpenAPI document as a page to read, made by the node itself.
//!
//! It is plain HTML: no script, nothing from elsewhere, nothing that the content security policy would
//! have to allow. What it shows is read from the document alone, so it cannot say anything else.

mod html;

use crate::http::openapi::{DOCUMENT, problems};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use std::sync::LazyLock;

static PAGE: LazyLock<String> = LazyLock::new(|| html::page(&DOCUMENT));
const STYLE: &str = include_str!("docs/style.css");
const ICON: &str = include_str!("../../../../frontend/favicon.svg");

/// The API as a page to read
#[utoipa::path(
    get, path = "/docs", tag = "node", operation_id = "docs",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), PageRefusals)
)]
pub async fn page() -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE.as_str()).into_response()
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
