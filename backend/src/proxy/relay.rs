//! One request and its answer, where either side speaks HTTP/2: bodies go on piece by piece, and what one
//! protocol knows and the other does not is left out.
//!
//! Both ways go on at once, for as long as anything moves: a stream of gRPC may be answered before it has
//! ended, and be silent for long in one direction. A piece is taken from one side only once the other has
//! taken the one before, so a slow reader holds up its writer and nobody else.

use super::{
    ask::Ask,
    attempt::Attempt,
    course::{Course, Failure},
    head::Framing,
    moment::Moment,
    table::Route,
    timer::{Deadline, Late, Timer},
    upload::{LAST_WORDS, Sent, Upload},
};
use bytes::Bytes;
use hyper::{HeaderMap, http::response::Parts};
use std::{
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

/// What a body comes in.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    /// With trailers, where there are any.
    End(Option<HeaderMap>),
}

/// A side is gone before its time, or makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    Gone,
    Malformed,
}

/// Where a body comes from.
pub trait Source: Send {
    fn piece(&mut self) -> impl Future<Output = Result<Piece, Torn>> + Send;
}

/// Where a body goes. It is ready again once the other side has room.
pub trait Sink: Send {
    fn data(&mut self, data: Bytes) -> impl Future<Output = Result<(), Torn>> + Send;
    fn end(&mut self, trailers: Option<HeaderMap>) -> impl Future<Output = Result<(), Torn>> + Send;
}

/// An endpoint's answer: first its head, then its body.
pub trait Answer: Source {
    /// Without what belongs to the connection alone; and whether that was all.
    fn head(&mut self) -> impl Future<Output = Result<(Parts, bool), Failure>> + Send;
}

/// What a client is told.
pub trait Reply: Sink {
    /// `bare`: nothing follows. `sticky` names the endpoint to come back to.
    fn head(
        &mut self,
        head: Parts,
        bare: bool,
        route: &Route,
        sticky: Option<u64>,
    ) -> impl Future<Output = Result<(), Torn>> + Send;

    /// Ready once the client does not wait any more.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// What is carried, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub ask: &'a Ask<'a>,
    pub attempt: &'a Attempt<'a>,
    pub course: &'a Course<'a>,
    /// Method and path.
    pub line: &'a [u8],
}

/// An answer that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// The client has all of it.
    pub whole: bool,
    /// The endpoint has all of the request.
    pub sent: bool,
}

/// How far it has come.
#[derive(Debug)]
struct Progress {
    answered: AtomicBool,
    /// Something of the request's body was taken.
    touched: AtomicBool,
    /// The [`Moment`] when something last moved.
    moved: AtomicU64,
}

impl Progress {
    fn moves(&self) {
        self.moved.store(Moment::now().0, Relaxed);
    }

    fn is_answered(&self) -> bool {
        self.answered.load(Relaxed)
    }
}

/// Sends the body behind a head that was sent, and has the client told the answer.
pub async fn carry(
    terms: &Terms<'_>,
    mut body: impl Source,
    mut sink: impl Sink,
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    timer: &mut Timer,
) -> Result<Carried, Failure> {
    let (endpoint, config) = (terms.attempt.endpoint(), &terms.attempt.upstream().config);
    let idle = Duration::from_millis(config.timeouts.idle_ms);
    let response = Duration::from_millis(config.timeouts.response_ms);
    let progress = Progress {
        answered: AtomicBool::new(false),
        touched: AtomicBool::new(false),
        moved: AtomicU64::new(Moment::now().0),
    };
    let max = terms.ask.route.spec.max_body_bytes;
    let mut upload = match terms.ask.framing {
        Framing::Empty => Upload::none(),
        _ => Upload::begin(send(&mut body, &mut sink, max, &progress)),
    };
    let mut deadline = Deadline::after(if upload.is_under_way() { idle } else { response });
    let mut telling = pin!(tell(terms, answer, reply, &progress));
    let told = |now| endpoint.is_cut(now);
    let failure = loop {
        let step = poll_fn(|context| match upload.poll(context) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => telling.as_mut().poll(context).map(Some),
        });
        match timer.within(&mut deadline, told, step).await {
            Ok(Some(Ok(whole))) => return Ok(Carried { whole, sent: upload.is_whole() }),
            Ok(Some(Err(failure))) => break failure,
            Ok(None) if progress.is_answered() => {
                if !matches!(upload.ended, Sent::Whole | Sent::EndpointGone) {
                    return Ok(Carried { whole: false, sent: false });
                }
            }
            Ok(None) => {
                upload.ended.check(terms.ask.route, idle)?;
                let gone = upload.ended == Sent::EndpointGone;
                deadline = Deadline::after(if gone { LAST_WORDS } else { response });
            }
            Err(late) => {
                let waits = !progress.is_answered() && !upload.is_under_way();
                let quiet = Moment::now().since(Moment(progress.moved.load(Relaxed)));
                if late == Late::TimedOut && !waits && quiet < idle {
                    deadline = Deadline::after(idle - quiet);
                } else if progress.is_answered() {
                    return Ok(Carried { whole: false, sent: false });
                } else if late == Late::TimedOut && !waits {
                    Sent::TimedOut.check(terms.ask.route, idle)?;
                } else {
                    break Failure::late(late, "no answer", response);
                }
            }
        }
    };
    // What was taken of a body cannot be sent again.
    Err(match failure {
        Failure::Unreached(why) if progress.touched.load(Relaxed) => Failure::Unanswered(why),
        failure => failure,
    })
}

async fn send(body: &mut impl Source, sink: &mut impl Sink, max: u64, progress: &Progress) -> Sent {
    let mut content = 0u64;
    loop {
        match body.piece().await {
            Ok(Piece::Data(data)) => {
                progress.touched.store(true, Relaxed);
                content += data.len() as u64;
                if content > max {
                    return Sent::TooLong;
                }
                if sink.data(data).await.is_err() {
                    return Sent::EndpointGone;
                }
                progress.moves();
            }
            Ok(Piece::End(trailers)) => {
                let ended = sink.end(trailers).await;
                return if ended.is_ok() { Sent::Whole } else { Sent::EndpointGone };
            }
            Err(Torn::Gone) => return Sent::ClientGone,
            Err(Torn::Malformed) => return Sent::Malformed,
        }
    }
}

/// Whether the client was told all of the answer.
async fn tell(
    terms: &Terms<'_>,
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    progress: &Progress,
) -> Result<bool, Failure> {
    let head = unless_gone(reply, answer.head()).await.ok_or(Failure::ClientGone)?;
    let (head, bare) = head?;
    terms.course.answered(terms.line, head.status.as_u16(), terms.attempt);
    progress.answered.store(true, Relaxed);
    progress.moves();
    if reply.head(head, bare, terms.ask.route, terms.course.sticky(terms.attempt)).await.is_err() {
        return Ok(false);
    }
    if bare {
        return Ok(true);
    }
    loop {
        let gone_on = match unless_gone(reply, answer.piece()).await {
            Some(Ok(Piece::Data(data))) => reply.data(data).await,
            Some(Ok(Piece::End(trailers))) => return Ok(reply.end(trailers).await.is_ok()),
            Some(Err(_)) | None => return Ok(false),
        };
        progress.moves();
        if gone_on.is_err() {
            return Ok(false);
        }
    }
}

async fn unless_gone<T>(reply: &mut impl Reply, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => reply.poll_gone(context).map(|()| None),
    })
    .await
}
