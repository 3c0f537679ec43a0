//! Sends one request and its response chunk by chunk, if either side speaks HTTP/2. What one protocol knows and the
//! other does not is left out.
//!
//! Both directions run at once, for as long as anything moves: a gRPC stream may get its response before its request
//! has ended, and one direction may be silent for long. A chunk is taken from one side only once the other side has
//! taken the chunk before, so a slow reader holds up its own writer and no other.

use crate::{
    attempt::Attempt,
    coarse_clock::CoarseInstant,
    error::UpstreamError,
    forward::Response,
    outcome::ResponseEnd,
    prepare::PreparedRequest,
    replay::Replay,
    table::Route,
    timer::{Deadline, Timer, WaitError},
    upload::{EARLY_RESPONSE_TIMEOUT, Upload, UploadEnd},
    wire::{
        head::Framing,
        headers,
        message::{BodyChunk, BodySink, BodySource, ResponseSource, StreamError},
    },
};
use hyper::http::response::Parts;
use std::{
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

/// Where the client's response goes.
pub trait ResponseSink: BodySink {
    /// `bare`: there is no body. `sticky` names the endpoint to come back to. `is_sent`: nothing of the request is still to
    /// come.
    fn head(
        &mut self,
        head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
        is_sent: bool,
    ) -> impl Future<Output = Result<(), StreamError>> + Send;

    /// Ready once the client waits no more.
    fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

#[derive(Clone, Copy, Debug)]
pub struct RelayContext<'a> {
    pub request: &'a PreparedRequest<'a>,
    pub attempt: &'a Attempt<'a>,
}

#[derive(Debug)]
pub struct RelayOutcome {
    pub response: Response,
    /// The endpoint has all of the request.
    pub is_sent: bool,
}

enum Step {
    /// The body of the request has ended.
    RequestEnded,
    ResponseStarted,
    ResponseEnded(Result<ResponseEnd, UpstreamError>),
}

#[derive(Debug)]
struct Progress {
    /// Of the response; 0 before its head.
    status: AtomicU16,
    latency_micros: AtomicU64,
    /// The [`CoarseInstant`] when something last moved.
    moved: AtomicU64,
    /// The next chunk of the response is waited for from the endpoint.
    waits_for_endpoint: AtomicBool,
    /// The endpoint has all of the request.
    is_sent: AtomicBool,
}

impl Progress {
    fn new(has_body: bool) -> Progress {
        Progress {
            status: AtomicU16::new(0),
            latency_micros: AtomicU64::new(0),
            moved: AtomicU64::new(CoarseInstant::now().0),
            waits_for_endpoint: AtomicBool::new(false),
            is_sent: AtomicBool::new(!has_body),
        }
    }

    fn moves(&self) {
        self.moved.store(CoarseInstant::now().0, Relaxed);
    }

    fn has_response(&self) -> bool {
        self.status.load(Relaxed) != 0
    }

    fn outcome(&self, end: ResponseEnd, is_sent: bool) -> RelayOutcome {
        let latency = Duration::from_micros(self.latency_micros.load(Relaxed));
        let response =
            Response { status: self.status.load(Relaxed), latency, end, idle: None, is_switched: false };
        RelayOutcome { response, is_sent }
    }
}

/// Sends the body behind a head that was sent, and the response to the client. `replay` has what was taken of the body by
/// earlier attempts.
pub async fn relay(
    context: &RelayContext<'_>,
    body: &mut impl BodySource,
    replay: &mut Replay,
    mut endpoint: impl BodySink,
    response: &mut impl ResponseSource,
    client: &mut impl ResponseSink,
    timer: &mut Timer,
) -> Result<RelayOutcome, UpstreamError> {
    let RelayContext { request, attempt } = *context;
    let timeouts = &attempt.upstream.config.timeouts;
    let idle = Duration::from_millis(timeouts.idle_ms);
    let response_timeout = Duration::from_millis(timeouts.response_ms);
    let progress = Progress::new(request.framing != Framing::Empty);
    let mut upload = match request.framing {
        Framing::Empty => Upload::none(),
        _ => {
            replay.rewind();
            Upload::begin(send_request(body, replay, &mut endpoint, request.route, &progress))
        }
    };
    let mut deadline = Deadline::after(if upload.is_in_flight() { idle } else { response_timeout });
    let mut responding = pin!(send_response(context, response, client, &progress));
    let cancelled = |now| attempt.endpoint().is_past_drain_deadline(now);
    let mut started = false;
    let error = loop {
        let step = poll_fn(|context| match upload.poll(context) {
            Poll::Ready(()) => Poll::Ready(Step::RequestEnded),
            Poll::Pending => match responding.as_mut().poll(context) {
                Poll::Ready(end) => Poll::Ready(Step::ResponseEnded(end)),
                Poll::Pending if progress.has_response() && !started => Poll::Ready(Step::ResponseStarted),
                Poll::Pending => Poll::Pending,
            },
        });
        match timer.within(&mut deadline, cancelled, step).await {
            Ok(Step::ResponseEnded(Ok(end))) => return Ok(progress.outcome(end, upload.is_complete())),
            Ok(Step::ResponseEnded(Err(error))) => break error,
            Ok(Step::ResponseStarted) => {
                started = true;
                deadline = Deadline::after(idle);
            }
            Ok(Step::RequestEnded) if progress.has_response() => {
                if !matches!(upload.end, UploadEnd::Complete | UploadEnd::EndpointClosed) {
                    return Ok(progress.outcome(ResponseEnd::Abandoned, false));
                }
            }
            Ok(Step::RequestEnded) => {
                upload.end.check(request.route, idle)?;
                let closed = upload.end == UploadEnd::EndpointClosed;
                deadline = Deadline::after(if closed { EARLY_RESPONSE_TIMEOUT } else { response_timeout });
            }
            Err(late) => {
                let waits = !progress.has_response() && !upload.is_in_flight();
                let quiet = CoarseInstant::now().since(CoarseInstant(progress.moved.load(Relaxed)));
                if late == WaitError::TimedOut && !waits && quiet < idle {
                    deadline = Deadline::after(idle - quiet);
                } else if progress.has_response() {
                    // The endpoint may wait for what the client does not send.
                    let is_endpoints = late == WaitError::TimedOut
                        && progress.waits_for_endpoint.load(Relaxed)
                        && upload.is_complete();
                    let end = if is_endpoints { ResponseEnd::TimedOut } else { ResponseEnd::Abandoned };
                    return Ok(progress.outcome(end, false));
                } else if late == WaitError::TimedOut && !waits {
                    UploadEnd::TimedOut.check(request.route, idle)?;
                } else {
                    break UpstreamError::late(late, "no response", deadline.limit());
                }
            }
        }
    };
    drop(upload);
    // What was taken of a body and not kept cannot be sent again.
    Err(match error {
        UpstreamError::Unprocessed(why) if !replay.is_whole() => UpstreamError::NoResponse(why),
        error => error,
    })
}

async fn send_request(
    body: &mut impl BodySource,
    replay: &mut Replay,
    endpoint: &mut impl BodySink,
    route: &Route,
    progress: &Progress,
) -> UploadEnd {
    let mut content = 0u64;
    loop {
        if progress.has_response() {
            replay.forget();
        }
        match replay.chunk(body).await {
            Ok(BodyChunk::Data(data)) => {
                content += data.len() as u64;
                if content > route.spec.max_body_bytes {
                    return UploadEnd::TooLarge;
                }
                if endpoint.data(data).await.is_err() {
                    return UploadEnd::EndpointClosed;
                }
                progress.moves();
            }
            Ok(BodyChunk::End(trailers)) => {
                let trailers = trailers.map(|all| headers::without(all, &route.spec.set_request_headers));
                if endpoint.end(trailers).await.is_err() {
                    return UploadEnd::EndpointClosed;
                }
                progress.is_sent.store(true, Relaxed);
                return UploadEnd::Complete;
            }
            Err(StreamError::Closed) => return UploadEnd::ClientClosed,
            Err(StreamError::Malformed) => return UploadEnd::Malformed,
        }
    }
}

async fn send_response(
    context: &RelayContext<'_>,
    response: &mut impl ResponseSource,
    client: &mut impl ResponseSink,
    progress: &Progress,
) -> Result<ResponseEnd, UpstreamError> {
    let RelayContext { request, attempt } = *context;
    let head = unless_closed(client, response.head()).await.ok_or(UpstreamError::ClientClosed)?;
    let (head, bare) = head?;
    let latency = attempt.response_started();
    progress.latency_micros.store(latency.as_micros() as u64, Relaxed);
    progress.status.store(head.status.as_u16(), Relaxed);
    progress.moves();
    let is_sent = progress.is_sent.load(Relaxed);
    Ok(match client.head(head, bare, request.route, attempt.sticky, is_sent).await {
        Ok(()) if bare => ResponseEnd::Complete,
        Ok(()) => send_body(response, client, progress).await,
        Err(_) => ResponseEnd::Abandoned,
    })
}

async fn send_body(
    response: &mut impl ResponseSource,
    client: &mut impl ResponseSink,
    progress: &Progress,
) -> ResponseEnd {
    loop {
        progress.waits_for_endpoint.store(true, Relaxed);
        let chunk = unless_closed(client, response.chunk()).await;
        progress.waits_for_endpoint.store(false, Relaxed);
        let sent = match chunk {
            Some(Ok(BodyChunk::Data(data))) => client.data(data).await,
            Some(Ok(BodyChunk::End(trailers))) => match client.end(trailers).await {
                Ok(()) => return ResponseEnd::Complete,
                error => error,
            },
            Some(Err(_)) => return ResponseEnd::Truncated,
            None => return ResponseEnd::Abandoned,
        };
        progress.moves();
        match sent {
            Ok(()) => {}
            Err(StreamError::Closed) => return ResponseEnd::Abandoned,
            // A body behind a response that has none.
            Err(StreamError::Malformed) => return ResponseEnd::Truncated,
        }
    }
}

async fn unless_closed<T>(client: &mut impl ResponseSink, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => client.poll_closed(context).map(|()| None),
    })
    .await
}
