//! Large messages as several smaller ones, none above [`MAX_MESSAGE_BYTES`].

use ringmaster_common::{
    event::{AuditEntry, Event, EventBatch},
    id::{NodeId, Revision},
    lock::Lock,
    page::Page,
    stream::{MAX_MESSAGE_BYTES, STREAM_FORMAT, ServerMessage, Split},
    traffic::{live::UpstreamMetrics, upstream::Upstream},
    view::{ClusterView, json_bytes},
};
use serde::Serialize;
use std::mem;

/// Room in a message for everything but its items.
const OVERHEAD: usize = 8 << 10;
/// How many bytes the items of a message have.
const MAX_ITEM_BYTES: usize = MAX_MESSAGE_BYTES - OVERHEAD;
/// How many bytes of items a part has. Smaller than it must be: a part that waits for a slow reader holds its place.
const PART_BYTES: usize = 256 << 10;

/// The view, whole or as a header and its parts.
pub fn view(node: NodeId, view: ClusterView) -> Vec<ServerMessage> {
    let message = |parts: u32, view: ClusterView| ServerMessage::View {
        format: STREAM_FORMAT,
        node,
        parts,
        view: Box::new(view),
    };
    if json_bytes(&view) <= MAX_ITEM_BYTES {
        return vec![message(0, view)];
    }
    let (header, parts) = view.split(PART_BYTES);
    let mut messages = vec![message(parts.len() as u32, header)];
    messages.extend(parts.into_iter().map(|part| ServerMessage::ViewPart { part: Box::new(part) }));
    messages
}

/// The events of one revision. The first message continues after `prev`, further ones after the revision itself.
pub fn events(prev: Revision, batch: &EventBatch) -> Vec<ServerMessage> {
    if json_bytes(batch) <= MAX_ITEM_BYTES {
        return vec![ServerMessage::Events { prev, split: Split::default(), batch: batch.clone() }];
    }
    let all = batch.events.iter().flat_map(|event| small_events(batch, event));
    let groups = groups(all, PART_BYTES);
    let parts = groups.len() as u32;
    let parts = groups.into_iter().zip(1..).map(|(events, part)| ServerMessage::Events {
        prev: if part == 1 { prev } else { batch.revision },
        split: Split { part, parts },
        batch: EventBatch { events, ..without_events(batch) },
    });
    parts.collect()
}

fn without_events(batch: &EventBatch) -> EventBatch {
    EventBatch {
        revision: batch.revision,
        at: batch.at,
        actor: batch.actor.clone(),
        request_id: batch.request_id.clone(),
        events: Vec::new(),
    }
}

/// An event, or events that fold to the same: an upstream without most of its endpoints, and then these.
fn small_events(batch: &EventBatch, event: &Event) -> Vec<Event> {
    let Event::UpstreamPut { upstream } = event else { return vec![event.clone()] };
    // The fold of an endpoint marks its upstream as configured by the batch.
    let is_by_batch = (upstream.version, upstream.updated_at, upstream.updated_by.as_str())
        == (batch.revision, batch.at, batch.actor.as_str());
    if !is_by_batch || json_bytes(upstream) <= MAX_ITEM_BYTES {
        return vec![event.clone()];
    }
    let mut bare = Upstream::clone(upstream);
    let endpoints = mem::take(&mut bare.config.endpoints);
    let name = upstream.name.clone();
    let further =
        endpoints.into_iter().map(|endpoint| Event::EndpointPut { upstream: name.clone(), endpoint });
    [Event::UpstreamPut { upstream: Box::new(bare) }].into_iter().chain(further).collect()
}

pub fn traffic(metrics: Vec<UpstreamMetrics>) -> Vec<ServerMessage> {
    if json_bytes(&metrics) <= MAX_ITEM_BYTES {
        return vec![ServerMessage::Traffic { split: Split::default(), metrics }];
    }
    let groups = groups(metrics, PART_BYTES);
    let parts = groups.len() as u32;
    let part = |(metrics, part)| ServerMessage::Traffic { split: Split { part, parts }, metrics };
    groups.into_iter().zip(1..).map(part).collect()
}

/// Entries are numbered, so they need no further mark.
pub fn audit(entries: Vec<AuditEntry>) -> Vec<ServerMessage> {
    groups(entries, PART_BYTES).into_iter().map(|entries| ServerMessage::Audit { entries }).collect()
}

/// The page up to the lock that would make it too large; the next page begins there.
pub fn locks(revision: Revision, mut page: Page<Lock>) -> ServerMessage {
    let mut bytes = 0;
    let fitting = page.items.iter().take_while(|lock| {
        bytes += json_bytes(*lock);
        bytes <= MAX_ITEM_BYTES
    });
    let count = fitting.count().max(1);
    if count < page.items.len() {
        page.items.truncate(count);
        page.next = page.items.last().map(|lock| lock.name.clone());
    }
    ServerMessage::Locks { revision, page }
}

/// Items in groups of up to so many bytes of JSON, or of one item.
fn groups<T: Serialize>(items: impl IntoIterator<Item = T>, max_bytes: usize) -> Vec<Vec<T>> {
    let (mut groups, mut open, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = json_bytes(&item);
        if !open.is_empty() && bytes + more > max_bytes {
            groups.push(mem::take(&mut open));
            bytes = 0;
        }
        bytes += more;
        open.push(item);
    }
    if !open.is_empty() {
        groups.push(open);
    }
    groups
}

#[cfg(test)]
mod tests;
