//! Puts the parts of large messages together, for every reader of a stream.

use super::{ServerMessage, Split};
use crate::{event::EventBatch, id::Revision, traffic::live::UpstreamMetrics};
use std::fmt;

/// The parts of a message that is not complete yet. One for each connection.
#[derive(Debug, Default)]
pub struct Assembler {
    /// A header with the parts that have come, and how many there are.
    view: Option<(ServerMessage, u32)>,
    events: Option<(Revision, EventBatch, u32)>,
    metrics: Vec<UpstreamMetrics>,
}

/// A part is missing: the stream cannot be understood any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a message is missing")
    }
}

impl Assembler {
    /// The message if it is whole, else the whole message once its last part has come.
    pub fn take(&mut self, message: ServerMessage) -> Result<Option<ServerMessage>, Interrupted> {
        if let Some((view, came)) = self.view.take() {
            return self.take_view_part(view, came, message);
        }
        match message {
            ServerMessage::View { parts, .. } if parts > 0 => {
                self.view = Some((message, 0));
                Ok(None)
            }
            ServerMessage::ViewPart { .. } => Err(Interrupted),
            ServerMessage::Events { prev, split, batch } => self.take_events(prev, split, batch),
            ServerMessage::Traffic { split, metrics } => {
                if split.part <= 1 {
                    self.metrics.clear();
                }
                self.metrics.extend(metrics);
                let metrics = split.is_last().then(|| std::mem::take(&mut self.metrics));
                Ok(metrics.map(|metrics| ServerMessage::Traffic { split: Split::default(), metrics }))
            }
            whole => Ok(Some(whole)),
        }
    }

    fn take_view_part(
        &mut self,
        mut header: ServerMessage,
        came: u32,
        message: ServerMessage,
    ) -> Result<Option<ServerMessage>, Interrupted> {
        let (ServerMessage::View { parts, view, .. }, ServerMessage::ViewPart { part }) =
            (&mut header, message)
        else {
            return Err(Interrupted);
        };
        if part.revision != view.revision || part.part != came + 1 {
            return Err(Interrupted);
        }
        let is_last = part.part == *parts;
        view.add(*part);
        if is_last {
            *parts = 0;
            return Ok(Some(header));
        }
        self.view = Some((header, came + 1));
        Ok(None)
    }

    fn take_events(
        &mut self,
        prev: Revision,
        split: Split,
        batch: EventBatch,
    ) -> Result<Option<ServerMessage>, Interrupted> {
        let (prev, batch) = match self.events.take() {
            None if split.part <= 1 => (prev, batch),
            Some((first_prev, mut first, came))
                if batch.revision == first.revision && split.part == came + 1 =>
            {
                first.events.extend(batch.events);
                (first_prev, first)
            }
            _ => return Err(Interrupted),
        };
        if split.is_last() {
            return Ok(Some(ServerMessage::Events { prev, split: Split::default(), batch }));
        }
        self.events = Some((prev, batch, split.part));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use serde_json::{Value, json};

    fn message(value: Value) -> ServerMessage {
        serde_json::from_value(value).unwrap()
    }

    fn events(prev: u64, revision: u64, count: u64, split: Value) -> ServerMessage {
        let mut value = json!({
            "type": "events", "prev": prev, "revision": revision, "at": "2026-01-01T00:00:00Z", "actor": "ops",
            "request_id": "r", "events": [Event::Audited { count }]
        });
        value.as_object_mut().unwrap().extend(split.as_object().unwrap().clone());
        message(value)
    }

    fn header(parts: u32) -> ServerMessage {
        message(json!({
            "type": "view", "format": 1, "node": 1, "parts": parts, "name": "c", "id": "c1", "incarnation": 1,
            "revision": 5, "elected": null, "nodes": [], "settings": [], "operations": [], "audit_count": 0
        }))
    }

    fn part(number: u32, revision: u64) -> ServerMessage {
        let setting = json!({ "key": format!("k{number}"), "value": 1, "version": 1, "updated_at": null, "updated_by": null });
        message(json!({ "type": "view_part", "revision": revision, "part": number, "settings": [setting] }))
    }

    #[test]
    fn a_view_is_complete_with_its_last_part() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(header(2)), Ok(None));
        assert_eq!(assembler.take(part(1, 5)), Ok(None));
        let Ok(Some(ServerMessage::View { parts: 0, view, .. })) = assembler.take(part(2, 5)) else {
            panic!("the view is complete")
        };
        assert_eq!(view.settings.keys().collect::<Vec<_>>(), ["k1", "k2"]);
        assert!(
            matches!(assembler.take(header(0)), Ok(Some(ServerMessage::View { .. }))),
            "it is whole at once"
        );
    }

    #[test]
    fn a_missing_part_is_noticed() {
        for wrong in [part(2, 5), part(1, 6), header(0), events(5, 6, 1, json!({}))] {
            let mut assembler = Assembler::default();
            assert_eq!(assembler.take(header(2)), Ok(None));
            assert_eq!(assembler.take(wrong), Err(Interrupted));
        }
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(part(1, 5)), Err(Interrupted), "there was no header");
        assert_eq!(assembler.take(events(4, 5, 1, json!({ "part": 2, "parts": 2 }))), Err(Interrupted));
        assert_eq!(assembler.take(events(4, 5, 1, json!({ "part": 1, "parts": 2 }))), Ok(None));
        assert_eq!(assembler.take(events(5, 6, 1, json!({}))), Err(Interrupted));
    }

    #[test]
    fn the_events_of_a_revision_come_together() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(events(4, 7, 1, json!({ "part": 1, "parts": 2 }))), Ok(None));
        let Ok(Some(ServerMessage::Events { prev, batch, split })) =
            assembler.take(events(7, 7, 2, json!({ "part": 2, "parts": 2 })))
        else {
            panic!("the events are complete")
        };
        assert_eq!((prev, batch.revision, split), (Revision(4), Revision(7), Split::default()));
        assert_eq!(batch.events, [Event::Audited { count: 1 }, Event::Audited { count: 2 }]);
    }

    #[test]
    fn the_metrics_of_all_parts_come_together() {
        let traffic = |name: &str, part: u32| {
            let metrics = json!([{
                "upstream": name, "node": 1, "requests_per_s": 1.0, "failures_per_s": 0.0, "retries_per_s": 0.0,
                "p50_us": null, "p99_us": null, "in_flight": 0, "endpoints": []
            }]);
            message(json!({ "type": "traffic", "part": part, "parts": 2, "metrics": metrics }))
        };
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take(traffic("lost", 1)), Ok(None));
        assert_eq!(assembler.take(traffic("a", 1)), Ok(None));
        let Ok(Some(ServerMessage::Traffic { metrics, .. })) = assembler.take(traffic("b", 2)) else {
            panic!("the metrics are complete")
        };
        assert_eq!(metrics.iter().map(|metrics| metrics.upstream.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
