//! The event stream: the cluster's view, kept up to date by folding events from any node.
//!
//! What always holds: the view equals the replicated state at its revision, and its revision never
//! decreases. If the connection is lost or silent, as that of a paused node is, the stream resumes at
//! another member from its revision. If events are missing, it takes a fresh view and reports
//! [`Update::View`].

use crate::{
    Address, Attempt, Client, ClientError,
    client::{CLIENT_HEADER, CONNECT_TIMEOUT},
};
use futures::{SinkExt, StreamExt};
use ringmaster_common::{
    event::{Event, EventBatch},
    lock::Lock,
    page::Page,
    stream::{Assembler, ClientMessage, ServerMessage},
    view::ClusterView,
};
use std::time::Duration;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder, Message,
        http::{StatusCode, Uri},
        protocol::WebSocketConfig,
    },
};

/// The longest silence of a live stream. Nodes send samples far more often.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many rounds over all addresses the stream tries before it gives up.
pub const RECONNECT_ROUNDS: u32 = 30;
/// The pause between two rounds.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// The longest message that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What changed.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// The view is fresh; the events before it are not known.
    View,
    /// The view was folded with these events.
    Events(EventBatch),
    /// A telemetry sample arrived; the view is unchanged.
    Sample,
    /// Followed locks have changed; this is their current state.
    Locks(Page<Lock>),
}

#[derive(Debug)]
pub struct Stream {
    client: Client,
    /// The followed topics, sent on each connection.
    topics: Vec<ClientMessage>,
    connection: Option<(Address, Socket, Assembler)>,
    view: Option<ClusterView>,
    /// Whether the next connection resumes; false after a gap.
    resume: bool,
    /// Rounds of connecting since the last update.
    rounds: u32,
    /// Why the last connection was lost.
    lost: Option<Attempt>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection was given up.
#[derive(Debug)]
struct ConnectionLost(String);

impl Stream {
    /// Connects to the first node that answers. The first update is [`Update::View`].
    pub fn open(client: &Client) -> Stream {
        Stream {
            client: client.clone(),
            topics: Vec::new(),
            connection: None,
            view: None,
            resume: true,
            rounds: 0,
            lost: None,
        }
    }

    /// Also follows a topic, from the next connection on.
    pub fn following(mut self, topic: ClientMessage) -> Stream {
        self.topics.push(topic);
        self
    }

    /// The view; absent before the first update.
    pub fn view(&self) -> Option<&ClusterView> {
        self.view.as_ref()
    }

    /// Waits for the next update. Fails when no member has served the stream for a while.
    ///
    /// Dropping the future loses no update.
    pub async fn next(&mut self) -> Result<Update, ClientError> {
        loop {
            let Some((address, socket, assembler)) = &mut self.connection else {
                self.connect().await?;
                continue;
            };
            let message = receive(socket).await;
            let whole = message.and_then(|message| {
                assembler.take(message).map_err(|interrupted| ConnectionLost(interrupted.to_string()))
            });
            let address = address.clone();
            let applied = whole.and_then(|whole| match whole {
                Some(message) => self.apply_message(message),
                // More parts follow.
                None => Ok(None),
            });
            match applied {
                Ok(Some(update)) => {
                    self.rounds = 0;
                    return Ok(update);
                }
                Ok(None) => {}
                Err(ConnectionLost(reason)) => {
                    tracing::debug!(%address, %reason, "the stream is lost");
                    self.client.defer(&address);
                    self.connection = None;
                    self.lost = Some(Attempt { url: address, reason, in_doubt: false });
                }
            }
        }
    }

    /// Tries all addresses, a bounded number of rounds since the last update.
    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut attempts = Vec::from_iter(self.lost.take());
        while self.rounds <= RECONNECT_ROUNDS {
            if self.rounds > 0 {
                sleep(RECONNECT_PAUSE).await;
            }
            self.rounds += 1;
            let mut failed = Vec::new();
            for address in self.client.addresses() {
                match connect(&address, &self.client, &self.resume_query(), &self.topics).await {
                    Ok(socket) => {
                        self.connection = Some((address, socket, Assembler::default()));
                        return Ok(());
                    }
                    Err(ConnectionLost(reason)) => {
                        failed.push(Attempt { url: address, reason, in_doubt: false })
                    }
                }
            }
            attempts = failed;
            if self.view.is_none() {
                // Before the first view, the caller wants an error at once.
                break;
            }
        }
        Err(ClientError::Unreachable(attempts))
    }

    /// The query string that resumes the stream after the view's revision.
    fn resume_query(&self) -> String {
        let view = self.view.as_ref().filter(|_| self.resume);
        view.map_or_else(String::new, |ClusterView { revision, incarnation, id, .. }| {
            format!("?after={revision}&incarnation={incarnation}&cluster={id}")
        })
    }

