//! Stream messages as they go over the wire, each encoded once for all clients that read it.
//!
//! A thousand browsers read the same bytes. An encoded message is kept for a moment, and further clients are sent the
//! same buffer. Views are not kept: they are made when a client connects.

use axum::extract::ws::Message;
use flate2::{Compression, write::DeflateEncoder};
use ringmaster_cluster::{command::ClusterTime, locks::Locks};
use ringmaster_common::{
    event::EventBatch,
    id::Revision,
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
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

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

/// How many encoded revisions are kept, in all forms.
const MAX_KEPT: usize = 256;
/// How many encoded pages of locks are kept, and how many messages about traffic.
const MAX_KEPT_PAGES: usize = 64;
/// For how long a sample or a page is as good as a new one. Ages in it are off by this at the most.
const KEPT_FOR: Duration = Duration::from_millis(100);

/// A page of the locks in use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocksPage {
    pub prefix: String,
    pub after: Option<String>,
    pub contended: bool,
    pub limit: usize,
}

#[derive(Debug, Default)]
pub struct Encoder {
    /// By revision first, so that the oldest ones are dropped first.
    events: Mutex<BTreeMap<(Revision, Revision, Form), Message>>,
    samples: Mutex<BTreeMap<Form, Sample>>,
    pages: Mutex<BTreeMap<(LocksPage, Form), KeptPage>>,
    /// By the upstream whose endpoints they hold.
    traffic: Mutex<BTreeMap<(Option<String>, Form), KeptTraffic>>,
}

#[derive(Debug)]
struct KeptTraffic {
    message: Message,
    at: Instant,
}

#[derive(Debug)]
struct KeptPage {
    message: Message,
    at: Instant,
    /// The revision of the locks then.
    revision: Revision,
}

#[derive(Debug)]
struct Sample {
    message: Message,
    at: Instant,
    /// The number of leadership changes then.
    leadership_changes: u64,
}

impl Encoder {
    /// The events of one revision, for a reader whose last message was of revision `prev`.
    pub fn events(&self, form: Form, prev: Revision, batch: &Arc<EventBatch>) -> Message {
        let key = (batch.revision, prev, form);
        if let Some(known) = lock(&self.events).get(&key) {
            return known.clone();
        }
        let message = encode(form, &ServerMessage::Events { prev, batch: batch.as_ref().clone() });
        let mut events = lock(&self.events);
        events.insert(key, message.clone());
        if events.len() > MAX_KEPT {
            events.pop_first();
        }
        message
    }

    /// The measurements of now, or of a moment ago.
    pub fn sample(&self, form: Form, telemetry: &Telemetry, locks: LockCounts) -> Message {
        let (now, leadership_changes) = (clock::now(), telemetry.leadership_changes());
        let mut samples = lock(&self.samples);
        match samples.get(&form) {
            Some(kept)
                if kept.leadership_changes == leadership_changes
                    && now.saturating_duration_since(kept.at) < KEPT_FOR =>
            {
                kept.message.clone()
            }
            _ => {
                let message =
                    encode(form, &ServerMessage::Sample { sample: Box::new(telemetry.sample()), locks });
                samples.insert(form, Sample { message: message.clone(), at: now, leadership_changes });
                message
            }
        }
    }

    /// A page of the locks as they are now; the remaining times of their leases may be of a moment ago.
    pub fn locks(&self, form: Form, page: &LocksPage, locks: &Locks, time: ClusterTime) -> Message {
        let (now, revision) = (clock::now(), locks.revision);
        let key = (page.clone(), form);
        let mut pages = lock(&self.pages);
        pages.retain(|_, kept| now.saturating_duration_since(kept.at) < KEPT_FOR);
        if let Some(kept) = pages.get(&key).filter(|kept| kept.revision == revision) {
            return kept.message.clone();
        }
        let all = locks.list(&page.prefix, page.after.as_deref(), page.contended, time);
        let listed = page::page(all, page.limit, |lock| lock.name.clone());
        let message = encode(form, &ServerMessage::Locks { revision, page: listed });
        if pages.len() < MAX_KEPT_PAGES {
            pages.insert(key, KeptPage { message: message.clone(), at: now, revision });
        }
        message
    }

    /// The traffic metrics of now, or of a moment ago.
    pub fn traffic(&self, form: Form, upstream: Option<&str>, telemetry: &Telemetry) -> Message {
        let (now, key) = (clock::now(), (upstream.map(str::to_owned), form));
        let mut kept = lock(&self.traffic);
        kept.retain(|_, kept| now.saturating_duration_since(kept.at) < KEPT_FOR);
        if let Some(kept) = kept.get(&key) {
            return kept.message.clone();
        }
        let reported = telemetry.traffic();
        let metrics = reported.iter().flat_map(|figures| figures.iter()).map(|figures| UpstreamMetrics {
            endpoints: match upstream {
                Some(wanted) if wanted == figures.upstream => figures.endpoints.clone(),
                _ => Vec::new(),
            },
            ..figures.clone()
        });
        let message = encode(form, &ServerMessage::Traffic { metrics: metrics.collect() });
        if kept.len() < MAX_KEPT_PAGES {
            kept.insert(key, KeptTraffic { message: message.clone(), at: now });
        }
        message
    }
}

pub fn encode(form: Form, message: &ServerMessage) -> Message {
    match form {
        Form::Json => Message::Text(serde_json::to_string(message).expect("messages are plain data").into()),
        Form::Packed => {
            let plain = rmp_serde::to_vec_named(message).expect("messages are plain data");
            let mut packed = DeflateEncoder::new(Vec::with_capacity(plain.len() / 2), Compression::fast());
            packed
                .write_all(&plain)
                .and_then(|()| packed.finish())
                .map(|bytes| Message::Binary(bytes.into()))
                .expect("a vector takes all that is written")
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
