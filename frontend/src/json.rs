//! JSON as the types of the contract.
//!
//! The text becomes a tree, and the tree is taken apart by a deserializer that has one way to read each
//! kind of value: a struct is an object, a tagged enum is an object whose `type` names the variant. Its
//! errors name a field at the most. What serde would bring beside that, for formats in which anything
//! may be anything, and messages about what was expected in place of what, was a fifth of all that the
//! browser has to load.
//!
//! The browser therefore derives its tagged enums as serde tags them by default, outside
//! (`ringmaster_common::event::Event` says so), and this module moves the tag. Natively they are derived as
//! the nodes derive them, and both are read here alike.

use ringmaster_common::{
    lock::LockDetail,
    stream::ServerMessage,
    telemetry::{AgedReport, Sample},
};
use serde::{
    Deserializer, Serialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
        VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, map};
use std::fmt;

/// The field that names the variant of a tagged enum.
const TAG: &str = "type";

pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    T::deserialize(Tree(tree(text)?))
}

/// A message of the stream, of the kinds that this page asks for. They are taken apart here, because
/// what serde derives for objects inside objects would have to copy each of them first.
pub fn message(text: &str) -> Result<ServerMessage, Unreadable> {
    let Value::Object(mut fields) = tree(text)? else { return Err(WRONG_TYPE) };
    let kind: String = take(&mut fields, TAG)?;
    Ok(match kind.as_str() {
        "view" => ServerMessage::View {
            format: take(&mut fields, "format")?,
            node: take(&mut fields, "node")?,
            view: read(fields)?,
        },
        "resumed" => ServerMessage::Resumed {
            format: take(&mut fields, "format")?,
            node: take(&mut fields, "node")?,
            incarnation: take(&mut fields, "incarnation")?,
        },
        "events" => ServerMessage::Events { prev: take(&mut fields, "prev")?, batch: read(fields)? },
        "sample" => {
            ServerMessage::Sample { locks: take(&mut fields, "locks")?, sample: Box::new(sample(fields)?) }
        }
        "locks" => ServerMessage::Locks { revision: take(&mut fields, "revision")?, page: read(fields)? },
        "traffic" => ServerMessage::Traffic { figures: take(&mut fields, "figures")? },
        "behind" => ServerMessage::Behind {
            revision: take(&mut fields, "revision")?,
            try_urls: take(&mut fields, "try_urls")?,
        },
        _ => return Err(UNKNOWN_WORD),
    })
}

fn sample(mut fields: Map<String, Value>) -> Result<Sample, Unreadable> {
    let reports: Vec<Map<String, Value>> = take(&mut fields, "nodes")?;
    let aged = |mut fields| Ok(AgedReport { age_ms: take(&mut fields, "age_ms")?, report: read(fields)? });
    Ok(Sample {
        from: take(&mut fields, "from")?,
        at: take(&mut fields, "at")?,
        nodes: reports.into_iter().map(aged).collect::<Result<_, _>>()?,
        // Nodes of earlier versions do not tell of it.
        warnings: if fields.contains_key("warnings") { take(&mut fields, "warnings")? } else { Vec::new() },
    })
}

/// A lock with its past: an object inside an object, as above.
pub fn lock_detail(text: &str) -> Result<LockDetail, Unreadable> {
    let Value::Object(mut fields) = tree(text)? else { return Err(WRONG_TYPE) };
    Ok(LockDetail {
        history: take(&mut fields, "history")?,
        waits: take(&mut fields, "waits")?,
        lock: read(fields)?,
    })
}

/// An enum with its variant's name as the `type` among its fields.
pub fn tagged(value: &impl Serialize) -> Value {
    let value = serde_json::to_value(value).expect("plain data encodes");
    let (name, mut fields) = match &value {
        Value::String(word) => (word, Map::new()),
        Value::Object(variants) if variants.len() == 1 => match variants.iter().next() {
            Some((name, Value::Object(fields))) => (name, fields.clone()),
            _ => return value,
        },
        _ => return value,
    };
    fields.insert(TAG.to_owned(), Value::String(name.clone()));
    Value::Object(fields)
}

