//! A connection once it is open: frames in, frames out, until one of them ends.

use super::{
    SILENCE_LIMIT,
    frame::{Frame, FrameError},
    handshake::Socket,
    outgoing::Queue,
};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer was removed from the cluster")]
    Departed,
    #[error("the peer was silent for {SILENCE_LIMIT:?}")]
    Silent,
    #[error("{0}")]
    WebSocket(#[from] tungstenite::Error),
    #[error("the peer sent {0}")]
    Frame(#[from] FrameError),
    #[error("the peer sent something other than a frame")]
    NotAFrame,
    #[error("the peer sent a frame that does not go this way")]
    WrongWay,
}

/// Writes what is queued, and gives each frame of this format that arrives to `take`, in order. One of
/// another ends it.
pub(super) async fn converse(
    socket: Socket,
    format: u8,
    queue: Queue,
    take: impl FnMut(Frame) -> Result<(), Ended>,
) -> Ended {
    let (sink, stream) = socket.split();
    tokio::select! {
        ended = read(stream, format, take) => ended,
        ended = write(sink, queue) => ended,
    }
}

async fn read(
    mut stream: SplitStream<Socket>,
    format: u8,
    mut take: impl FnMut(Frame) -> Result<(), Ended>,
) -> Ended {
    loop {
        // Messages that have arrived are read before the time-out is looked at: a process that was paused
        // does not take its own silence for the peer's.
        let message = match timeout(SILENCE_LIMIT, stream.next()).await {
            Err(_) => return Ended::Silent,
            Ok(None | Some(Ok(Message::Close(_)))) => return Ended::Closed,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(message))) => message,
        };
        let taken = match message {
            Message::Binary(bytes) => Frame::decode(format, bytes).map_err(Ended::from).and_then(&mut take),
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Text(_) | Message::Close(_) | Message::Frame(_) => Err(Ended::NotAFrame),
        };
        if let Err(ended) = taken {
            return ended;
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut queue: Queue) -> Ended {
    while let Some(frame) = queue.next().await {
        // One flush for all that is there: under load many frames share a system call.
        let mut next = Some(frame);
        while let Some(frame) = next {
            if let Err(error) = sink.feed(Message::Binary(frame)).await {
                return error.into();
            }
            next = queue.try_next();
        }
        if let Err(error) = sink.flush().await {
            return error.into();
        }
    }
    Ended::Closed
}
