//! A client of the stream that folds the events, and checks that none is missing.

use crate::{SOON, cluster::Cluster, eventually};
use flate2::read::DeflateDecoder;
use futures::{SinkExt, StreamExt};
use ringmaster_common::{
    id::Revision,
    stream::{Assembler, MAX_MESSAGE_BYTES, STREAM_FORMAT, ServerMessage},
    view::ClusterView,
};
use std::io::Read;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// How many lines of a difference are shown.
const DIFFERENCES_SHOWN: usize = 5;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// One stream, and the state that it has transferred so far.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    assembler: Assembler,
    pub view: ClusterView,
    pub samples: usize,
    pub fresh_views: usize,
    pub resumed: usize,
    pub events: usize,
    /// The bytes of the messages on the wire, without their frames.
    pub bytes: usize,
    /// The messages that were parts of a larger one.
    pub parts: usize,
    /// The code and the reason of the Close that ended the stream.
    pub close: Option<(u16, String)>,
}

impl Client {
    /// Goes on from `view`, if it is of any revision.
    pub async fn connect(cluster: &Cluster, node: u64, view: ClusterView) -> Client {
        Client::resume(&cluster.node(node).url, view).await.expect("the node streams")
    }

    /// The same, of a node that may be gone.
    pub async fn resume(url: &str, view: ClusterView) -> Result<Client, String> {
        let ClusterView { id, revision, incarnation, .. } = &view;
        let position = match revision {
            Revision(0) => String::new(),
            _ => format!("?after={revision}&incarnation={incarnation}&cluster={id}"),
        };
        Ok(Client { view, ..Client::open(url, &position, None).await? })
    }

    /// Connects without a view, with this at the end of the address, and by a subprotocol if one is named.
    pub async fn open(url: &str, position: &str, subprotocol: Option<&str>) -> Result<Client, String> {
        let url = format!("{}/v1/stream{position}", url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a request");
        if let Some(name) = subprotocol {
            let name = name.parse().expect("a header");
            request.headers_mut().insert("sec-websocket-protocol", name);
        }
        let (socket, _) = connect_async(request).await.map_err(|error| error.to_string())?;
        let view = ClusterView::default();
        let assembler = Assembler::default();
        Ok(Client {
            socket,
            assembler,
            view,
            samples: 0,
            fresh_views: 0,
            resumed: 0,
            events: 0,
            bytes: 0,
            parts: 0,
            close: None,
        })
    }

    pub async fn send(&mut self, message: &str) {
        self.socket.send(Message::Text(message.into())).await.expect("the node listens");
    }

    /// Follows the events alone.
    pub async fn without_samples(mut self) -> Client {
        self.send(r#"{"type": "unfollow", "topic": "samples"}"#).await;
        self
    }

    /// Sends a Close, and reads until the node has answered it.
    pub async fn end(mut self) -> Option<(u16, String)> {
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.socket.send(Message::Close(Some(close))).await.expect("the node listens");
        while self.next().await.is_some() {}
        self.close
    }

    /// The next whole message; none once the node is gone.
    pub async fn next(&mut self) -> Option<ServerMessage> {
        loop {
            let message = self.receive().await?;
            match self.assembler.take(message).expect("parts follow each other") {
                Some(whole) => return Some(whole),
                None => self.parts += 1,
            }
        }
    }

    async fn receive(&mut self) -> Option<ServerMessage> {
        loop {
            let message = timeout(SOON, self.socket.next()).await.expect("signs of life come all the time");
            match message?.ok()? {
                Message::Text(text) => {
                    self.bytes += text.len();
                    assert!(text.len() <= MAX_MESSAGE_BYTES, "a message of {} bytes", text.len());
                    return Some(serde_json::from_str(&text).expect("a message of the stream"));
                }
                Message::Binary(packed) => {
                    self.bytes += packed.len();
                    let mut plain = Vec::new();
                    DeflateDecoder::new(&packed[..]).read_to_end(&mut plain).expect("raw DEFLATE");
                    return Some(rmp_serde::from_slice(&plain).expect("a message of the stream"));
                }
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(close) => {
                    self.socket.flush().await.ok();
                    self.close = close.map(|close| (close.code.into(), close.reason.to_string()));
                    return None;
                }
                Message::Frame(_) => return None,
            }
        }
    }

    /// Takes in one message. False once there will be no more here.
    pub async fn step(&mut self) -> bool {
        match self.next().await {
            Some(message) => self.take(message),
            None => false,
        }
    }

    /// Folds a message. False where it says that there will be no more.
    pub fn take(&mut self, message: ServerMessage) -> bool {
        match message {
            ServerMessage::View { format, view, .. } => {
                assert_eq!(format, STREAM_FORMAT);
                let is_of_another = view.id != self.view.id;
                assert!(
                    is_of_another || view.revision >= self.view.revision,
                    "a stream never goes backwards"
                );
                self.view = *view;
                self.fresh_views += 1;
            }
            ServerMessage::Events { prev, batch, .. } => {
                assert_eq!(prev, self.view.revision, "a gap before {}", batch.revision);
                assert!(batch.revision > prev, "{} was sent again", batch.revision);
                self.view.fold(&batch);
                self.events += 1;
            }
            ServerMessage::Resumed { incarnation, .. } => {
                assert_eq!(incarnation, self.view.incarnation);
                self.resumed += 1;
            }
            ServerMessage::Sample { .. } => self.samples += 1,
            ServerMessage::Behind { .. } => return false,
            unasked => panic!("{unasked:?}"),
        }
        true
    }

    pub async fn until(&mut self, what: &str, reached: impl Fn(&Client) -> bool) {
        timeout(SOON, async {
            while !reached(self) {
                assert!(self.step().await, "the stream ended before there was {what}");
            }
        })
        .await
        .unwrap_or_else(|_| panic!("waited for {what} at revision {}", self.view.revision));
    }
}

/// The view that all running nodes come to once nothing changes any more, asked of each node.
pub async fn agreement(cluster: &Cluster) -> ClusterView {
    let running = cluster.nodes.iter().filter(|node| node.is_running());
    let mut clients = Vec::new();
    for node in running {
        let mut client = eventually("the node to stream", SOON, async || {
            Client::resume(&node.url, ClusterView::default()).await
        })
        .await;
        client.until("a view", |client| client.fresh_views == 1).await;
        clients.push(client);
    }
    // Measurements keep changing opinions now and then; a moment without a change is enough.
    let mut target = Revision(0);
    while clients.iter().any(|client| client.view.revision != target) {
        target = clients.iter().map(|client| client.view.revision).max().expect("a node runs");
        for client in &mut clients {
            client.until("the same revision", |client| client.view.revision >= target).await;
        }
    }
    let mut views = clients.into_iter().map(|client| client.view);
    let first = views.next().expect("a node runs");
    for view in views {
        assert_same(&view, &first);
    }
    first
}

/// Two views of one revision are the same; where they are not, says what differs.
pub fn assert_same(one: &ClusterView, other: &ClusterView) {
    let lines = |view: &ClusterView| {
        let pretty = serde_json::to_string_pretty(view).expect("plain data");
        pretty.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, other) = (lines(one), lines(other));
    let differing: Vec<_> =
        one.iter().zip(&other).filter(|(left, right)| left != right).take(DIFFERENCES_SHOWN).collect();
    assert!(differing.is_empty() && one.len() == other.len(), "the views differ: {differing:#?}");
}
