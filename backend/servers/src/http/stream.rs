//! `/v1/stream`: the view, and then every event.
//!
//! There is no queue for each client. A client has a cursor into the replicated history; whenever more was applied, it
//! is sent the events behind its cursor. A slow client delays itself alone: when its cursor falls out of the history,
//! or too far behind, it gets a fresh view. Samples are made as they are sent, so a slow client gets fewer of them,
//! never old ones. Clients that read the same are sent the same bytes ([`mod@encode`]), large ones in parts
//! ([`split`]). A stream ends with a Close and its code ([`socket`]).

mod encode;
mod socket;
mod split;

pub use encode::Encoder;

use self::{
    encode::{Encoded, Form, LocksPage, encode_all},
    socket::{End, Handshake, Socket},
};
use crate::http::{Api, extract::QueryOf, openapi::problems, problem::ApiError};
use axum::{
    extract::{Request, State as Extension},
    response::Response,
};
use ringmaster_cluster::State;
use ringmaster_common::{
    error::{Code, Refusal},
    event::{Event, EventBatch},
    id::{Incarnation, Revision},
    stream::{ClientMessage, MAX_FOLLOWED, STREAM_FORMAT, ServerMessage, Topic},
};
use ringmaster_net::clock;
use ringmaster_services::{ServiceError, admission::Class, cluster_group::Consistency};
use serde::Deserialize;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// How often a sample is sent. After a change of leader one is sent at once.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// How often a client that follows no samples is sent a ping.
const PING_INTERVAL: Duration = Duration::from_secs(15);
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
/// How many messages are taken from the history at a time, so that a slow client holds few of them.
const CATCH_UP_STEP: usize = 16;

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
        // What such a client has seen after the last revision that was recovered is lost, and no event takes it back.
        let may_be_lost = |after: &Revision| self.incarnation.is_none() && was_recovered_after(state, *after);
        self.after.filter(|after| is_of_this && !may_be_lost(after))
    }

    /// Whether it says which history `after` belongs to.
    fn names_history(&self) -> bool {
        self.incarnation.is_some() || self.cluster.is_some()
    }
}

fn was_recovered_after(state: &State, revision: Revision) -> bool {
    let is_recovery = |event: &Event| matches!(event, Event::ClusterRecovered { .. });
    let mut batches = state.history.after(revision).into_iter().flatten();
    batches.any(|batch| batch.events.iter().any(is_recovery))
}

