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
    sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed},
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

/// What a client sends.
pub trait Request: Source {
    /// Nothing was taken of it yet, not even of what frames it.
    fn is_untouched(&self) -> bool;
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

/// How an answer ended that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client has all of it.
    Whole,
    /// The endpoint did not send all of it, or what makes no sense.
    BrokenOff,
    /// The client did not take all of it, or it was not to go on.
    GivenUp,
}

/// An answer that was begun.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    pub ending: Ending,
    /// The endpoint has all of the request.
    pub sent: bool,
}

/// What has come to pass.
enum Step {
    /// The request's body has ended.
    Sent,
    /// The answer's head is there.
    Answered,
    Told(Result<Ending, Failure>),
}

/// How far it has come.
#[derive(Debug)]
struct Progress {
    /// With which status; 0 where there is none yet.
    status: AtomicU16,
    /// The [`Moment`] when something last moved.
    moved: AtomicU64,
    /// It is the endpoint that the rest of the answer is waited for from.
    owed: AtomicBool,
}

impl Progress {
    fn moves(&self) {
        self.moved.store(Moment::now().0, Relaxed);
    }

    fn is_answered(&self) -> bool {
        self.status.load(Relaxed) != 0
    }
}

/// Sends the body behind a head that was sent, and has the client told the answer.
pub async fn carry(
    terms: &Terms<'_>,
    mut body: impl Request,
    mut sink: impl Sink,
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    timer: &mut Timer,
) -> Result<Carried, Failure> {
    let (endpoint, config) = (terms.attempt.endpoint(), &terms.attempt.upstream().config);
    let idle = Duration::from_millis(config.timeouts.idle_ms);
    let response = Duration::from_millis(config.timeouts.response_ms);
    let progress = Progress {
        status: AtomicU16::new(0),
        moved: AtomicU64::new(Moment::now().0),
        owed: AtomicBool::new(false),
    };
    let max = terms.ask.route.spec.max_body_bytes;
    let mut upload = match terms.ask.framing {
        Framing::Empty => Upload::none(),
        _ => Upload::begin(send(&mut body, &mut sink, max, &progress)),
    };
    let mut deadline = Deadline::after(if upload.is_under_way() { idle } else { response });
    let mut telling = pin!(tell(terms, answer, reply, &progress));
    let told = |now| endpoint.is_cut(now);
    let given_up = Carried { ending: Ending::GivenUp, sent: false };
    let mut answered = false;
    let failure = loop {
        let step = poll_fn(|context| match upload.poll(context) {
            Poll::Ready(()) => Poll::Ready(Step::Sent),
            Poll::Pending => match telling.as_mut().poll(context) {
                Poll::Ready(told) => Poll::Ready(Step::Told(told)),
                Poll::Pending if progress.is_answered() && !answered => Poll::Ready(Step::Answered),
                Poll::Pending => Poll::Pending,
            },
        });
        match timer.within(&mut deadline, told, step).await {
            Ok(Step::Told(Ok(ending))) => return Ok(Carried { ending, sent: upload.is_whole() }),
            Ok(Step::Told(Err(failure))) => break failure,
            Ok(Step::Answered) => {
                answered = true;
                deadline = Deadline::after(idle);
            }
            Ok(Step::Sent) if progress.is_answered() => {
                if !matches!(upload.ended, Sent::Whole | Sent::EndpointGone) {
                    return Ok(given_up);
                }
            }
            Ok(Step::Sent) => {
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
                    // It may wait for what the client does not send.
                    let owed = late == Late::TimedOut && progress.owed.load(Relaxed) && upload.is_whole();
                    let ending = if owed { Ending::BrokenOff } else { Ending::GivenUp };
                    terms.attempt.ended(progress.status.load(Relaxed), ending);
                    return Ok(Carried { ending, sent: false });
                } else if late == Late::TimedOut && !waits {
                    Sent::TimedOut.check(terms.ask.route, idle)?;
                } else {
                    break Failure::late(late, "no answer", deadline.limit());
                }
            }
        }
    };
    drop(upload);
    // What was taken of a body cannot be sent again.
    Err(match failure {
        Failure::Unreached(why) if !body.is_untouched() => Failure::Unanswered(why),
        failure => failure,
    })
}

async fn send(body: &mut impl Source, sink: &mut impl Sink, max: u64, progress: &Progress) -> Sent {
    let mut content = 0u64;
    loop {
        match body.piece().await {
            Ok(Piece::Data(data)) => {
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

async fn tell(
    terms: &Terms<'_>,
    answer: &mut impl Answer,
    reply: &mut impl Reply,
    progress: &Progress,
) -> Result<Ending, Failure> {
    let head = unless_gone(reply, answer.head()).await.ok_or(Failure::ClientGone)?;
    let (head, bare) = head?;
    let status = head.status.as_u16();
    terms.course.answered(terms.line, status, terms.attempt);
    progress.status.store(status, Relaxed);
    progress.moves();
    let ending = match reply.head(head, bare, terms.ask.route, terms.course.sticky(terms.attempt)).await {
        Ok(()) if bare => Ending::Whole,
        Ok(()) => pass_on(answer, reply, progress).await,
        Err(_) => Ending::GivenUp,
    };
    terms.attempt.ended(status, ending);
    Ok(ending)
}

async fn pass_on(answer: &mut impl Answer, reply: &mut impl Reply, progress: &Progress) -> Ending {
    loop {
        progress.owed.store(true, Relaxed);
        let piece = unless_gone(reply, answer.piece()).await;
        progress.owed.store(false, Relaxed);
        let told = match piece {
            Some(Ok(Piece::Data(data))) => reply.data(data).await,
            Some(Ok(Piece::End(trailers))) => match reply.end(trailers).await {
                Ok(()) => return Ending::Whole,
                torn => torn,
            },
            Some(Err(_)) => return Ending::BrokenOff,
            None => return Ending::GivenUp,
        };
        progress.moves();
        match told {
            Ok(()) => {}
            Err(Torn::Gone) => return Ending::GivenUp,
            // What no answer of this kind has.
            Err(Torn::Malformed) => return Ending::BrokenOff,
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
