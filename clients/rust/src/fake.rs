//! Scripted nodes for tests.

use crate::Address;
use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ringmaster_common::error::{Code, Problem, Refusal};
use tokio::net::TcpListener;

/// Serves `router` on a free port until the test's runtime ends.
pub async fn serve(router: Router) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// An address without a listener.
pub async fn unused_address() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

pub fn problem(code: Code, detail: &str) -> Response {
    let problem = Problem::from(Refusal::new(code, detail));
    (StatusCode::from_u16(problem.status).unwrap(), Json(problem)).into_response()
}
