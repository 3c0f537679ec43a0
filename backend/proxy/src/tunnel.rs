//! Bytes both ways between two connections, of which nothing is understood: after an upgrade, and for
//! upstreams of plain TCP.
//!
//! A tunnel ends when both sides have said their last, when neither has said anything for long, or when the
//! endpoint is cut off. A side that is done may still listen. Where the two speak WebSocket, it is known where frames
//! end, so both are told before they are cut off: the frame under way goes on to its end, and a Close follows.

use super::{
    buffer::Buffer,
    moment::Moment,
    timer::{Deadline, Late, Timer},
    websocket::{self, Frames},
};
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

/// How much of each direction is on its way.
const ROOM: usize = 16 << 10;
/// How long both sides of a WebSocket may take, once it is cut off, to end their frames and to say goodbye.
const PART_WITHIN: Duration = Duration::from_secs(2);
/// What they are told.
const WHY: &str = "the endpoint is taken out of service";

/// What is known of what reachability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Unknown,
    WebSocket,
}

/// One direction.
struct Way {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    closed: bool,
    frames: Option<Frames>,
    /// The goodbye, as far as it is not sent.
    goodbye: Vec<u8>,
}

impl Way {
    /// `first` goes before everything else.
    fn new(first: &Buffer, speech: Speech) -> Way {
        let mut bytes = vec![0; ROOM.max(first.len())].into_boxed_slice();
        bytes[..first.len()].copy_from_slice(first.filled());
        let frames = (speech == Speech::WebSocket).then(Frames::default);
        Way { bytes, start: 0, end: first.len(), ended: false, closed: false, frames, goodbye: Vec::new() }
    }

    /// Ready once something moved, or all has.
    fn poll_move(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Pending;
        }
        if self.start == self.end && !self.ended {
            ready!(self.poll_fill(from, context))?;
        }
        if self.start < self.end {
            return self.poll_pass(self.end, to, context);
        }
        ready!(Pin::new(to).poll_shutdown(context))?;
        self.closed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut room = ReadBuf::new(&mut self.bytes);
        ready!(Pin::new(from).poll_read(context, &mut room))?;
        (self.start, self.end) = (0, room.filled().len());
        self.ended = self.end == 0;
        Poll::Ready(Ok(()))
    }

    /// Passes on what is there, up to `end`.
    fn poll_pass(
        &mut self,
        end: usize,
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(Pin::new(to).poll_write(context, &self.bytes[self.start..end]))?;
        if let Some(frames) = &mut self.frames {
            frames.pass(&self.bytes[self.start..self.start + count]);
        }
        self.start += count;
        Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) })
    }

    /// Ready once the frame under way has ended, `to` was told, and `from` has said goodbye, too. What it says
    /// meanwhile is of no use to anybody.
    fn poll_part(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
            let arrived = &self.bytes[self.start..self.end];
            if !frames.is_between() && !self.goodbye.is_empty() {
                // Still within the last frame that is passed on.
                match frames.rest_of_frame(arrived) {
                    0 if self.ended => return Poll::Ready(Ok(())),
                    0 => ready!(self.poll_fill(from, context))?,
                    count => ready!(self.poll_pass(self.start + count, to, context))?,
                }
            } else if !self.goodbye.is_empty() {
                let count = ready!(Pin::new(&mut *to).poll_write(context, &self.goodbye))?;
                self.goodbye.drain(..count);
            } else if frames.closed || self.ended {
                return Poll::Ready(Ok(()));
            } else {
                frames.pass(arrived);
                self.start = self.end;
                if !frames.closed {
                    ready!(self.poll_fill(from, context))?;
                }
            }
        }
    }

    /// From now on it parts, with these words to whom it leads; whom a goodbye has reached already needs none.
    fn begin_to_part(&mut self, goodbye: Vec<u8>) {
        if self.frames.as_ref().is_some_and(|frames| !frames.closed) && !self.closed {
            self.goodbye = goodbye;
        }
    }
}

/// Runs until it ends. `first` are bytes that each side has sent already.
pub async fn run(
    client: (&mut TcpStream, &Buffer),
    endpoint: (&mut TcpStream, &Buffer),
    speech: Speech,
    idle: Duration,
    timer: &mut Timer,
    told: impl Fn(Moment) -> bool,
) {
    let (mut up, mut down) = (Way::new(client.1, speech), Way::new(endpoint.1, speech));
    let (mut client_read, mut client_write) = client.0.split();
    let (mut endpoint_read, mut endpoint_write) = endpoint.0.split();
    let late = loop {
        if up.closed && down.closed {
            return;
        }
        let step = poll_fn(|context| {
            let sent = up.poll_move(&mut client_read, &mut endpoint_write, context)?;
            let received = down.poll_move(&mut endpoint_read, &mut client_write, context)?;
            if sent.is_ready() || received.is_ready() {
                Poll::Ready(io::Result::Ok(()))
            } else {
                Poll::Pending
            }
        });
        let step = pin!(step);
        match timer.within(&mut Deadline::after(idle), &told, step).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(late) => break late,
        }
    };
    if late != Late::Told || speech != Speech::WebSocket {
        return;
    }
    up.begin_to_part(websocket::close(websocket::GOING_AWAY, WHY, Some(rand::random())));
    down.begin_to_part(websocket::close(websocket::GOING_AWAY, WHY, None));
    let parting = async {
        let parted = tokio::join!(
            poll_fn(|context| up.poll_part(&mut client_read, &mut endpoint_write, context)),
            poll_fn(|context| down.poll_part(&mut endpoint_read, &mut client_write, context)),
        );
        // Who cannot be told any more is gone already.
        drop(parted);
    };
    // Whoever has not said goodbye by then is cut off without.
    let _ = timeout(PART_WITHIN, parting).await;
}
