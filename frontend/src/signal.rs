//! Setting signals.

use leptos::prelude::*;

/// Sets a signal if that changes its value. The callback of a socket may outlive the page: then nothing is set.
pub fn set<T: PartialEq + Send + Sync + 'static>(signal: RwSignal<T>, value: T) {
    if signal.try_with_untracked(|known| *known != value) == Some(true) {
        signal.set(value);
    }
}
