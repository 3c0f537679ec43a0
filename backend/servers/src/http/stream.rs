//! `/v1/stream`: the view, and then every event.
//!
//! There is no queue for each client. A client has a cursor into the replicated history; whenever more was applied, it
//! is sent the events behind its cursor. A slow client delays itself alone: when its cursor falls out of the history,
//! or too far behind, it gets a fresh view. Samples are made as they are sent, so a slow client gets fewer of them,
//! never old ones. Clients that read the same are sent the same bytes ([`mod@encode`]).

mod encode;

pub use encode::Encoder;

use self::encode::{Form, LocksPage, encode};

use crate::http::{Api, extract::QueryOf, openapi::problems, problem::ApiError};
use axum::{
    body::Bytes,
    extract::{
        State as Extension,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use ringmaster_cluster::{State, view::view};
use ringmaster_common::{
    error::{Code, Refusal},
    id::{Incarnation, Revision},
    stream::{ClientMessage, MAX_FOLLOWED, STREAM_FORMAT, ServerMessage, Topic},
};
use ringmaster_net::clock;
use ringmaster_services::{ServiceError, admission::Class, cluster_group::Consistency};
use serde::Deserialize;
use std::{pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How often a sample is sent, or a ping to a client that follows none. After a change of leader a sample is sent at
/// once.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// How often changed locks are sent, at most.
const LOCKS_INTERVAL: Duration = Duration::from_millis(100);
/// How often traffic metrics are sent: as often as they are measured.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take to read one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that is behind its client waits to catch up before it names other nodes.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// A client that takes longer than this for one message is counted as lagging.
const LAGGING_AFTER: Duration = Duration::from_millis(250);
/// A client that is this many messages behind is better served with a fresh view.
const MAX_CATCH_UP: usize = 1024;
/// The largest message that a client may send.
const MAX_CLIENT_MESSAGE: usize = 64 << 10;

/// The last position of the client.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Continue behind this revision.
    after: Option<Revision>,
    /// The incarnation that `after` belongs to.
    incarnation: Option<Incarnation>,
    /// The id of the cluster that `after` belongs to. Another cluster may have the same address by now.
    cluster: Option<String>,
}

impl StreamQuery {
    /// Where to continue, unless that is in another history.
    fn position_in(&self, state: &State) -> Option<Revision> {
        let is_of_this = self.incarnation.is_none_or(|known| known == state.incarnation)
            && self.cluster.as_deref().is_none_or(|known| known == state.id);
        self.after.filter(|_| is_of_this)
    }

    /// Whether it says which history `after` belongs to.
    fn names_history(&self) -> bool {
        self.incarnation.is_some() || self.cluster.is_some()
    }
}

/// The view, and then every event, over a WebSocket
///
/// Messages are of the type `ServerMessage`: first a `view` (or, where `after` could be honoured, `resumed` and the
/// events behind it), then one `events` for each revision that made any. `prev` names the one before it, so that
/// a gap can be seen. A reader that falls behind gets a fresh view. A client sends messages of the type `ClientMessage`.
#[utoipa::path(
    get, path = "/v1/stream", tag = "history", operation_id = "stream", params(StreamQuery),
    responses((status = 101, description = "Messages follow"), StreamRefusals)
)]
pub async fn stream(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<StreamQuery>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| {
        ApiError::new(Code::InvalidRequest, format!("/v1/stream is a WebSocket: {}", error.body_text()))
    })?;
    let admitted = api.services.admission.enter(Class::Stream).map_err(ServiceError::from)?;
    let upgrade = upgrade
        .max_message_size(MAX_CLIENT_MESSAGE)
        .max_frame_size(MAX_CLIENT_MESSAGE)
        .protocols(Form::SUBPROTOCOLS);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let _admitted = admitted;
        let _count = api.services.telemetry.count_stream();
        let form = Form::of(socket.protocol().and_then(|protocol| protocol.to_str().ok()));
        let stream = Stream {
            api,
            socket,
            form,
            samples: true,
            audit: None,
            locks: None,
            traffic: None,
            cursor: Revision(0),
        };
        // Every stream ends with its client.
        let _ = stream.run(query).await;
    }))
}

problems!(StreamRefusals: [], InvalidRequest);

/// The client has closed the stream, or is too slow to keep.
struct Closed;

