//! One row of the route table.

use crate::http::{Api, policy::Policy};
use axum::routing::{MethodFilter, MethodRouter};
use utoipa::openapi::{HttpMethod, PathItem, path::Operation};
use utoipa_axum::router::UtoipaMethodRouter;

/// One route.
#[derive(Debug)]
pub struct Row {
    pub method: Method,
    /// As the router spells it: `{*key}` takes the rest of the path.
    pub path: &'static str,
    pub policy: Policy,
    /// The handler under its policy.
    pub serve: fn(&'static Row) -> MethodRouter<Api>,
    /// The description of the handler by its annotation.
    pub describe: fn() -> UtoipaMethodRouter<Api>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Put,
    Post,
    Delete,
}

impl Method {
    pub fn filter(self) -> MethodFilter {
        match self {
            Method::Get => MethodFilter::GET,
            Method::Put => MethodFilter::PUT,
            Method::Post => MethodFilter::POST,
            Method::Delete => MethodFilter::DELETE,
        }
    }

    /// The description of this method of a path.
    pub fn operation_of(self, path: PathItem) -> Option<Operation> {
        match self {
            Method::Get => path.get,
            Method::Put => path.put,
            Method::Post => path.post,
            Method::Delete => path.delete,
        }
    }

    pub fn documented(self) -> HttpMethod {
        match self {
            Method::Get => HttpMethod::Get,
            Method::Put => HttpMethod::Put,
            Method::Post => HttpMethod::Post,
            Method::Delete => HttpMethod::Delete,
        }
    }
}
