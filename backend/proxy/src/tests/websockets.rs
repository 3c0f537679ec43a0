//! WebSockets through the proxy: both sides get a Close before they are cut off.

use super::*;
use futures::{SinkExt, StreamExt};
use ringmaster_common::traffic::upstream::EndpointState;
use std::sync::Mutex;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, protocol::CloseFrame},
};

/// How long a drained endpoint has for what is in flight.
const DRAIN: Duration = Duration::from_millis(300);
/// By then a tunnel has noticed the drain deadline, and the time-out for closing is over.
const CUT: Duration = Duration::from_secs(4);

/// An endpoint that sends each text back, and remembers all messages.
struct Echo {
    origin: Origin,
    received: Arc<Mutex<Vec<Message>>>,
}

impl Echo {
    async fn start() -> (Echo, Fixture) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Message>>>::default();
        let remember = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut socket) = accept_async(stream).await else { continue };
                let received = remember.clone();
                tokio::spawn(async move {
                    while let Some(Ok(message)) = socket.next().await {
                        received.lock().unwrap().push(message.clone());
                        if message.is_text() {
                            let _ = socket.send(message).await;
                        }
                    }
                });
            }
        });
        // The name alone is used of it.
        let origin = Origin::start("a").await;
        let change = |upstream: &mut Upstream, _: &mut Route| {
            upstream.config.drain_ms = DRAIN.as_millis().try_into().unwrap();
            upstream.config.endpoints[0].addr = addr.to_string();
        };
        let fixture = Fixture::with(&[&origin], change).await;
        (Echo { origin, received }, fixture)
    }

    fn closes(&self) -> Vec<Option<CloseFrame>> {
        let received = self.received.lock().unwrap();
        let closes = received.iter().filter_map(|message| match message {
            Message::Close(frame) => Some(frame.clone()),
            _ => None,
        });
        closes.collect()
    }
}

async fn open(fixture: &Fixture) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(fixture.addr).await.unwrap();
    let (mut socket, _) = client_async("ws://test/", stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::text("hello")));
    socket
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    let message = timeout(PATIENCE, socket.next()).await.expect("something comes");
    message.map(|message| message.expect("it ends as it should"))
}

fn drain(fixture: &mut Fixture) {
    fixture.upstream.config.endpoints[0].state = EndpointState::Drain;
    fixture.apply();
}

fn is_going_away(frame: Option<&CloseFrame>) -> bool {
    frame.is_some_and(|frame| u16::from(frame.code) == websocket::GOING_AWAY && !frame.reason.is_empty())
}

#[tokio::test]
async fn at_the_deadline_of_a_drain_both_sides_get_a_close() {
    let (echo, mut fixture) = Echo::start().await;
    let (mut quiet, mut busy) = (open(&fixture).await, open(&fixture).await);
    let begun = clock::now();
    drain(&mut fixture);
    // Until then it works as before.
    busy.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut busy).await, Some(Message::text("still here")));
    for socket in [&mut quiet, &mut busy] {
        let Some(Message::Close(frame)) = next(socket).await else { panic!("a goodbye comes first") };
        assert!(is_going_away(frame.as_ref()), "{frame:?}");
        assert!(begun.elapsed() >= DRAIN, "{:?}", begun.elapsed());
        assert_eq!(next(socket).await, None, "and nothing after it");
    }
    assert!(begun.elapsed() < CUT, "{:?}", begun.elapsed());
    until("the endpoint gets a Close, too", || echo.closes().len() == 2).await;
    assert!(echo.closes().iter().all(|frame| is_going_away(frame.as_ref())), "{:?}", echo.closes());
    assert_eq!(echo.origin.requests(), 0);
}

/// A client that says what it likes, where the proxy and the endpoint take it for a WebSocket.
async fn raw(fixture: &Fixture) -> Client {
    let mut client = fixture.connect().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        .await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
    client
}

/// A text of ten letters, masked with zeros, in two pieces.
const FIRST_HALF: &[u8] = b"\x81\x8a\0\0\0\0hell";
const SECOND_HALF: &[u8] = b"o ther";

#[tokio::test]
async fn a_frame_is_sent_to_its_end_before_a_close() {
    let (echo, mut fixture) = Echo::start().await;
    let mut client = raw(&fixture).await;
    client.send(FIRST_HALF).await;
    drain(&mut fixture);
    // The other direction is between two frames.
    while client.left.len() < 4 {
        assert!(client.more().await, "the client gets a Close");
    }
    assert_eq!((client.left[0], &client.left[2..4]), (0x88, &[0x03, 0xe9][..]));
    assert!(echo.received.lock().unwrap().is_empty());
    client.send(SECOND_HALF).await;
    until("the endpoint gets a Close", || !echo.closes().is_empty()).await;
    assert_eq!(echo.received.lock().unwrap()[0], Message::text("hello ther"));
    assert!(is_going_away(echo.closes()[0].as_ref()));
    client.send(websocket::close(websocket::GOING_AWAY, "", Some([0; 4]))).await;
    client.left.clear();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_side_that_does_not_close_is_cut_off() {
    let (echo, mut fixture) = Echo::start().await;
    let mut client = raw(&fixture).await;
    client.send(FIRST_HALF).await;
    let begun = clock::now();
    drain(&mut fixture);
    while client.more().await {}
    assert!((DRAIN..CUT).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(echo.closes().is_empty(), "a Close within a frame would be its payload");
}
