//! Stream messages as they go over the wire, each encoded once for all clients that read it.
//!
//! A thousand browsers read the same bytes. Encoded messages are kept for a moment, and further clients are sent the
//! same buffers. A view stays in memory for as long as a client reads it; slow clients cannot hold many of them,
//! because beyond [`MAX_VIEW_BYTES`] new clients read one that is there already, and then the events after it.

mod kept;

use self::kept::{ByteSize, Kept, lock};
use super::split;
use flate2::{Compression, write::DeflateEncoder};
use ringmaster_cluster::{State, command::ClusterTime, locks::Locks, view::view};
use ringmaster_common::{
    event::EventBatch,
    id::{NodeId, Revision},
    lock::LockCounts,
    stream::{JSON, PACKED, ServerMessage},
    traffic::live::UpstreamMetrics,
};
use ringmaster_net::clock;
use ringmaster_services::page;
use ringmaster_telemetry::Telemetry;
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};
use tokio_tungstenite::tungstenite::Message;

/// How messages are encoded: by the subprotocol of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    Json,
    Packed,
}

impl Form {
    pub const SUBPROTOCOLS: [&str; 2] = [JSON, PACKED];

    /// The form of the subprotocol that was agreed on.
    pub fn of(subprotocol: Option<&str>) -> Form {
        if subprotocol == Some(PACKED) { Form::Packed } else { Form::Json }
    }
}

/// How many encoded revisions are kept, in all forms, and how many bytes they have.
const MAX_KEPT: usize = 256;
const MAX_KEPT_BYTES: usize = 16 << 20;
/// How many encoded pages of locks are kept, and how many messages about traffic.
const MAX_KEPT_PAGES: usize = 64;
/// For how long a sample or a page is as good as a new one. Ages in it are off by this at the most.
const KEPT_FOR: Duration = Duration::from_millis(100);
/// How many bytes of views clients may read at a time before further ones share a view.
const MAX_VIEW_BYTES: usize = 64 << 20;

/// One message, or the parts of one, in the order in which they are sent.
pub type Messages = Arc<[Encoded]>;

/// An encoded message.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub kind: &'static str,
    pub message: Message,
}

/// A page of the locks in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocksPage {
    pub prefix: String,
    pub after: Option<String>,
    pub contended: bool,
    pub limit: usize,
}

/// An encoded view.
#[derive(Debug)]
pub struct EncodedView {
    form: Form,
    pub revision: Revision,
    pub messages: Messages,
    bytes: usize,
}

#[derive(Debug, Default)]
pub struct Encoder {
    /// By revision first, so that the oldest ones are dropped first.
    events: Mutex<Kept<(Revision, Revision, Form), Messages>>,
    samples: Mutex<BTreeMap<Form, Sample>>,
    pages: Mutex<BTreeMap<(LocksPage, Form), KeptPage>>,
    /// By the upstream whose endpoints they hold.
    traffic: Mutex<BTreeMap<(Option<String>, Form), KeptTraffic>>,
    /// The views that clients read now, oldest first. One is encoded at a time, and further clients wait for it.
    views: tokio::sync::Mutex<Vec<Weak<EncodedView>>>,
}

#[derive(Debug)]
struct KeptTraffic {
    messages: Messages,
    at: Instant,
}

#[derive(Debug)]
struct KeptPage {
    messages: Messages,
    at: Instant,
    /// The revision of the locks then.
    revision: Revision,
}

#[derive(Debug)]
struct Sample {
    messages: Messages,
    at: Instant,
    /// The number of leadership changes then.
    leadership_changes: u64,
}

impl Encoder {
    /// The view of the state, or a newer one. Where clients hold too many views already, the newest of these, if the
    /// history holds the events after it; else none.
    pub async fn view(
        &self,
        form: Form,
        node: NodeId,
        state: impl Fn() -> Arc<State>,
    ) -> Option<Arc<EncodedView>> {
        let wanted = state().history.last_revision();
        let mut views = self.views.lock().await;
        views.retain(|view| view.strong_count() > 0);
        let read: Vec<_> = views.iter().filter_map(Weak::upgrade).collect();
        let newest = read.iter().rfind(|view| view.form == form);
        if let Some(known) = newest.filter(|view| view.revision >= wanted) {
            return Some(known.clone());
        }
        if read.iter().map(|view| view.bytes).sum::<usize>() > MAX_VIEW_BYTES {
            let is_in_history = |view: &&Arc<EncodedView>| view.revision >= state().history.dropped();
            return newest.filter(is_in_history).cloned();
        }
        let state = state();
        let encoding = tokio::task::spawn_blocking(move || {
            let view = view(&state);
            let revision = view.revision;
            let messages = encode_all(form, &split::view(node, view));
            let bytes = messages.bytes();
            Arc::new(EncodedView { form, revision, messages, bytes })
        });
        let encoded = encoding.await.ok()?;
        views.push(Arc::downgrade(&encoded));
        Some(encoded)
    }

