//! Parts of a page that follow signals.
//!
//! Each of these has one type, whatever closure is inside. Otherwise the compiler would make the
//! machinery of an effect anew for each closure of the page, which is most of what the browser would
//! have to load.

use crate::var::Var;
use leptos::{ev, prelude::*};
use std::{any::Any, marker::PhantomData, sync::Arc};

/// A part that is made anew whenever what it reads changes.
pub type Live = Box<dyn FnMut() -> AnyView + Send>;

pub fn live<V: IntoView>(part: impl Fn() -> V + Send + 'static) -> Live {
    Box::new(move || part().into_any())
}

/// Text, or the value of an attribute.
pub fn words(text: impl Fn() -> String + Send + Sync + 'static) -> Signal<String> {
    derived(Box::new(text))
}

/// The value of an attribute that may be absent.
pub fn maybe(text: impl Fn() -> Option<String> + Send + Sync + 'static) -> Signal<Option<String>> {
    derived(Box::new(text))
}

pub fn flag(value: impl Fn() -> bool + Send + Sync + 'static) -> Signal<bool> {
    derived(Box::new(value))
}

pub fn derived<T: Send + Sync + 'static>(value: Box<dyn Fn() -> T + Send + Sync>) -> Signal<T> {
    Signal::derive(value)
}

/// A value that is computed once for all that read it, and tells them only if it changed.
///
/// The machinery keeps it without knowing its type, so that there is one of it; only reading it does.
#[derive(Debug)]
pub struct Kept<T> {
    memo: Memo<Erased>,
    kind: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug)]
struct Erased {
    value: Arc<dyn Any + Send + Sync>,
    same: fn(&dyn Any, &dyn Any) -> bool,
}

impl PartialEq for Erased {
    fn eq(&self, other: &Self) -> bool {
        (self.same)(&*self.value, &*other.value)
    }
}

pub fn memo<T: PartialEq + Send + Sync + 'static>(value: impl Fn() -> T + Send + Sync + 'static) -> Kept<T> {
    fn same<T: PartialEq + 'static>(one: &dyn Any, other: &dyn Any) -> bool {
        one.downcast_ref::<T>() == other.downcast_ref::<T>()
    }
    let value = move || Erased { value: Arc::new(value()), same: same::<T> };
    Kept { memo: remembered(Box::new(value)), kind: PhantomData }
}

fn remembered(value: Box<dyn Fn() -> Erased + Send + Sync>) -> Memo<Erased> {
    Memo::new(move |_| value())
}

impl<T: 'static> Kept<T> {
    pub fn with<R>(self, read: impl FnOnce(&T) -> R) -> R {
        read_as(&self.memo.get(), read)
    }

    pub fn with_untracked<R>(self, read: impl FnOnce(&T) -> R) -> R {
        read_as(&self.memo.get_untracked(), read)
    }

    pub fn get(self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    pub fn get_untracked(self) -> T
    where
        T: Clone,
    {
        self.with_untracked(T::clone)
    }
}

fn read_as<T: 'static, R>(erased: &Erased, read: impl FnOnce(&T) -> R) -> R {
    read(erased.value.downcast_ref().expect("it keeps values of the type that it was made for"))
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Kept<T> {}

impl<T: Clone + Send + Sync + 'static> From<Kept<T>> for Signal<T> {
    fn from(kept: Kept<T>) -> Self {
        derived(Box::new(move || kept.get()))
    }
}

/// A value that others follow, as the one type that lists take.
impl<T: Clone + PartialEq + Send + Sync + 'static> From<Var<T>> for Kept<T> {
    fn from(var: Var<T>) -> Self {
        memo(move || var.get())
    }
}

/// Does something now, and again whenever what it reads changes.
pub fn effect(act: impl Fn() + 'static) {
    let act: Box<dyn Fn()> = Box::new(act);
    Effect::new(act);
}

/// A value or a memo as the one type that fields and attributes take.
pub fn follow<T: Send + Sync + 'static>(signal: impl Into<Signal<T>>) -> Signal<T> {
    signal.into()
}

/// One part or the other. Neither is made anew while the condition stays as it is.
pub fn either(
    condition: impl Fn() -> bool + Send + Sync + 'static,
    part: impl Fn() -> AnyView + Send + 'static,
    other: impl Fn() -> AnyView + Send + 'static,
) -> Live {
    choose(memo(condition), Box::new(part), Box::new(other))
}

type Part = Box<dyn Fn() -> AnyView + Send>;

fn choose(condition: Kept<bool>, part: Part, other: Part) -> Live {
    Box::new(move || if condition.get() { untrack(&part) } else { untrack(&other) })
}

/// A part that is there while the condition holds.
pub fn when(
    condition: impl Fn() -> bool + Send + Sync + 'static,
    part: impl Fn() -> AnyView + Send + 'static,
) -> Live {
    either(condition, part, || ().into_any())
}

/// What a press of a button does, with one type whatever that is, as with the parts.
pub fn click(act: impl Fn() + 'static) -> Box<dyn FnMut(ev::MouseEvent)> {
    Box::new(move |_| act())
}

/// What is done with the text that a field holds.
pub fn typed(act: impl Fn(String) + 'static) -> Box<dyn FnMut(ev::Event)> {
    Box::new(move |event| act(event_target_value(&event)))
}

/// What keys do in a field.
pub fn keys(act: impl Fn(ev::KeyboardEvent) + 'static) -> Box<dyn FnMut(ev::KeyboardEvent)> {
    Box::new(act)
}

/// What tells one row from another.
pub type Key = (u64, u64);

/// The key of a row that is known by a text: FNV-1a of it.
pub fn text_key(text: &str) -> Key {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash, 0)
}

/// A row for each item; a row stays what it is for as long as its key is in the list.
pub fn each<T: Clone + Send + Sync + 'static>(
    items: Kept<Vec<T>>,
    key: fn(&T) -> Key,
    row: impl Fn(T) -> AnyView + Send + Sync + 'static,
) -> AnyView {
    let keys = move || items.with(|items| items.iter().map(key).collect());
    let row = move |wanted: Key| {
        let item = items.with_untracked(|items| items.iter().find(|item| key(item) == wanted).cloned());
        item.map_or_else(|| ().into_any(), &row)
    };
    each_key(Box::new(keys), Arc::new(row))
}

/// The machinery of a list, once for all types of items.
fn each_key(
    keys: Box<dyn Fn() -> Vec<Key> + Send + Sync>,
    row: Arc<dyn Fn(Key) -> AnyView + Send + Sync>,
) -> AnyView {
    view! { <For each=keys key=|key| *key children=move |key| untrack(|| row(key)) /> }.into_any()
}
