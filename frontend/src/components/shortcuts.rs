//! Keyboard shortcuts. `Ctrl K` works everywhere; the others while no field has the focus and no dialog is open.
//!
//! The palette shows them beside what they lead to, so they need no page of their own.

use crate::{
    address::use_address,
    browser,
    components::palette::{PLACES, Palette},
};
use leptos::{ev, prelude::*};
use wasm_bindgen::JsCast;

/// How long `g` waits for its letter.
const PATIENCE_MS: f64 = 1_500.0;

pub fn listen(palette: Palette) {
    let address = use_address();
    let go_until = StoredValue::new(0.0_f64);
    window_event_listener(ev::keydown, move |event| {
        let key = event.key();
        if event.ctrl_key() || event.meta_key() {
            if key.eq_ignore_ascii_case("k") {
                event.prevent_default();
                palette.toggle();
            }
            return;
        }
        if event.alt_key() || event.default_prevented() || is_busy(&event) {
            return;
        }
        let goes = browser::monotonic_ms() < go_until.get_value();
        go_until.set_value(0.0);
        let place = PLACES.iter().find(|(letter, _, _)| goes && *letter == key);
        match key.as_str() {
            _ if place.is_some() => place.into_iter().for_each(|(_, _, path)| address.go(path, false)),
            "g" => go_until.set_value(browser::monotonic_ms() + PATIENCE_MS),
            "?" => palette.open(),
            "/" => browser::focus("[type=search]"),
            "h" => browser::click("[data-testid=hold]"),
            _ => return,
        }
        event.prevent_default();
    });
}

/// Whether keys mean something else at the moment.
fn is_busy(event: &ev::KeyboardEvent) -> bool {
    let element = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
    let typing =
        element.is_some_and(|element| matches!(element.tag_name().as_str(), "INPUT" | "TEXTAREA" | "SELECT"));
    typing || matches!(document().query_selector("dialog[open]"), Ok(Some(_)))
}
