//! The body of a request, as a whole.

use crate::http::{max_body_bytes, problem::ApiError};
use axum::{
    body::{Bytes, to_bytes},
    extract::Request,
};
use ringmaster_common::error::Code;

pub async fn read(request: Request) -> Result<Bytes, ApiError> {
    let limit = max_body_bytes(request.uri());
    to_bytes(request.into_body(), limit).await.map_err(|_| {
        ApiError::new(
            Code::BodyTooLarge,
            format!("the body did not arrive whole; the limit is {limit} bytes"),
        )
    })
}
