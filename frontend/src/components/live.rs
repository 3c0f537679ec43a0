//! Parts of a page that follow signals.
//!
//! Each helper gives one type, whatever closure is inside: a view then has one type for each kind of part, which
//! keeps the compile time and the size of the page in bounds.

use leptos::{ev, prelude::*};
use std::{hash::Hash, sync::Arc};

/// A part that is made anew whenever what it reads changes.
pub type Live = Box<dyn FnMut() -> AnyView + Send>;

pub fn live<V: IntoView>(part: impl Fn() -> V + Send + 'static) -> Live {
    Box::new(move || part().into_any())
}

/// A text, or the value of an attribute.
pub fn text(value: impl Fn() -> String + Send + Sync + 'static) -> Signal<String> {
    Signal::derive(value)
}

/// The value of an attribute that may be absent.
pub fn optional(value: impl Fn() -> Option<String> + Send + Sync + 'static) -> Signal<Option<String>> {
    Signal::derive(value)
}

/// Whether an element has a class or a boolean attribute.
pub fn class_if(condition: impl Fn() -> bool + Send + Sync + 'static) -> Signal<bool> {
    Signal::derive(condition)
}

/// One part or the other. Neither is made anew while the condition stays as it is.
pub fn either(
    condition: impl Fn() -> bool + Send + Sync + 'static,
    part: impl Fn() -> AnyView + Send + 'static,
    other: impl Fn() -> AnyView + Send + 'static,
) -> Live {
    let condition = Memo::new(move |_| condition());
    Box::new(move || if condition.get() { untrack(&part) } else { untrack(&other) })
}

/// A part that is there while the condition holds.
pub fn when(
    condition: impl Fn() -> bool + Send + Sync + 'static,
    part: impl Fn() -> AnyView + Send + 'static,
) -> Live {
    either(condition, part, || ().into_any())
}

/// The handler of a click.
pub fn click(act: impl Fn() + 'static) -> Box<dyn FnMut(ev::MouseEvent)> {
    Box::new(move |_| act())
}

/// The handler of input, called with the text of the field.
pub fn typed(act: impl Fn(String) + 'static) -> Box<dyn FnMut(ev::Event)> {
    Box::new(move |event| act(event_target_value(&event)))
}

/// The handler of keys in a field.
pub fn keys(act: impl Fn(ev::KeyboardEvent) + 'static) -> Box<dyn FnMut(ev::KeyboardEvent)> {
    Box::new(act)
}

/// A row for each item. A row stays for as long as its key is in the list.
pub fn each<T, K>(
    items: impl Into<Signal<Vec<T>>>,
    key: fn(&T) -> K,
    row: impl Fn(T) -> AnyView + Send + Sync + 'static,
) -> AnyView
where
    T: Clone + Send + Sync + 'static,
    K: Eq + Hash + Send + 'static,
{
    let items = items.into();
    let row = Arc::new(row);
    let row = move |item| untrack(|| row(item));
    view! { <For each=move || items.get() key=key children=row /> }.into_any()
}
