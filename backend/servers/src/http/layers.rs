//! The way of every request to its handler and of every response back: origin check, admission, time limit, headers
//! and metrics, as the request's row of the route table says.
//!
//! It is one wrapper around each handler instead of layers of a router: a router clones and boxes each layer for
//! each request, and most of this needs no `await`.

use crate::http::{
    Api, REQUEST_TIMEOUT, fingerprint,
    guard::{self, OriginCheck},
    metrics,
    policy::{Admit, Policy, TimeLimit},
    problem::{self, ApiError},
};
use axum::{
    extract::Request,
    handler::Handler,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ringmaster_common::error::Code;
use ringmaster_net::clock;
use ringmaster_services::{ServiceError, admission::Admitted};
use std::{future::ready, pin::Pin, time::Instant};
use tokio::time::timeout;

type Responding = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler under the policy of its row.
#[derive(Clone, Copy, Debug)]
pub struct Layered<H> {
    pub policy: &'static Policy,
    pub handler: H,
}

impl<H, T> Handler<T, Api> for Layered<H>
where
    H: Handler<T, Api, Future = Responding>,
{
    type Future = Responding;

    fn call(self, request: Request, api: Api) -> Responding {
        let mut exchange = Exchange::begin(self.policy, &request);
        match exchange.receive(&api, &request) {
            Next::Handle(admitted) => {
                let handling = handling(self.handler, request, api.clone());
                Box::pin(exchange.handle(api, admitted, handling))
            }
            Next::Discard(length, admitted) => {
                let discarding = Box::pin(problem::discard(request, length));
                Box::pin(exchange.handle(api, admitted, discarding))
            }
            Next::Respond(response) => Box::pin(ready(exchange.finish(&api, response))),
        }
    }
}

/// The handler's response. A request that may be repeated gets its fingerprint first.
fn handling<H, T>(handler: H, request: Request, api: Api) -> Responding
where
    H: Handler<T, Api, Future = Responding>,
{
    if !fingerprint::is_repeatable(&request) {
        return handler.call(request, api);
    }
    Box::pin(async move {
        match fingerprint::add(request).await {
            Ok(request) => handler.call(request, api).await,
            Err(error) => error.into_response(),
        }
    })
}

/// A request on its way, without the request itself: the handler has that.
#[derive(Debug)]
struct Exchange {
    policy: &'static Policy,
    method: &'static str,
    began: Instant,
    /// None where the origin was refused, and as long as it is not checked.
    origin: Option<OriginCheck>,
}

/// What comes after a request was received.
enum Next {
    Handle(Option<Admitted>),
    /// The body is too long: it has this length.
    Discard(u64, Option<Admitted>),
    Respond(Response),
}

impl Exchange {
    fn begin(policy: &'static Policy, request: &Request) -> Exchange {
        let method = metrics::method_label(request.method());
        Exchange { policy, method, began: clock::now(), origin: None }
    }

    fn receive(&mut self, api: &Api, request: &Request) -> Next {
        let origin = match OriginCheck::of(api, request) {
            Ok(origin) => self.origin.insert(origin),
            Err(refused) => return Next::Respond(refused.into_response()),
        };
        if origin.is_preflight() {
            return Next::Respond(StatusCode::NO_CONTENT.into_response());
        }
        let admitted = match self.policy.admit {
            Admit::In(class) => match api.services.admission.enter(class) {
                Ok(admitted) => Some(admitted),
                Err(overloaded) => {
                    let error = ApiError::from(ServiceError::from(overloaded));
                    return Next::Respond(error.into_last_response());
                }
            },
            Admit::ByService | Admit::Always => None,
        };
        match problem::too_large(request) {
            Some(length) => Next::Discard(length, admitted),
            None => Next::Handle(admitted),
        }
    }

    async fn handle(self, api: Api, admitted: Option<Admitted>, handling: Responding) -> Response {
        let handling = problem::without_panic(handling);
        let response = match self.policy.time_limit {
            TimeLimit::OfTheRequest => handling.await,
            TimeLimit::Standard => timeout(REQUEST_TIMEOUT, handling).await.unwrap_or_else(|_| {
                let detail = format!("the response did not begin within {} s", REQUEST_TIMEOUT.as_secs());
                ApiError::new(Code::RequestTimeout, detail).into_response()
            }),
        };
        drop(admitted);
        self.finish(&api, response)
    }

    fn finish(self, api: &Api, mut response: Response) -> Response {
        if let Some(origin) = self.origin {
            origin.apply_cors(response.headers_mut());
        }
        guard::set_security_headers(api, response.headers_mut());
        let took = clock::now().saturating_duration_since(self.began);
        api.metrics.record_request(self.policy.route, self.method, response.status().as_u16(), took);
        response
    }
}
