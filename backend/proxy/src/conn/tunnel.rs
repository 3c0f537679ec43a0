//! Bytes in both directions between two connections: after an upgrade, and for upstreams of plain TCP.
//!
//! A tunnel ends when both sides have ended, when neither has sent anything for the idle time-out, or at the drain
//! deadline of the endpoint. A side that has ended may still receive. If the protocol is WebSocket, both sides get a
//! Close before they are cut off, behind the end of the current frame.

use crate::{
    coarse_clock::CoarseInstant,
    timer::{Deadline, Timer, WaitError},
    wire::{
        buffer::Buffer,
        websocket::{self, Frames},
    },
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

/// How much is on its way in each direction.
const BUFFER: usize = 16 << 10;
/// How long both sides of a WebSocket may take to end their frames and to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The reason in the Close frame.
const REASON: &str = "the endpoint is taken out of service";

/// What is known about the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    Unknown,
    WebSocket,
}

/// One direction.
struct Direction {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    closed: bool,
    frames: Option<Frames>,
    /// Our Close frame, as far as it is not sent.
    close_frame: Vec<u8>,
}

impl Direction {
    /// `first` is sent before everything else.
    fn new(first: &Buffer, protocol: TunnelProtocol) -> Direction {
        let mut bytes = vec![0; BUFFER.max(first.len())].into_boxed_slice();
        bytes[..first.len()].copy_from_slice(first.filled());
        let frames = (protocol == TunnelProtocol::WebSocket).then(Frames::default);
        Direction {
            bytes,
            start: 0,
            end: first.len(),
            ended: false,
            closed: false,
            frames,
            close_frame: Vec::new(),
        }
    }

    /// Ready once something moved, or the direction has ended.
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

    /// Ready once the current frame has ended, `to` got a Close, and `from` sent one, too. What it sends meanwhile is
    /// dropped.
    fn poll_close(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
            let arrived = &self.bytes[self.start..self.end];
            if !frames.is_between() && !self.close_frame.is_empty() {
                // Within the last frame that is passed on.
                match frames.rest_of_frame(arrived) {
                    0 if self.ended => return Poll::Ready(Ok(())),
                    0 => ready!(self.poll_fill(from, context))?,
                    count => ready!(self.poll_pass(self.start + count, to, context))?,
                }
            } else if !self.close_frame.is_empty() {
                let count = ready!(Pin::new(&mut *to).poll_write(context, &self.close_frame))?;
                self.close_frame.drain(..count);
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

    /// From now on the direction closes, with this frame unless a Close has passed already.
    fn begin_to_close(&mut self, close_frame: Vec<u8>) {
        if self.frames.as_ref().is_some_and(|frames| !frames.closed) && !self.closed {
            self.close_frame = close_frame;
        }
    }
}

/// Runs until it ends. Each side comes with the bytes that it has sent already.
pub async fn run(
    client: (&mut TcpStream, &Buffer),
    endpoint: (&mut TcpStream, &Buffer),
    protocol: TunnelProtocol,
    idle: Duration,
    timer: &mut Timer,
    cancelled: impl Fn(CoarseInstant) -> bool,
) {
    let (mut up, mut down) = (Direction::new(client.1, protocol), Direction::new(endpoint.1, protocol));
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
        match timer.within(&mut Deadline::after(idle), &cancelled, step).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(late) => break late,
        }
    };
    if late != WaitError::Cancelled || protocol != TunnelProtocol::WebSocket {
        return;
    }
    up.begin_to_close(websocket::close(websocket::GOING_AWAY, REASON, Some(rand::random())));
    down.begin_to_close(websocket::close(websocket::GOING_AWAY, REASON, None));
    let closing = async {
        let closed = tokio::join!(
            poll_fn(|context| up.poll_close(&mut client_read, &mut endpoint_write, context)),
            poll_fn(|context| down.poll_close(&mut endpoint_read, &mut client_write, context)),
        );
        // A side that cannot be written to is gone already.
        drop(closed);
    };
    // A side that has not closed by then is cut off.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
