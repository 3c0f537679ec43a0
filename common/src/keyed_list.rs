//! Things in the order of their own keys, as the view holds them.
//!
//! A sorted vector: there are few of each, they are read far more often than they come and go, and a browser
//! has much less to load than with a tree for each kind.

use crate::{
    cluster::Node,
    id::{NodeId, OperationId},
    operation::Operation,
    setting::Setting,
    traffic::{route::Route, upstream::Upstream},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Borrow;

/// What is known by one of its own fields.
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

/// One of each key at the most. In JSON it is the list of them.
#[derive(Clone, Debug, PartialEq)]
pub struct ByKey<T>(Vec<T>);

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        ByKey(Vec::new())
    }
}

impl<T: Keyed> ByKey<T> {
    fn place<K: Ord + ?Sized>(&self, key: &K) -> Result<usize, usize>
    where
        T::Key: Borrow<K>,
    {
        self.0.binary_search_by(|known| known.key().borrow().cmp(key))
    }

    pub fn get<K: Ord + ?Sized>(&self, key: &K) -> Option<&T>
    where
        T::Key: Borrow<K>,
    {
        self.place(key).ok().map(|place| &self.0[place])
    }

    pub fn get_mut<K: Ord + ?Sized>(&mut self, key: &K) -> Option<&mut T>
    where
        T::Key: Borrow<K>,
    {
        self.place(key).ok().map(|place| &mut self.0[place])
    }

    pub fn keys(&self) -> impl Iterator<Item = &T::Key> {
        self.0.iter().map(T::key)
    }

    /// In the place of the one that has its key.
    pub fn put(&mut self, value: T) {
        match self.place(value.key()) {
            Ok(place) => self.0[place] = value,
            Err(place) => self.0.insert(place, value),
        }
    }

    pub fn remove<K: Ord + ?Sized>(&mut self, key: &K)
    where
        T::Key: Borrow<K>,
    {
        if let Ok(place) = self.place(key) {
            self.0.remove(place);
        }
    }

    /// Lets those with the lowest keys go, down to this many.
    pub fn keep_last(&mut self, count: usize) {
        self.0.drain(..self.0.len().saturating_sub(count));
    }
}

impl<T> ByKey<T> {
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

impl<T: Keyed> FromIterator<T> for ByKey<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut all = ByKey::default();
        values.into_iter().for_each(|value| all.put(value));
        all
    }
}

impl<T: Serialize> Serialize for ByKey<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Keyed + Deserialize<'de>> Deserialize<'de> for ByKey<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(deserializer)?.into_iter().collect())
    }
}
