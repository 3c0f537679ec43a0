//! The way of every request to its handler and of every response back: origin check, admission, time limit, headers
//! and metrics, as the request's row of the route table says.
//!
//! It is one wrapper around each handler instead of layers of a router: a router clones and boxes each layer for
//! each request, and most of this needs no `await`.

use crate::http::{
    Api, MAX_BODY_BYTES, REQUEST_TIMEOUT, body, fingerprint,
    guard::{self, OriginCheck},
    metrics,
    policy::{Admit, Policy, TimeLimit},
    problem::{self, ApiError},
    server::Reserved,
};
use axum::{
    extract::Request,
    handler::Handler,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ringmaster_common::error::Code;
use ringmaster_net::clock;
use ringmaster_services::{
    ServiceError,
    admission::{Admitted, Overloaded},
};
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
            Next::Handle(Permits { admitted, intake }) => {
                let handling = handling(self.handler, request, api.clone(), self.policy, intake);
                Box::pin(exchange.handle(api, admitted, handling))
            }
            Next::Discard(length, permits) => {
                let most = self.policy.max_body_bytes();
                let discarding = Box::pin(problem::discard(request, length, most));
                Box::pin(exchange.handle(api, permits.admitted.or(permits.intake), discarding))
            }
            Next::Respond(response) => Box::pin(ready(exchange.finish(&api, response))),
        }
    }
}

/// The handler's response. The body is awaited first where the request may be repeated, for its fingerprint, and where
/// the request is in a class of its own until then.
fn handling<H, T>(
    handler: H,
    mut request: Request,
    api: Api,
    policy: &'static Policy,
    intake: Option<Admitted>,
) -> Responding
where
    H: Handler<T, Api, Future = Responding>,
{
    let most = policy.max_body_bytes();
    if most != MAX_BODY_BYTES {
        request.extensions_mut().insert(body::Limit(most));
    }
    if !fingerprint::is_repeatable(request.headers()) && intake.is_none() {
        return handler.call(request, api);
    }
    Box::pin(async move {
        let received = body::receive(request).await;
        drop(intake);
        match received {
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
    Handle(Permits),
    /// The body is too long: it has this length.
    Discard(u64, Permits),
    Respond(Response),
}

/// What a request was admitted to: until its response begins, and until its body has arrived.
#[derive(Default)]
struct Permits {
    admitted: Option<Admitted>,
    intake: Option<Admitted>,
}

impl Exchange {
    fn begin(policy: &'static Policy, request: &Request) -> Exchange {
        let method = metrics::method_label(request.method());
        Exchange { policy, method, began: clock::now(), origin: None }
    }

    fn receive(&mut self, api: &Api, request: &Request) -> Next {
        let origin = match OriginCheck::of(api, self.policy, request) {
            Ok(origin) => self.origin.insert(origin),
            Err(refused) => return Next::Respond(refused.into_response()),
        };
        if origin.is_preflight() {
            return Next::Respond(StatusCode::NO_CONTENT.into_response());
        }
        if let Some(Reserved { connections }) = request.extensions().get()
            && !self.policy.is_of_reserve()
        {
            return Next::Respond(problem::no_connection_left(*connections).into_last_response());
        }
        let permits = match self.admit(api) {
            Ok(permits) => permits,
            Err(overloaded) => {
                let error = ApiError::from(ServiceError::from(overloaded));
                return Next::Respond(error.into_last_response());
            }
        };
        match problem::too_large(request, self.policy.max_body_bytes()) {
            Some(length) => Next::Discard(length, permits),
            None => Next::Handle(permits),
        }
    }

    fn admit(&self, api: &Api) -> Result<Permits, Overloaded> {
        let enter = |class| api.services.admission.enter(class).map(Some);
        Ok(match self.policy.admit {
            Admit::In(class) => Permits { admitted: enter(class)?, intake: None },
            Admit::AfterBody(class) => Permits { admitted: None, intake: enter(class)? },
            Admit::ByService | Admit::Always => Permits::default(),
        })
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
