//! The stream: the cluster's view, kept current by folding events, whoever serves them.
//!
//! What always holds: the view is that of its revision, and never goes back. Where the connection is
//! lost, or falls silent as that of a paused node does, the stream goes on with another member from
//! the revision that it has. Where events are missing, it takes a fresh view, and says so.

use crate::{
    Address, Attempt, Client, ClientError,
    client::{CLIENT_HEADER, CONNECT_WITHIN},
};
use futures::{SinkExt, StreamExt};
use ringmaster_common::{
    event::{Event, EventBatch},
    lock::Lock,
    page::Page,
    stream::{ClientMessage, ServerMessage},
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

/// How long a stream may be silent. Nodes send samples far more often.
pub const SILENT_AT_MOST: Duration = Duration::from_secs(5);
/// How often all addresses are tried before the stream gives up.
pub const RECONNECT_ROUNDS: u32 = 30;
/// How long to wait between two rounds.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// The longest message that is read.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What changed.
#[derive(Debug, PartialEq)]
pub enum Update {
    /// The view is a fresh one. What led to it is not known.
    View,
    /// The view was folded with these.
    Events(EventBatch),
    /// New telemetry is there. The view is as it was.
    Sample,
    /// Locks that are followed have changed: this is how they stand now.
    Locks(Page<Lock>),
}

#[derive(Debug)]
pub struct Stream {
    client: Client,
    /// What is followed beside the events, to be asked for on each connection.
    topics: Vec<ClientMessage>,
    connection: Option<(Address, Socket)>,
    view: Option<ClusterView>,
    /// Whether the next connection resumes; not after a gap.
    resume: bool,
    /// Rounds of connecting since the last update.
    rounds: u32,
    /// Why the last connection was lost.
    lost: Option<Attempt>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection is of no more use.
#[derive(Debug)]
struct Lost(String);

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

    /// Follows a topic, too, on every connection from the next one on.
    pub fn following(mut self, topic: ClientMessage) -> Stream {
        self.topics.push(topic);
        self
    }

    /// The view; none before the first update.
    pub fn view(&self) -> Option<&ClusterView> {
        self.view.as_ref()
    }

    /// Waits for the next change. Fails once no member has served the stream for a while.
    ///
    /// Dropping the future loses no update.
    pub async fn next(&mut self) -> Result<Update, ClientError> {
        loop {
            let Some((address, socket)) = &mut self.connection else {
                self.connect().await?;
                continue;
            };
            let message = receive(socket).await;
            let address = address.clone();
            match message.and_then(|message| self.take(message)) {
                Ok(Some(update)) => {
                    self.rounds = 0;
                    return Ok(update);
                }
                Ok(None) => {}
                Err(Lost(reason)) => {
                    tracing::debug!(%address, %reason, "the stream is lost");
                    self.client.put_off(&address);
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
                match connect(&address, &self.client, &self.position(), &self.topics).await {
                    Ok(socket) => {
                        self.connection = Some((address, socket));
                        return Ok(());
                    }
                    Err(Lost(reason)) => failed.push(Attempt { url: address, reason, in_doubt: false }),
                }
            }
            attempts = failed;
            if self.view.is_none() {
                // Whoever has seen nothing yet wants to know at once that nobody is there.
                break;
            }
        }
        Err(ClientError::Unreachable(attempts))
    }

    /// What the address of the stream ends with, so that it goes on behind the view.
    fn position(&self) -> String {
        let view = self.view.as_ref().filter(|_| self.resume);
        view.map_or_else(String::new, |ClusterView { revision, incarnation, id, .. }| {
            format!("?after={revision}&incarnation={incarnation}&cluster={id}")
        })
    }

    /// Brings the view up to date with a message; an update where that changed anything.
    fn take(&mut self, message: ServerMessage) -> Result<Option<Update>, Lost> {
        match message {
            ServerMessage::Resumed { incarnation, .. } => {
                if self.view.as_ref().is_some_and(|view| view.incarnation != incarnation) {
                    self.resume = false;
                    return Err(Lost("its history is another one".to_owned()));
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
                    return Err(Lost("its view is older than the one at hand".to_owned()));
                }
                self.client.learn(view.nodes.values().map(|node| node.public_url.as_str()));
                self.view = Some(*view);
                self.resume = true;
                Ok(Some(Update::View))
            }
            ServerMessage::Events { prev, batch } => {
                let Some(view) = &mut self.view else {
                    return Err(Lost("it sent events before a view".to_owned()));
                };
                if batch.revision <= view.revision {
                    return Ok(None);
                }
                if prev > view.revision {
                    self.resume = false;
                    return Err(Lost(format!("events between {} and {prev} are missing", view.revision)));
                }
                view.fold(&batch);
                if batch.events.iter().any(|event| matches!(event, Event::NodeJoined { .. })) {
                    self.client.learn(view.nodes.values().map(|node| node.public_url.as_str()));
                }
                Ok(Some(Update::Events(batch)))
            }
            ServerMessage::Locks { page, .. } => Ok(self.view.as_ref().map(|_| Update::Locks(page))),
            // Nothing of the kind is asked for.
            ServerMessage::Audit { .. } | ServerMessage::Traffic { .. } | ServerMessage::Problem { .. } => {
                Ok(None)
            }
            ServerMessage::Sample { .. } => Ok(self.view.as_ref().map(|_| Update::Sample)),
            ServerMessage::Behind { try_urls, .. } => {
                self.client.learn(try_urls.iter().map(String::as_str));
                for address in try_urls.iter().filter_map(|url| url.parse().ok()) {
                    self.client.prefer(&address);
                }
                Err(Lost("it is behind".to_owned()))
            }
        }
    }
}

async fn connect(
    address: &Address,
    client: &Client,
    position: &str,
    topics: &[ClientMessage],
) -> Result<Socket, Lost> {
    let host = address.to_string().replacen("http://", "ws://", 1);
    let uri: Uri =
        format!("{host}/v1/stream{position}").parse().map_err(|_| Lost("no valid address".to_owned()))?;
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
    match timeout(CONNECT_WITHIN, connecting).await {
        Ok(outcome) => outcome.map_err(|error: tungstenite::Error| Lost(reason(&error))),
        Err(_) => Err(Lost("no answer in time".to_owned())),
    }
}

/// The next message that is meant for us. Pings show life, too, and are answered on the way.
async fn receive(socket: &mut Socket) -> Result<ServerMessage, Lost> {
    loop {
        let message = timeout(SILENT_AT_MOST, socket.next())
            .await
            .map_err(|_| Lost("it fell silent".to_owned()))?
            .ok_or_else(|| Lost("it ended".to_owned()))?
            .map_err(|error| Lost(reason(&error)))?;
        match message {
            Message::Text(text) => {
                return serde_json::from_str(&text).map_err(|error| Lost(format!("not understood: {error}")));
            }
            Message::Close(_) => return Err(Lost("the node closed it".to_owned())),
            _ => {}
        }
    }
}

fn reason(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => error.to_string(),
        tungstenite::Error::Http(response) => match response.status() {
            StatusCode::NOT_FOUND => "it offers no stream".to_owned(),
            status => format!("it says {status}"),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