/// In JSON, what is configured of an upstream or a route stands beside what the cluster says of it; in the
/// browser's types it is an object inside, because what serde derives for the former would copy it first.
fn nested(mut fields: Map<String, Value>, inside: &str, outside: &[&str]) -> Map<String, Value> {
    if fields.contains_key(inside) {
        return fields;
    }
    let mut nested = Map::new();
    for name in outside {
        if let Some(value) = fields.remove(*name) {
            nested.insert((*name).to_owned(), value);
        }
    }
    nested.insert(inside.to_owned(), Value::Object(fields));
    nested
}

/// What is configured and told by name, as it is.
pub fn tree(text: &str) -> Result<Value, Unreadable> {
    serde_json::from_str(text).map_err(|_| Unreadable { what: "the syntax" })
}

fn read<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Unreadable> {
    T::deserialize(Tree(Value::Object(fields)))
}

fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &'static str) -> Result<T, Unreadable> {
    let value = fields.remove(name).ok_or(Unreadable { what: name })?;
    T::deserialize(Tree(value))
}

/// What could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    what: &'static str,
}

const WRONG_TYPE: Unreadable = Unreadable { what: "the type of a value" };
const WRONG_VALUE: Unreadable = Unreadable { what: "a value" };
const UNKNOWN_WORD: Unreadable = Unreadable { what: "a word that this page does not know" };

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl std::error::Error for Unreadable {}

impl de::Error for Unreadable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        WRONG_VALUE
    }

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        WRONG_TYPE
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        WRONG_VALUE
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Unreadable { what: "a field that is missing" }
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        UNKNOWN_WORD
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

/// Asks for a kind of value, and calls the visitor with that kind alone: what it would make of others is
/// not even compiled.
macro_rules! read_only {
    ($($ask:ident: $kind:pat => $visit:ident($value:expr);)*) => {
        $(fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            match self.0 {
                $kind => visitor.$visit($value),
                _ => Err(WRONG_TYPE),
            }
        })*
    };
}

macro_rules! read_number {
    ($($ask:ident: $as:ident => $visit:ident;)*) => {
        $(fn $ask<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            visitor.$visit(self.0.$as().ok_or(WRONG_TYPE)?)
        })*
    };
}

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

    read_only! {
        deserialize_bool: Value::Bool(value) => visit_bool(value);
        deserialize_str: Value::String(text) => visit_string(text);
        deserialize_string: Value::String(text) => visit_string(text);
        deserialize_seq: Value::Array(items) => visit_seq(Items(items.into_iter()));
        deserialize_map: Value::Object(fields) => visit_map(Fields::new(fields));
    }

    read_number! {
        deserialize_u8: as_u64 => visit_u64;
        deserialize_u16: as_u64 => visit_u64;
        deserialize_u32: as_u64 => visit_u64;
        deserialize_u64: as_u64 => visit_u64;
        deserialize_i32: as_i64 => visit_i64;
        deserialize_i64: as_i64 => visit_i64;
        deserialize_f64: as_f64 => visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        kind: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let Value::Object(fields) = self.0 else { return Err(WRONG_TYPE) };
        let fields = match kind {
            "Upstream" => nested(fields, "config", names),
            "Route" => nested(fields, "spec", names),
            _ => fields,
        };
        visitor.visit_seq(InOrder { names: names.iter(), fields })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    /// A word is a variant without fields.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let (name, fields) = match self.0 {
            Value::Object(mut fields) => (take(&mut fields, TAG)?, fields),
            Value::String(word) => (word, Map::new()),
            _ => return Err(WRONG_TYPE),
        };
        visitor.visit_enum(Variant { name, fields })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
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

/// The fields of an object in the order in which a struct declares them, so that nothing has to find out which
/// comes next: that would be half of what reading a struct costs.
struct InOrder {
    names: std::slice::Iter<'static, &'static str>,
    fields: Map<String, Value>,
}