struct Stream {
    api: Api,
    socket: WebSocket,
    form: Form,
    /// Whether the client follows what is measured.
    samples: bool,
    /// The number of the last entry of the audit that the client has, where it follows them.
    audit: Option<u64>,
    locks: Option<FollowedLocks>,
    traffic: Option<FollowedTraffic>,
    /// The revision of the last message that carried one.
    cursor: Revision,
}

/// The page of locks that a client follows.
struct FollowedLocks {
    page: LocksPage,
    /// The revision of the locks when it was sent.
    sent: Option<Revision>,
}

/// The traffic metrics that a client follows: with the endpoints of one upstream, or of none.
struct FollowedTraffic {
    upstream: Option<String>,
}

impl Stream {
    async fn run(mut self, query: StreamQuery) -> Result<(), Closed> {
        let mut applied = self.api.services.group.published().watch();
        let state = self.api.services.group.state();
        match query.position_in(&state) {
            Some(after) => self.resume(after, query.names_history()).await?,
            None => self.send_view(&state).await?,
        }
        let mut leadership_changes = self.api.services.telemetry.watch_leadership_changes();
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lock_ticks = interval(LOCKS_INTERVAL);
        lock_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut traffic_ticks = interval(TRAFFIC_INTERVAL);
        traffic_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = applied.changed() => {
                    changed.map_err(|_| Closed)?;
                    let state = self.api.services.group.state();
                    self.send_events(&state).await?;
                    self.send_audit(&state).await?;
                }
                _ = ticks.tick() => self.send_sample_or_ping().await?,
                _ = lock_ticks.tick(), if self.locks.is_some() => self.send_locks().await?,
                _ = traffic_ticks.tick(), if self.traffic.is_some() => self.send_traffic().await?,
                shift = leadership_changes.changed(), if self.samples => {
                    shift.map_err(|_| Closed)?;
                    self.send_sample_or_ping().await?;
                }
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.handle_message(serde_json::from_str(&text)).await?,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Closed),
                    // The library answers pings.
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    async fn handle_message(&mut self, message: serde_json::Result<ClientMessage>) -> Result<(), Closed> {
        match message {
            Ok(ClientMessage::Follow { topic: Topic::Samples, .. }) => self.samples = true,
            Ok(ClientMessage::Unfollow { topic: Topic::Samples }) => self.samples = false,
            Ok(ClientMessage::Unfollow { topic: Topic::Audit }) => self.audit = None,
            Ok(ClientMessage::Unfollow { topic: Topic::Locks }) => self.locks = None,
            Ok(ClientMessage::Unfollow { topic: Topic::Traffic }) => self.traffic = None,
            Ok(ClientMessage::Follow { topic: Topic::Traffic, upstream, .. }) => {
                self.traffic = Some(FollowedTraffic { upstream });
                self.send_traffic().await?;
            }
            Ok(ClientMessage::Follow { topic: Topic::Locks, limit, prefix, after, contended, .. }) => {
                let limit = limit.unwrap_or(MAX_FOLLOWED).min(MAX_FOLLOWED);
                let page = LocksPage { prefix, after, contended, limit };
                self.locks = Some(FollowedLocks { page, sent: None });
                self.send_locks().await?;
            }
            Ok(ClientMessage::Follow { topic: Topic::Audit, limit, .. }) => {
                let state = self.api.services.group.state();
                let past = limit.unwrap_or(MAX_FOLLOWED).min(MAX_FOLLOWED) as u64;
                self.audit = Some(state.audit.count.saturating_sub(past));
                self.send_audit(&state).await?;
            }
            Err(error) => {
                let refusal = Refusal::new(Code::InvalidRequest, error.to_string());
                self.send(&ServerMessage::Problem { problem: refusal.into() }).await?;
            }
        }
        Ok(())
    }

