//! The body of a request on its way to the endpoint, concurrently with the response: an endpoint may respond before it
//! has all of the body.

use crate::{
    coarse_clock::CoarseInstant,
    error::UpstreamError,
    prepare::body_too_large,
    table::Route,
    timer::{Deadline, Timer, WaitError},
    wire::head::malformed,
};
use ringmaster_common::error::{Code, Refusal};
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

/// How long the proxy waits for a response after the endpoint closed its side for the request.
pub const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a body may take whose bytes keep coming.
const MAX_UPLOAD: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Upload<'a> {
    in_flight: Option<Pin<Box<dyn Future<Output = UploadEnd> + Send + 'a>>>,
    pub end: UploadEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadEnd {
    Complete,
    ClientClosed,
    EndpointClosed,
    TooLarge,
    Malformed,
    TimedOut,
}

impl UploadEnd {
    /// What that means for a request without a response. `idle` is how long the client may pause.
    pub fn check(self, route: &Route, idle: Duration) -> Result<(), UpstreamError> {
        match self {
            // An endpoint that reads no more may have responded.
            UploadEnd::Complete | UploadEnd::EndpointClosed => Ok(()),
            UploadEnd::ClientClosed => Err(UpstreamError::ClientClosed),
            UploadEnd::TooLarge => Err(UpstreamError::BadRequest(body_too_large(route))),
            UploadEnd::Malformed => {
                Err(UpstreamError::BadRequest(malformed("the framing of the body is malformed")))
            }
            UploadEnd::TimedOut => {
                let detail = format!("no byte of the body arrived within {} ms", idle.as_millis());
                Err(UpstreamError::BadRequest(Refusal::new(Code::RequestTimeout, detail)))
            }
        }
    }
}

impl<'a> Upload<'a> {
    /// Of a request without a body.
    pub fn none() -> Upload<'a> {
        Upload { in_flight: None, end: UploadEnd::Complete }
    }

    pub fn begin(sending: impl Future<Output = UploadEnd> + Send + 'a) -> Upload<'a> {
        Upload { in_flight: Some(Box::pin(sending)), end: UploadEnd::Complete }
    }

    pub fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Ready when it ends, once.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sending) = &mut self.in_flight
            && let Poll::Ready(end) = sending.as_mut().poll(context)
        {
            (self.in_flight, self.end) = (None, end);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Does `work`, and sends meanwhile.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Its end is looked at once the work is done.
            let _ = self.poll(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// The same, but returns none as soon as the body has ended; `deadline` begins only then.
    pub async fn or<T>(
        &mut self,
        timer: &mut Timer,
        deadline: &mut Deadline,
        cancelled: impl Fn(CoarseInstant) -> bool,
        work: impl Future<Output = T>,
    ) -> Option<Result<T, WaitError>> {
        if !self.is_in_flight() {
            return Some(timer.within(deadline, cancelled, work).await);
        }
        // Each of its reads and writes has a deadline of its own.
        let mut longest = Deadline::after(MAX_UPLOAD);
        let mut work = pin!(work);
        let either = poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(context).map(|()| None),
        });
        timer.within(&mut longest, cancelled, either).await.transpose()
    }

    pub fn is_complete(&self) -> bool {
        !self.is_in_flight() && self.end == UploadEnd::Complete
    }
}
