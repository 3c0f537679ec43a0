//! A request's body on its way to the endpoint, beside everything else: an endpoint may answer before it
//! has all of it.

use super::{
    answer::Refusal,
    ask::too_long,
    course::Failure,
    head::bad,
    moment::Moment,
    table::Route,
    timer::{Deadline, Late, Timer},
};
use ringmaster_common::error::Code;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

/// How long an answer is waited for whose request could not be sent to its end.
pub const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a body may take that keeps coming.
const LONGEST_UPLOAD: Duration = Duration::from_secs(24 * 60 * 60);

pub struct Upload<'a> {
    under_way: Option<Pin<Box<dyn Future<Output = Sent> + Send + 'a>>>,
    pub ended: Sent,
}

/// How a request's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Whole,
    ClientGone,
    EndpointGone,
    TooLong,
    Malformed,
    TimedOut,
}

impl Sent {
    /// What that means for a request that is not answered yet. `idle` is how long it may come to rest.
    pub fn check(self, route: &Route, idle: Duration) -> Result<(), Failure> {
        match self {
            // An endpoint that takes no more may have said why.
            Sent::Whole | Sent::EndpointGone => Ok(()),
            Sent::ClientGone => Err(Failure::ClientGone),
            Sent::TooLong => Err(Failure::Client(too_long(route))),
            Sent::Malformed => Err(Failure::Client(bad("the body's framing is malformed"))),
            Sent::TimedOut => {
                let detail = format!("no byte of the body came within {} ms", idle.as_millis());
                Err(Failure::Client(Refusal::new(Code::RequestTimeout, detail)))
            }
        }
    }
}

impl<'a> Upload<'a> {
    /// One that has ended.
    pub fn none() -> Upload<'a> {
        Upload { under_way: None, ended: Sent::Whole }
    }

    pub fn begin(sending: impl Future<Output = Sent> + Send + 'a) -> Upload<'a> {
        Upload { under_way: Some(Box::pin(sending)), ended: Sent::Whole }
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Ready when it ends, once.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sending) = &mut self.under_way
            && let Poll::Ready(ended) = sending.as_mut().poll(context)
        {
            (self.under_way, self.ended) = (None, ended);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Does `work`, and goes on sending meanwhile.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            // Whether it has ended is looked at once the work is done.
            let _ = self.poll(context);
            work.as_mut().poll(context)
        })
        .await
    }

    /// The same, but none as soon as the body has ended; `deadline` begins only then.
    pub async fn or<T>(
        &mut self,
        timer: &mut Timer,
        deadline: &mut Deadline,
        told: impl Fn(Moment) -> bool,
        work: impl Future<Output = T>,
    ) -> Option<Result<T, Late>> {
        if !self.is_under_way() {
            return Some(timer.within(deadline, told, work).await);
        }
        // It has a deadline of its own for each of its bytes.
        let mut patience = Deadline::after(LONGEST_UPLOAD);
        let mut work = pin!(work);
        let either = poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll(context).map(|()| None),
        });
        timer.within(&mut patience, told, either).await.transpose()
    }

    pub fn is_whole(&self) -> bool {
        !self.is_under_way() && self.ended == Sent::Whole
    }
}