    /// Continues behind `after`, which may be ahead of this node.
    async fn resume(&mut self, after: Revision, names_history: bool) -> Result<(), Closed> {
        let group = self.api.services.group.clone();
        if group.wait_applied(after, clock::now() + CATCH_UP_TIMEOUT).await.is_err() {
            // Another cluster may have had this address. A revision that this one has not reached is of that one.
            if !names_history
                && let Ok(latest) =
                    group.read(Consistency::Linearizable, clock::now() + CATCH_UP_TIMEOUT).await
                && latest.revision < after
            {
                return self.send_view(&latest).await;
            }
            let state = group.state();
            let others = state.membership.iter().filter(|node| node.id != group.me());
            let behind = ServerMessage::Behind {
                revision: state.revision,
                try_urls: others.map(|node| node.public_url.clone()).collect(),
            };
            self.send(&behind).await?;
            return Err(Closed);
        }
        let state = group.state();
        if state.history.after(after).is_some() {
            let resumed = ServerMessage::Resumed {
                format: STREAM_FORMAT,
                node: group.me(),
                incarnation: state.incarnation,
            };
            self.send(&resumed).await?;
        }
        self.cursor = after;
        self.send_events(&state).await
    }

    /// Sends the events between the cursor and `state`.
    async fn send_events(&mut self, state: &State) -> Result<(), Closed> {
        let batches: Vec<_> = match state.history.after(self.cursor) {
            Some(batches) => batches.take(MAX_CATCH_UP + 1).cloned().collect(),
            None => return self.send_view(state).await,
        };
        if batches.len() > MAX_CATCH_UP {
            return self.send_view(state).await;
        }
        for batch in batches {
            let message = self.api.encoder.events(self.form, self.cursor, &batch);
            self.write("events", message).await?;
            self.cursor = batch.revision;
        }
        Ok(())
    }

    async fn send_view(&mut self, state: &State) -> Result<(), Closed> {
        let view = Box::new(view(state));
        self.cursor = view.revision;
        self.send(&ServerMessage::View { format: STREAM_FORMAT, node: self.api.services.group.me(), view })
            .await
    }

    /// Sends the entries of the audit that the client follows and does not have.
    async fn send_audit(&mut self, state: &State) -> Result<(), Closed> {
        let Some(last) = self.audit.filter(|last| *last < state.audit.count) else { return Ok(()) };
        // A client that is far behind misses some, and sees the gap in their numbers.
        let newest = state.audit.before(u64::MAX).take_while(|entry| entry.number > last).take(MAX_FOLLOWED);
        let mut entries: Vec<_> = newest.map(|entry| entry.as_ref().clone()).collect();
        entries.reverse();
        self.audit = Some(state.audit.count);
        self.send(&ServerMessage::Audit { entries }).await
    }

    /// Sends the page of locks that the client follows, if any lock has changed since.
    async fn send_locks(&mut self) -> Result<(), Closed> {
        let state = self.api.services.group.state();
        let revision = state.locks.revision;
        let Some(followed) = self.locks.as_mut().filter(|followed| followed.sent != Some(revision)) else {
            return Ok(());
        };
        followed.sent = Some(revision);
        let now = self.api.services.group.cluster_time_here();
        let message = self.api.encoder.locks(self.form, &followed.page, &state.locks, now);
        self.write("locks", message).await
    }

    /// Sends the traffic metrics.
    async fn send_traffic(&mut self) -> Result<(), Closed> {
        let Some(followed) = &self.traffic else { return Ok(()) };
        let message =
            self.api.encoder.traffic(self.form, followed.upstream.as_deref(), &self.api.services.telemetry);
        self.write("traffic", message).await
    }

    async fn send_sample_or_ping(&mut self) -> Result<(), Closed> {
        let (kind, message) = if self.samples {
            (
                "sample",
                self.api.encoder.sample(
                    self.form,
                    &self.api.services.telemetry,
                    self.api.services.group.state().locks.counts(),
                ),
            )
        } else {
            ("ping", Message::Ping(Bytes::new()))
        };
        self.write(kind, message).await
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), Closed> {
        self.write(message.kind(), encode(self.form, message)).await
    }

    async fn write(&mut self, kind: &'static str, message: Message) -> Result<(), Closed> {
        let metrics = &self.api.metrics;
        metrics.record_message(kind);
        let mut sending = pin!(self.socket.send(message));
        let sent = match timeout(LAGGING_AFTER, &mut sending).await {
            Ok(sent) => Ok(sent),
            Err(_) => {
                let _slow = metrics.slow_stream();
                timeout(SEND_TIMEOUT - LAGGING_AFTER, sending).await
            }
        };
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(Closed),
        }
    }
}
