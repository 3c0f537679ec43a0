//! The body of a request, as a whole.

use crate::http::{MAX_BODY_BYTES, problem::ApiError};
use axum::{
    body::{Bytes, to_bytes},
    extract::Request,
};
use ringmaster_common::error::Code;

pub async fn read(request: Request) -> Result<Bytes, ApiError> {
    to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|_| {
        ApiError::new(
            Code::BodyTooLarge,
            format!("the body did not arrive whole; the limit is {MAX_BODY_BYTES} bytes"),
        )
    })
}