    /// The events of one revision, for a reader whose last message was of revision `prev`.
    pub fn events(&self, form: Form, prev: Revision, batch: &EventBatch) -> Messages {
        let key = (batch.revision, prev, form);
        if let Some(known) = lock(&self.events).get(&key) {
            return known.clone();
        }
        let messages = encode_all(form, &split::events(prev, batch));
        lock(&self.events).put(key, messages.clone(), MAX_KEPT, MAX_KEPT_BYTES);
        messages
    }

    /// The measurements of now, or of a moment ago.
    pub fn sample(&self, form: Form, telemetry: &Telemetry, locks: LockCounts) -> Messages {
        let (now, leadership_changes) = (clock::now(), telemetry.leadership_changes());
        let mut samples = lock(&self.samples);
        match samples.get(&form) {
            Some(kept)
                if kept.leadership_changes == leadership_changes
                    && now.saturating_duration_since(kept.at) < KEPT_FOR =>
            {
                kept.messages.clone()
            }
            _ => {
                let message = ServerMessage::Sample { sample: Box::new(telemetry.sample()), locks };
                let messages = encode_all(form, &[message]);
                samples.insert(form, Sample { messages: messages.clone(), at: now, leadership_changes });
                messages
            }
        }
    }

    /// A page of the locks as they are now; the remaining times of their leases may be of a moment ago.
    pub fn locks(&self, form: Form, page: &LocksPage, locks: &Locks, time: ClusterTime) -> Messages {
        let (now, revision) = (clock::now(), locks.revision);
        let key = (page.clone(), form);
        let mut pages = lock(&self.pages);
        pages.retain(|_, kept| now.saturating_duration_since(kept.at) < KEPT_FOR);
        if let Some(kept) = pages.get(&key).filter(|kept| kept.revision == revision) {
            return kept.messages.clone();
        }
        let all = locks.list(&page.prefix, page.after.as_deref(), page.contended, time);
        let listed = page::page(all, page.limit, |lock| lock.name.clone());
        let messages = encode_all(form, &[split::locks(revision, listed)]);
        if pages.len() < MAX_KEPT_PAGES {
            pages.insert(key, KeptPage { messages: messages.clone(), at: now, revision });
        }
        messages
    }

    /// The traffic metrics of now, or of a moment ago.
    pub fn traffic(&self, form: Form, upstream: Option<&str>, telemetry: &Telemetry) -> Messages {
        let (now, key) = (clock::now(), (upstream.map(str::to_owned), form));
        let mut kept = lock(&self.traffic);
        kept.retain(|_, kept| now.saturating_duration_since(kept.at) < KEPT_FOR);
        if let Some(kept) = kept.get(&key) {
            return kept.messages.clone();
        }
        let reported = telemetry.traffic();
        let metrics = reported.iter().flat_map(|figures| figures.iter()).map(|figures| UpstreamMetrics {
            endpoints: match upstream {
                Some(wanted) if wanted == figures.upstream => figures.endpoints.clone(),
                _ => Vec::new(),
            },
            ..figures.clone()
        });
        let messages = encode_all(form, &split::traffic(metrics.collect()));
        if kept.len() < MAX_KEPT_PAGES {
            kept.insert(key, KeptTraffic { messages: messages.clone(), at: now });
        }
        messages
    }
}

pub fn encode_all(form: Form, messages: &[ServerMessage]) -> Messages {
    let encoded =
        messages.iter().map(|message| Encoded { kind: message.kind(), message: encode(form, message) });
    encoded.collect()
}

fn encode(form: Form, message: &ServerMessage) -> Message {
    match form {
        Form::Json => Message::text(serde_json::to_string(message).expect("messages are plain data")),
        Form::Packed => {
            let plain = rmp_serde::to_vec_named(message).expect("messages are plain data");
            let mut packed = DeflateEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
            packed
                .write_all(&plain)
                .and_then(|()| packed.finish())
                .map(Message::binary)
                .expect("a vector takes all that is written")
        }
    }
}

#[cfg(test)]
mod tests;