    /// Applies a message to the view; returns an update if it changed anything.
    fn apply_message(&mut self, message: ServerMessage) -> Result<Option<Update>, ConnectionLost> {
        match message {
            ServerMessage::Resumed { incarnation, .. } => {
                if self.view.as_ref().is_some_and(|view| view.incarnation != incarnation) {
                    self.resume = false;
                    return Err(ConnectionLost("it has another history".to_owned()));
                }
                Ok(None)
            }
            ServerMessage::View { view, .. } => {
                let older = |known: &ClusterView| {
                    known.id == view.id
                        && known.incarnation == view.incarnation
                        && known.revision > view.revision
                };
                if self.view.as_ref().is_some_and(older) {
                    return Err(ConnectionLost("its view is older than the current one".to_owned()));
                }
                self.client.add_addresses(view.nodes.values().map(|node| node.public_url.as_str()));
                self.view = Some(*view);
                self.resume = true;
                Ok(Some(Update::View))
            }
            ServerMessage::Events { prev, batch, .. } => {
                let Some(view) = &mut self.view else {
                    return Err(ConnectionLost("it sent events before a view".to_owned()));
                };
                if batch.revision <= view.revision {
                    return Ok(None);
                }
                if prev > view.revision {
                    self.resume = false;
                    return Err(ConnectionLost(format!(
                        "events between {} and {prev} are missing",
                        view.revision
                    )));
                }
                view.fold(&batch);
                if batch.events.iter().any(|event| matches!(event, Event::NodeJoined { .. })) {
                    self.client.add_addresses(view.nodes.values().map(|node| node.public_url.as_str()));
                }
                Ok(Some(Update::Events(batch)))
            }
            ServerMessage::Locks { page, .. } => Ok(self.view.as_ref().map(|_| Update::Locks(page))),
            // The assembler has taken it.
            ServerMessage::ViewPart { .. } => Ok(None),
            // This client does not follow these topics.
            ServerMessage::Audit { .. } | ServerMessage::Traffic { .. } | ServerMessage::Problem { .. } => {
                Ok(None)
            }
            ServerMessage::Sample { .. } => Ok(self.view.as_ref().map(|_| Update::Sample)),
            ServerMessage::Behind { try_urls, .. } => {
                self.client.add_addresses(try_urls.iter().map(String::as_str));
                for address in try_urls.iter().filter_map(|url| url.parse().ok()) {
                    self.client.prefer(&address);
                }
                Err(ConnectionLost("it is behind".to_owned()))
            }
        }
    }
}

async fn connect(
    address: &Address,
    client: &Client,
    resume_query: &str,
    topics: &[ClientMessage],
) -> Result<Socket, ConnectionLost> {
    let host = address.to_string().replacen("http://", "ws://", 1);
    let uri: Uri = format!("{host}/v1/stream{resume_query}")
        .parse()
        .map_err(|_| ConnectionLost("no valid address".to_owned()))?;
    let request = ClientRequestBuilder::new(uri).with_header(CLIENT_HEADER, client.name);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let connecting = async {
        let (mut socket, _) = connect_async_with_config(request, Some(config), true).await?;
        for topic in topics {
            let message = serde_json::to_string(topic).expect("the API's types are JSON");
            socket.send(Message::text(message)).await?;
        }
        Ok(socket)
    };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(outcome) => outcome.map_err(|error: tungstenite::Error| ConnectionLost(reason(&error))),
        Err(_) => Err(ConnectionLost("no answer in time".to_owned())),
    }
}

/// The next data message. Pings also count as activity; the library answers them.
async fn receive(socket: &mut Socket) -> Result<ServerMessage, ConnectionLost> {
    loop {
        let message = timeout(SILENCE_TIMEOUT, socket.next())
            .await
            .map_err(|_| ConnectionLost("it stopped sending".to_owned()))?
            .ok_or_else(|| ConnectionLost("it ended".to_owned()))?
            .map_err(|error| ConnectionLost(reason(&error)))?;
        match message {
            Message::Text(text) => {
                return serde_json::from_str(&text)
                    .map_err(|error| ConnectionLost(format!("not understood: {error}")));
            }
            Message::Close(close) => {
                // The library has queued the answer.
                socket.flush().await.ok();
                let reason = close.filter(|close| !close.reason.is_empty());
                return Err(ConnectionLost(match reason {
                    Some(close) => format!("the node closed it: {}", close.reason),
                    None => "the node closed it".to_owned(),
                }));
            }
            _ => {}
        }
    }
}

fn reason(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Http(response) => match response.status() {
            StatusCode::NOT_FOUND => "it has no stream".to_owned(),
            status => format!("it answered {status}"),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
