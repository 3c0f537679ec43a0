//! A value that others follow: a signal, of one type for the machinery whatever it holds.
//!
//! Leptos makes its signals anew for each type that is kept in one, and there are forty on this page. Here the
//! machinery keeps a value without knowing its type; only reading and writing it does.

use leptos::prelude::*;
use std::{any::Any, fmt, marker::PhantomData, ops::Deref};

type Erased = Box<dyn Any + Send + Sync>;

pub struct Var<T> {
    signal: RwSignal<Erased>,
    kind: PhantomData<fn() -> T>,
}

// One function each, whatever is kept.

#[inline(never)]
fn make(value: Erased) -> RwSignal<Erased> {
    RwSignal::new(value)
}

#[inline(never)]
fn read(signal: RwSignal<Erased>) -> impl Deref<Target = Erased> {
    signal.read()
}

/// None where the value is gone, with the part of the page that it belonged to.
#[inline(never)]
fn peek(signal: RwSignal<Erased>) -> Option<impl Deref<Target = Erased>> {
    signal.try_read_untracked()
}

#[inline(never)]
fn alter(signal: RwSignal<Erased>, change: &mut dyn FnMut(&mut Erased)) {
    signal.update(change);
}

#[inline(never)]
fn replace(signal: RwSignal<Erased>, value: Erased) {
    signal.try_set(value);
}

const OF_ITS_TYPE: &str = "it keeps a value of the type that it was made for";
const STILL_THERE: &str = "what reads a value goes before it";

impl<T: Send + Sync + 'static> Var<T> {
    pub fn new(value: T) -> Self {
        Var { signal: make(Box::new(value)), kind: PhantomData }
    }

    pub fn with<R>(self, look: impl FnOnce(&T) -> R) -> R {
        look(read(self.signal).downcast_ref().expect(OF_ITS_TYPE))
    }

    pub fn with_untracked<R>(self, look: impl FnOnce(&T) -> R) -> R {
        self.try_with_untracked(look).expect(STILL_THERE)
    }

    /// For callbacks that may outlive the page.
    pub fn try_with_untracked<R>(self, look: impl FnOnce(&T) -> R) -> Option<R> {
        peek(self.signal).map(|value| look(value.downcast_ref().expect(OF_ITS_TYPE)))
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

    /// Does nothing where the value is gone already.
    pub fn set(self, value: T) {
        replace(self.signal, Box::new(value));
    }

    pub fn update(self, change: impl FnOnce(&mut T)) {
        let mut change = Some(change);
        alter(self.signal, &mut |value| {
            if let Some(change) = change.take() {
                change(value.downcast_mut().expect(OF_ITS_TYPE));
            }
        });
    }

    pub fn track(self) {
        self.signal.track();
    }
}

impl<T> Clone for Var<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Var<T> {}

impl<T> fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Var")
    }
}

impl<T: Clone + Send + Sync + 'static> From<Var<T>> for Signal<T> {
    fn from(var: Var<T>) -> Self {
        crate::components::live::derived(Box::new(move || var.get()))
    }
}