impl InOrder {
    #[inline(never)]
    fn advance(&mut self) -> Option<Value> {
        self.names.next().and_then(|name| self.fields.get_mut(*name)).map(Value::take)
    }
}

impl<'de> SeqAccess<'de> for InOrder {
    type Error = Unreadable;

    /// None for a field that is missing, which is an error unless it has a default.
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        self.advance().map(|value| seed.deserialize(Tree(value))).transpose()
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

    /// The next field's name; its value is kept. A function of its own, so that there is one of it
    /// whatever is read.
    #[inline(never)]
    fn advance(&mut self) -> Option<String> {
        let (name, value) = self.rest.next()?;
        self.value = value;
        Some(name)
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        self.advance().map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unreadable> {
        seed.deserialize(Tree(self.value.take()))
    }
}

struct Variant {
    name: String,
    fields: Map<String, Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Unreadable;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, Self), Unreadable> {
        let name = std::mem::take(&mut self.name);
        Ok((seed.deserialize(name.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unreadable> {
        seed.deserialize(Tree(Value::Object(self.fields)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Unreadable> {
        Err(WRONG_TYPE)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_seq(InOrder { names: names.iter(), fields: self.fields })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{
        Timestamp,
        action::Action,
        cluster::{NodeStatus, Role},
        event::{Event, EventBatch},
        id::{Incarnation, NodeId, Revision},
        lock::LockCounts,
        page::Page,
    };
    use serde::Deserialize;

    /// What the server would write is what the page reads.
    fn read_back<T: Serialize + PartialEq + fmt::Debug>(value: &T, read: fn(&str) -> Result<T, Unreadable>) {
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(read(&text).as_ref(), Ok(value), "{text}");
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
        read_back(&ServerMessage::Events { prev: Revision(7), batch: batch() }, message);
        read_back(&ServerMessage::View { format: 1, node: NodeId(1), view: Box::default() }, message);
        let resumed = ServerMessage::Resumed { format: 1, node: NodeId(1), incarnation: Incarnation(2) };
        read_back(&resumed, message);
        let behind = ServerMessage::Behind { revision: Revision(7), try_urls: vec!["http://h".to_owned()] };
        read_back(&behind, message);
        read_back(&Page { items: vec![batch()], next: None }, from_str);
        let mut lead = crate::figures::tests::report(1, Role::Leader, 7);
        lead.report.proposals_per_s = 812.5;
        lead.report.commit_p99_us = Some(3_400);
        let sample: Sample = crate::figures::tests::sample(vec![lead]);
        let locks = LockCounts { held: 3, ..LockCounts::default() };
        read_back(&ServerMessage::Sample { sample: Box::new(sample), locks }, message);
    }

    /// As the browser derives the enums that are tagged inside.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Tagged {
        Rebalance,
        DrainNode { node: NodeId, reason: Option<String> },
    }

    #[test]
    fn the_tag_moves_in_and_out() {
        for (value, text) in [
            (Tagged::Rebalance, r#"{"type":"rebalance"}"#),
            (
                Tagged::DrainNode { node: NodeId(3), reason: None },
                r#"{"node":3,"reason":null,"type":"drain_node"}"#,
            ),
        ] {
            assert_eq!(tagged(&value).to_string(), text);
            assert_eq!(from_str::<Tagged>(text), Ok(value));
        }
        assert_eq!(from_str::<Tagged>("\"rebalance\""), Ok(Tagged::Rebalance));
        assert_eq!(from_str::<Tagged>("{\"type\":\"explode\"}"), Err(UNKNOWN_WORD));
        let inside = Action::DrainNode { node: NodeId(3) };
        assert_eq!(tagged(&inside).to_string(), r#"{"node":3,"type":"drain_node"}"#);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = |text: &str| from_str::<Page<EventBatch>>(text).unwrap_err().to_string();
        assert_eq!(error("{"), "the syntax");
        assert_eq!(error("{\"next\":null}"), "a field that is missing");
        assert_eq!(error("{\"items\":3,\"next\":null}"), "the type of a value");
    }
}
