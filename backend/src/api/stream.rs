//! `/v1/stream`: the view, and then every event.
//!
//! There is no queue per client. A client has a cursor into the replicated history; whenever more was
//! applied, it is sent what lies behind its cursor. A client that reads slowly holds up itself alone:
//! when its cursor falls out of the history, or too far behind, it gets a fresh view. Samples are
//! made as they are sent, so a slow client gets fewer of them, never old ones. All who read the same
//! are given the same bytes ([`encode`]).

mod encode;

pub use encode::Encoder;

use crate::{
    api::{Api, extract::QueryOf, problem::Refused},
    clock,
    state::{State, view::view},
};
use axum::{
    body::Bytes,
    extract::{
        State as Extension,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use ringmaster_common::{
    error::{Code, Refusal},
    id::{Incarnation, Revision},
    stream::{Follow, Form, STREAM_FORMAT, ServerMessage},
};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How many streams a node serves.
pub const MAX_STREAMS: u32 = 4096;
/// How often a sample is sent; when somebody else leads, it is sent at once.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How often a client that wants no samples is pinged, so that it knows the node to live.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long a client may take to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that is behind its client waits to catch up before it names better ones.
const BEHIND_PATIENCE: Duration = Duration::from_secs(2);
/// A client that is this many messages behind is better served with a fresh view.
const MAX_CATCH_UP: usize = 1024;
/// The largest message that a client may send. None is needed yet but a close.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;

/// Where the client left off.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamQuery {
    after: Option<Revision>,
    incarnation: Option<Incarnation>,
    follow: Option<String>,
    form: Option<String>,
}

pub async fn stream(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<StreamQuery>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|error| {
        Refused::new(Code::InvalidRequest, format!("/v1/stream is a WebSocket: {}", error.body_text()))
    })?;
    let wrong = |why: String| Refused::new(Code::InvalidRequest, why);
    let follow = query.follow.as_deref().map_or(Ok(Follow::default()), str::parse).map_err(wrong)?;
    let form = query.form.as_deref().map_or(Ok(Form::default()), str::parse).map_err(wrong)?;
    if api.telemetry.streams() >= MAX_STREAMS {
        return Err(Refused(Refusal::new(
            Code::Overloaded,
            format!("this node serves {MAX_STREAMS} streams already; connect to another node"),
        )));
    }
    Ok(upgrade.max_message_size(MAX_CLIENT_MESSAGE).on_upgrade(move |socket| async move {
        let _count = api.telemetry.count_stream();
        // A client that goes away is how every stream ends; there is nobody to tell.
        let _ = Stream { api, socket, follow, form, cursor: Revision(0) }.run(query).await;
    }))
}

/// The client is gone, or too slow to keep.
struct Gone;

struct Stream {
    api: Api,
    socket: WebSocket,
    follow: Follow,
    form: Form,
    /// The revision of the last message that carried one.
    cursor: Revision,
}

impl Stream {
    async fn run(mut self, query: StreamQuery) -> Result<(), Gone> {
        let mut applied = self.api.group.published().watch();
        let state = self.api.group.state();
        let hello = ServerMessage::Hello {
            format: STREAM_FORMAT,
            node: self.api.group.me(),
            incarnation: state.incarnation,
        };
        self.send(&hello).await?;
        let known = query.after.filter(|_| query.incarnation.is_none_or(|known| known == state.incarnation));
        match known {
            _ if !self.follow.events => {}
            Some(after) => self.resume(after).await?,
            None => self.send_view(&state).await?,
        }
        let mut shifts = self.api.telemetry.watch_shifts();
        let mut ticks = interval(if self.follow.samples { SAMPLE_EVERY } else { PING_EVERY });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = applied.changed(), if self.follow.events => {
                    changed.map_err(|_| Gone)?;
                    let state = self.api.group.state();
                    self.send_events(&state).await?;
                }
                _ = ticks.tick() => self.send_sign_of_life().await?,
                shift = shifts.changed(), if self.follow.samples => {
                    shift.map_err(|_| Gone)?;
                    self.send_sign_of_life().await?;
                }
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                    // The library answers pings; anything else says nothing to this version.
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    /// Goes on behind `after`, which may be ahead of this node.
    async fn resume(&mut self, after: Revision) -> Result<(), Gone> {
        let group = self.api.group.clone();
        if group.wait_applied(after, clock::now() + BEHIND_PATIENCE).await.is_err() {
            let state = group.state();
            let others = state.membership.iter().filter(|node| node.id != group.me());
            let behind = ServerMessage::Behind {
                revision: state.revision,
                try_urls: others.map(|node| node.public_url.clone()).collect(),
            };
            self.send(&behind).await?;
            return Err(Gone);
        }
        self.cursor = after;
        self.send_events(&group.state()).await
    }

    /// Sends what lies between the cursor and `state`.
    async fn send_events(&mut self, state: &State) -> Result<(), Gone> {
        let batches: Vec<_> = match state.history.after(self.cursor) {
            Some(batches) => batches.take(MAX_CATCH_UP + 1).cloned().collect(),
            None => return self.send_view(state).await,
        };
        if batches.len() > MAX_CATCH_UP {
            return self.send_view(state).await;
        }
        for batch in batches {
            let message = self.api.encoder.events(self.form, self.cursor, &batch);
            self.write(message).await?;
            self.cursor = batch.revision;
        }
        Ok(())
    }

    async fn send_view(&mut self, state: &State) -> Result<(), Gone> {
        let view = Box::new(view(state));
        self.cursor = view.revision;
        self.send(&ServerMessage::View { view }).await
    }

    async fn send_sign_of_life(&mut self) -> Result<(), Gone> {
        let message = if self.follow.samples {
            self.api.encoder.sample(self.form, &self.api.telemetry)
        } else {
            Message::Ping(Bytes::new())
        };
        self.write(message).await
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), Gone> {
        self.write(encode::encode(self.form, message)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}
