//! JSON as the types of the contract.
//!
//! The text becomes a tree, and the tree is taken apart by a deserializer whose errors name a field
//! at the most. Messages about what was expected in place of what would be a fifth of all that the
//! browser has to load, for answers that only a node of another version could give.

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, map};
use std::fmt;

/// Reads a value. All go through serde's buffer, as the tagged messages of the stream do anyway, so
/// that there is one decoder of each type.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    #[derive(Deserialize)]
    struct Buffered<T> {
        #[serde(flatten)]
        value: T,
    }
    let tree: Value = serde_json::from_str(text).map_err(|_| Unreadable { what: "the syntax" })?;
    Buffered::deserialize(Tree(tree)).map(|Buffered { value }| value)
}

/// What could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    what: &'static str,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Unreadable { what: "a value" }
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Unreadable { what: "the type of a value" }
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Unreadable { what: "a value" }
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Unreadable { what: "the length of a list" }
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Unreadable { what: "a word that this page does not know" }
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Unreadable { what: "a field that this page does not know" }
    }

    fn missing_field(field: &'static str) -> Self {
        Unreadable { what: field }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Unreadable { what: field }
    }
}

struct Tree(Value);

impl<'de> Deserializer<'de> for Tree {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(fields) => visitor.visit_map(Fields::new(fields)),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        self.0.next().map(|item| seed.deserialize(Tree(item))).transpose()
    }
}

struct Fields {
    rest: map::IntoIter,
    /// Of the field whose name was given out last.
    value: Value,
}

impl Fields {
    fn new(fields: Map<String, Value>) -> Self {
        Fields { rest: fields.into_iter(), value: Value::Null }
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.value = value;
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unreadable> {
        seed.deserialize(Tree(self.value.take()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        Timestamp,
        cluster::{NodeStatus, Role},
        event::{Event, EventBatch},
        id::{NodeId, Revision},
        lock::LockCounts,
        page::Page,
        stream::ServerMessage,
        telemetry::Sample,
    };

    /// What the server would write is what the page reads.
    fn read_back<T: serde::Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: &T) {
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(from_str::<T>(&text).as_ref(), Ok(value), "{text}");
    }

    fn batch() -> EventBatch {
        EventBatch {
            revision: Revision((1 << 53) - 1),
            at: Timestamp::UNIX_EPOCH,
            actor: "operator".to_owned(),
            request_id: "r".to_owned(),
            events: vec![Event::NodeStatusChanged {
                node: NodeId(3),
                from: NodeStatus::Up,
                to: NodeStatus::Down,
                reason: "nodes 1 and 2 agree".to_owned(),
            }],
        }
    }

    #[test]
    fn what_a_node_writes_is_read() {
        read_back(&ServerMessage::Events { prev: Revision(7), batch: batch() });
        read_back(&ServerMessage::View { format: 1, node: NodeId(1), view: Box::default() });
        read_back(&Page { items: vec![batch()], next: None });
        let mut lead = crate::figures::tests::report(1, Role::Leader, 7);
        lead.report.proposals_per_s = 812.5;
        lead.report.commit_p99_us = Some(3_400);
        let sample: Sample = crate::figures::tests::sample(vec![lead]);
        read_back(&ServerMessage::Sample { sample: Box::new(sample), locks: LockCounts::default() });
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |text: &str| from_str::<Page<EventBatch>>(text).unwrap_err().to_string();
        assert_eq!(error("{"), "the syntax");
        assert_eq!(error("{\"next\":null}"), "items");
        assert_eq!(error("{\"items\":3,\"next\":null}"), "the type of a value");
    }
}