/// The view, and then every event, over a WebSocket
///
/// Messages are of the type `ServerMessage`: first a `view` (or, where `after` could be honoured, `resumed` and the
/// events behind it), then one `events` for each revision that made any. `prev` names the one before it, so that
/// a gap can be seen. A reader that falls behind gets a fresh view. A client sends messages of the type `ClientMessage`,
/// of up to 64 KiB.
///
/// No message has more than 512 KiB. A view that would says how many `parts` follow at once, as messages of the type
/// `view_part` with items for its lists; events and traffic metrics that would come in several messages with `part` and
/// `parts`.
///
/// The node ends a stream with code 1001 where it stops, 1009 where a message is too large, and 1013 where the client
/// should continue at another node: after `behind`, or because it reads too slowly.
#[utoipa::path(
    get, path = "/v1/stream", tag = "history", operation_id = "stream", params(StreamQuery),
    responses((status = 101, description = "Messages follow"), StreamRefusals)
)]
pub async fn stream(
    Extension(api): Extension<Api>,
    QueryOf(query): QueryOf<StreamQuery>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let handshake = Handshake::of(&mut request, &Form::SUBPROTOCOLS)?;
    let admitted = api.services.admission.enter(Class::Stream).map_err(ServiceError::from)?;
    let form = Form::of(handshake.protocol());
    Ok(handshake.accept(move |mut socket| async move {
        let _admitted = admitted;
        let _count = api.services.telemetry.count_stream();
        let mut stop = api.streams.stop.clone();
        let _open = api.streams.open.read().await;
        let end = {
            let mut stream = Stream {
                api: api.clone(),
                socket: &mut socket,
                form,
                samples: true,
                audit: None,
                locks: None,
                traffic: None,
                cursor: Revision(0),
            };
            tokio::select! {
                Err(end) = stream.run(query) => end,
                () = stopped(&mut stop) => End::STOPPING,
            }
        };
        socket.end(end).await;
    }))
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender the node is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

problems!(StreamRefusals: [], InvalidRequest);

/// What the streams of a node have in common: they end when it stops, and it waits for that.
#[derive(Debug)]
pub struct Streams {
    stop: watch::Receiver<bool>,
    /// Each open stream reads.
    open: tokio::sync::RwLock<()>,
}

impl Streams {
    pub fn new(stop: watch::Receiver<bool>) -> Streams {
        Streams { stop, open: tokio::sync::RwLock::default() }
    }

    /// Waits until no stream is open. No further one is served.
    pub async fn ended(&self) {
        drop(self.open.write().await);
    }
}

struct Stream<'a> {
    api: Api,
    socket: &'a mut Socket,
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

impl Stream<'_> {
    async fn run(&mut self, query: StreamQuery) -> Result<Infallible, End> {
        let mut applied = self.api.services.group.published().watch();
        let position = query.position_in(&self.api.services.group.state());
        match position {
            Some(after) => self.resume(after, query.names_history()).await?,
            None => {
                self.send_view().await?;
                self.send_events().await?;
            }
        }
        let mut leadership_changes = self.api.services.telemetry.watch_leadership_changes();
        let [mut ticks, mut pings, mut lock_ticks, mut traffic_ticks] =
            [SAMPLE_INTERVAL, PING_INTERVAL, LOCKS_INTERVAL, TRAFFIC_INTERVAL].map(|period| {
                let mut ticks = interval(period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            });
        loop {
            tokio::select! {
                changed = applied.changed() => {
                    changed.map_err(|_| End::STOPPING)?;
                    self.send_events().await?;
                    self.send_audit().await?;
                }
                _ = ticks.tick(), if self.samples => self.send_sample().await?,
                _ = pings.tick(), if !self.samples => self.write("ping", &Message::Ping(Bytes::new())).await?,
                _ = lock_ticks.tick(), if self.locks.is_some() => self.send_locks().await?,
                _ = traffic_ticks.tick(), if self.traffic.is_some() => self.send_traffic().await?,
                shift = leadership_changes.changed(), if self.samples => {
                    shift.map_err(|_| End::STOPPING)?;
                    self.send_sample().await?;
                }
                message = self.socket.receive() => match message? {
                    Message::Text(text) => self.handle_message(serde_json::from_str(&text)).await?,
                    Message::Binary(_) => {
                        self.refuse("messages to a node are JSON text, whatever the subprotocol".to_owned()).await?;
                    }
                    _ => {}
                },
            }
        }
    }

    async fn handle_message(&mut self, message: serde_json::Result<ClientMessage>) -> Result<(), End> {
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
                let past = limit.unwrap_or(MAX_FOLLOWED).min(MAX_FOLLOWED) as u64;
                let count = self.api.services.group.state().audit.count;
                self.audit = Some(count.saturating_sub(past));
                self.send_audit().await?;
            }
            Err(error) => self.refuse(error.to_string()).await?,
        }
        Ok(())
    }

    async fn refuse(&mut self, detail: String) -> Result<(), End> {
        let refusal = Refusal::new(Code::InvalidRequest, detail);
        self.send(&ServerMessage::Problem { problem: refusal.into() }).await
    }

    /// Continues behind `after`, which may be ahead of this node.
    async fn resume(&mut self, after: Revision, names_history: bool) -> Result<(), End> {
        let group = self.api.services.group.clone();
        if group.wait_applied(after, clock::now() + CATCH_UP_TIMEOUT).await.is_err() {
            // Another cluster may have had this address. A revision that this one has not reached is of that one.
            if !names_history
                && let Ok(latest) =
                    group.read(Consistency::Linearizable, clock::now() + CATCH_UP_TIMEOUT).await
                && latest.revision < after
            {
                self.send_view().await?;
                return self.send_events().await;
            }
            let behind = {
                let state = group.state();
                let others = state.membership.iter().filter(|node| node.id != group.me());
                ServerMessage::Behind {
                    revision: state.revision,
                    try_urls: others.map(|node| node.public_url.clone()).collect(),
                    cluster: state.id.clone(),
                    incarnation: state.incarnation,
                }
            };
            self.send(&behind).await?;
            return Err(End::BEHIND);
        }
        self.cursor = after;
        let resumed = {
            let state = group.state();
            state.history.after(after).is_some().then(|| ServerMessage::Resumed {
                format: STREAM_FORMAT,
                node: group.me(),
                incarnation: state.incarnation,
                cluster: state.id.clone(),
            })
        };
        if let Some(resumed) = resumed {
            self.send(&resumed).await?;
        }
        self.send_events().await
    }

    /// Sends the events between the cursor and the state, or a fresh view in their place.
    async fn send_events(&mut self) -> Result<(), End> {
        loop {
            let Some(batches) = self.next_batches() else {
                self.send_view().await?;
                continue;
            };
            if batches.is_empty() {
                return Ok(());
            }
            for batch in batches {
                let messages = self.api.encoder.events(self.form, self.cursor, &batch);
                self.write_all(&messages).await?;
                self.cursor = batch.revision;
            }
        }
    }

    /// The next batches of events behind the cursor, or none where the client is too far behind.
    fn next_batches(&self) -> Option<Vec<Arc<EventBatch>>> {
        let state = self.api.services.group.state();
        let behind: Vec<_> = state.history.after(self.cursor)?.take(MAX_CATCH_UP + 1).collect();
        (behind.len() <= MAX_CATCH_UP).then(|| behind.into_iter().take(CATCH_UP_STEP).cloned().collect())
    }

    /// Sends a view, which may not be the newest one.
    async fn send_view(&mut self) -> Result<(), End> {
        let group = self.api.services.group.clone();
        let view =
            self.api.encoder.view(self.form, group.me(), || group.state()).await.ok_or(End::OVERLOADED)?;
        self.cursor = view.revision;
        self.write_all(&view.messages).await
    }

    /// Sends the entries of the audit that the client follows and does not have.
    async fn send_audit(&mut self) -> Result<(), End> {
        let entries = {
            let state = self.api.services.group.state();
            let Some(last) = self.audit.filter(|last| *last < state.audit.count) else { return Ok(()) };
            // A client that is far behind misses some, and sees the gap in their numbers.
            let newest =
                state.audit.before(u64::MAX).take_while(|entry| entry.number > last).take(MAX_FOLLOWED);
            let mut entries: Vec<_> = newest.map(|entry| entry.as_ref().clone()).collect();
            entries.reverse();
            self.audit = Some(state.audit.count);
            entries
        };
        self.write_all(&encode_all(self.form, &split::audit(entries))).await
    }

    /// Sends the page of locks that the client follows, if any lock has changed since.
    async fn send_locks(&mut self) -> Result<(), End> {
        let state = self.api.services.group.state();
        let revision = state.locks.revision;
        let Some(followed) = self.locks.as_mut().filter(|followed| followed.sent != Some(revision)) else {
            return Ok(());
        };
        followed.sent = Some(revision);
        let now = self.api.services.group.cluster_time_here();
        let messages = self.api.encoder.locks(self.form, &followed.page, &state.locks, now);
        drop(state);
        self.write_all(&messages).await
    }

    /// Sends the traffic metrics.
    async fn send_traffic(&mut self) -> Result<(), End> {
        let Some(followed) = &self.traffic else { return Ok(()) };
        let messages =
            self.api.encoder.traffic(self.form, followed.upstream.as_deref(), &self.api.services.telemetry);
        self.write_all(&messages).await
    }

    async fn send_sample(&mut self) -> Result<(), End> {
        let locks = self.api.services.group.state().locks.counts();
        let messages = self.api.encoder.sample(self.form, &self.api.services.telemetry, locks);
        self.write_all(&messages).await
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), End> {
        self.write_all(&encode_all(self.form, std::slice::from_ref(message))).await
    }

    async fn write_all(&mut self, messages: &[Encoded]) -> Result<(), End> {
        for encoded in messages {
            self.write(encoded.kind, &encoded.message).await?;
        }
        Ok(())
    }

    async fn write(&mut self, kind: &'static str, message: &Message) -> Result<(), End> {
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
        sent.unwrap_or(Err(End::SLOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_cluster::{
        Body, Entry,
        command::{Actor, ClusterTime, Command, Record, Recovery, Request},
        version::{FEATURE_LEVEL, Formats},
    };
    use ringmaster_common::{Timestamp, id::NodeId};

    #[test]
    fn a_client_that_names_no_history_begins_anew_after_a_recovery() {
        let mut state = State::default();
        let mut apply = |index: u64, command| {
            let request = Request {
                id: index.to_string(),
                actor: Actor::Operator("ops".to_owned()),
                repeatable: false,
                fingerprint: None,
                resent_after: None,
            };
            let (format, stamp, wall) = (Formats::NEWEST.record, ClusterTime(0), Timestamp::UNIX_EPOCH);
            let record = Record { format, stamp, wall, request, command };
            state.apply(Entry { index, body: Body::Command(Box::new(record)) });
        };
        let (incarnation, survivor) = (Incarnation(2), NodeId(1));
        apply(1, Command::RecordElection { term: 1, leader: survivor });
        apply(900, Command::RecoverCluster(Recovery { incarnation, feature_level: FEATURE_LEVEL, survivor }));
        apply(901, Command::RecordElection { term: 2, leader: survivor });
        let position = |after, incarnation: Option<u64>| {
            let query = StreamQuery {
                after: Some(Revision(after)),
                incarnation: incarnation.map(Incarnation),
                cluster: Some(String::new()),
            };
            query.position_in(&state)
        };
        // 500 was of a node that is lost.
        assert_eq!(position(500, None), None);
        assert_eq!(position(1, Some(1)), None);
        assert_eq!(position(900, None), Some(Revision(900)));
        assert_eq!(position(900, Some(2)), Some(Revision(900)));
    }
}
