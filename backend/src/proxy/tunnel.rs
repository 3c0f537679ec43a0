//! Bytes both ways between two connections, of which nothing is understood: after an upgrade, and for
//! upstreams of plain TCP.
//!
//! A tunnel ends when both sides have said their last, when neither has said anything for long, or when the
//! endpoint is cut off. A side that is done may still listen.

use super::{
    buffer::Buffer,
    moment::Moment,
    timer::{Deadline, Timer},
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
};

/// How much of each direction is on its way.
const ROOM: usize = 16 << 10;

/// One direction.
struct Way {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    ended: bool,
    closed: bool,
}

impl Way {
    /// `first` goes before everything else.
    fn new(first: &Buffer) -> Way {
        let mut bytes = vec![0; ROOM.max(first.len())].into_boxed_slice();
        bytes[..first.len()].copy_from_slice(first.filled());
        Way { bytes, start: 0, end: first.len(), ended: false, closed: false }
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
            let mut room = ReadBuf::new(&mut self.bytes);
            ready!(Pin::new(from).poll_read(context, &mut room))?;
            (self.start, self.end) = (0, room.filled().len());
            self.ended = self.end == 0;
        }
        if self.start < self.end {
            let count = ready!(Pin::new(to).poll_write(context, &self.bytes[self.start..self.end]))?;
            self.start += count;
            return Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) });
        }
        ready!(Pin::new(to).poll_shutdown(context))?;
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

/// Runs until it ends. `first` are bytes that each side has sent already.
pub async fn run(
    client: (&mut TcpStream, &Buffer),
    endpoint: (&mut TcpStream, &Buffer),
    idle: Duration,
    timer: &mut Timer,
    told: impl Fn(Moment) -> bool,
) {
    let (mut up, mut down) = (Way::new(client.1), Way::new(endpoint.1));
    let (mut client_read, mut client_write) = client.0.split();
    let (mut endpoint_read, mut endpoint_write) = endpoint.0.split();
    while !(up.closed && down.closed) {
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
        if !matches!(timer.within(&mut Deadline::after(idle), &told, step).await, Ok(Ok(()))) {
            return;
        }
    }
}
