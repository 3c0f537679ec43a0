//! A list sorted by the keys of its items, as the view holds nodes, operations, settings and traffic.
//!
//! A vector and not a map: the key is a field of the item, the JSON is the plain list, and the lists are short
//! and read far more often than they change.

use crate::{
    cluster::Node,
    id::{NodeId, OperationId},
    operation::Operation,
    setting::Setting,
    traffic::{route::Route, upstream::Upstream},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;

/// An item that is identified by one of its own fields.
pub trait Keyed {
    type Key: Ord;
    fn key(&self) -> &Self::Key;
}

macro_rules! keyed {
    ($($kind:ident by $field:ident: $key:ty;)*) => {
        $(impl Keyed for $kind {
            type Key = $key;
            fn key(&self) -> &$key {
                &self.$field
            }
        })*
    };
}

keyed! {
    Node by id: NodeId;
    Operation by id: OperationId;
    Setting by key: String;
    Upstream by name: String;
    Route by name: String;
}

/// At most one item for each key. In JSON it is the list of the items.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyedList<T>(Vec<T>);

impl<T> Default for KeyedList<T> {
    fn default() -> Self {
        KeyedList(Vec::new())
    }
}

impl<T: Keyed> KeyedList<T> {
    fn position<K: Ord + ?Sized>(&self, key: &K) -> Result<usize, usize>
    where
        T::Key: Borrow<K>,
    {
        self.0.binary_search_by(|known| known.key().borrow().cmp(key))
    }

    pub fn get<K: Ord + ?Sized>(&self, key: &K) -> Option<&T>
    where
        T::Key: Borrow<K>,
    {
        self.position(key).ok().map(|position| &self.0[position])
    }

    pub fn get_mut<K: Ord + ?Sized>(&mut self, key: &K) -> Option<&mut T>
    where
        T::Key: Borrow<K>,
    {
        self.position(key).ok().map(|position| &mut self.0[position])
    }

    pub fn keys(&self) -> impl Iterator<Item = &T::Key> {
        self.0.iter().map(T::key)
    }

    /// Inserts an item, or repositions the one with its key.
    pub fn put(&mut self, value: T) {
        match self.position(value.key()) {
            Ok(position) => self.0[position] = value,
            Err(position) => self.0.insert(position, value),
        }
    }

    pub fn remove<K: Ord + ?Sized>(&mut self, key: &K)
    where
        T::Key: Borrow<K>,
    {
        if let Ok(position) = self.position(key) {
            self.0.remove(position);
        }
    }
}

impl<T> KeyedList<T> {
    pub fn values(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub fn values_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Keyed> FromIterator<T> for KeyedList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut all = KeyedList::default();
        values.into_iter().for_each(|value| all.put(value));
        all
    }
}

impl<T> IntoIterator for KeyedList<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T: Serialize> Serialize for KeyedList<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Keyed + Deserialize<'de>> Deserialize<'de> for KeyedList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
