//! The browser: its clock, storage, clipboard and theme.
//!
//! All of the page's contact with `window` that is not DOM, HTTP or the stream is here, so that the
//! rest can be tested without a browser.

use leptos::prelude::{document, window};
use ringmaster_common::Timestamp;
use wasm_bindgen::{JsCast, JsValue};

/// The wall clock of this computer.
pub fn now() -> Timestamp {
    // A double holds milliseconds exactly for the next quarter of a million years.
    Timestamp::from_millisecond(js_sys::Date::now() as i64).unwrap_or_default()
}

/// Milliseconds of a clock that never jumps.
pub fn monotonic_ms() -> f64 {
    window().performance().map_or_else(js_sys::Date::now, |performance| performance.now())
}

/// Minutes east of Greenwich here, at that time.
pub fn offset_minutes(at: Timestamp) -> i32 {
    let date = js_sys::Date::new(&JsValue::from_f64(at.as_millisecond() as f64));
    -(date.get_timezone_offset() as i32)
}

/// Uniform in 0..1; for jitter only.
pub fn random() -> f64 {
    js_sys::Math::random()
}

/// A fresh idempotency key: 128 random bits in hex.
pub fn unique_key() -> String {
    let mut bytes = [0; 16];
    let filled = window().crypto().and_then(|crypto| crypto.get_random_values_with_u8_array(&mut bytes));
    if filled.is_err() {
        bytes = std::array::from_fn(|_| (random() * 256.0) as u8);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Scheme, host and port of the page.
pub fn origin() -> String {
    window().location().origin().unwrap_or_default()
}

/// Stores a text for this tab until it is closed. Without storage the page works, with less comfort.
pub fn remember(key: &str, text: &str) {
    if let Ok(Some(storage)) = window().session_storage() {
        storage.set_item(key, text).ok();
    }
}

pub fn recall(key: &str) -> Option<String> {
    window().session_storage().ok()??.get_item(key).ok()?
}

/// Puts text on the clipboard. Without a secure context there is none: then the text of `shown` is
/// selected, for the reader to copy. Says which of the two happened.
pub async fn copy(text: &str, shown: &str) -> bool {
    let clipboard = js_sys::Reflect::get(window().navigator().as_ref(), &"clipboard".into());
    if clipboard.is_ok_and(|clipboard| clipboard.is_object()) {
        let written = wasm_bindgen_futures::JsFuture::from(window().navigator().clipboard().write_text(text));
        if written.await.is_ok() {
            return true;
        }
    }
    if let (Ok(Some(shown)), Ok(Some(selection))) =
        (document().query_selector(shown), window().get_selection())
    {
        selection.select_all_children(&shown).ok();
    }
    false
}

pub fn set_title(title: &str) {
    document().set_title(title);
}

/// After a dialog has closed: what opened it may be gone, and then the focus is put on the page.
pub fn keep_focus() {
    let lost = document().active_element().is_none_or(|element| element.tag_name() == "BODY");
    if let Some(main) = document().get_element_by_id("main").filter(|_| lost) {
        main.unchecked_ref::<web_sys::HtmlElement>().focus().ok();
    }
}

/// Takes an element out of the page.
pub fn remove(selector: &str) {
    if let Ok(Some(element)) = document().query_selector(selector) {
        element.remove();
    }
}

pub fn focus(selector: &str) {
    if let Ok(Some(element)) = document().query_selector(selector) {
        element.unchecked_ref::<web_sys::HtmlElement>().focus().ok();
    }
}

pub fn click(selector: &str) {
    if let Ok(Some(element)) = document().query_selector(selector) {
        element.unchecked_ref::<web_sys::HtmlElement>().click();
    }
}

/// Goes to a page of this node that is no part of the dashboard.
pub fn leave_for(path: &str) {
    window().location().set_href(path).ok();
}

pub fn scroll_to_top(selector: &str) {
    if let Ok(Some(element)) = document().query_selector(selector) {
        element.set_scroll_top(0);
    }
}

pub fn scroll_into_view(selector: &str) {
    if let Ok(Some(element)) = document().query_selector(selector) {
        element.scroll_into_view_with_bool(false);
    }
}

/// Light, dark, or as the system has it. `theme.js` applies the same key before the first paint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    #[default]
    System,
    Light,
    Dark,
}

impl Theme {
    const KEY: &str = "ringmaster.theme";

    pub fn preferred() -> Theme {
        let stored = || window().local_storage().ok()??.get_item(Theme::KEY).ok()?;
        match stored().as_deref() {
            Some("light") => Theme::Light,
            Some("dark") => Theme::Dark,
            _ => Theme::System,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Theme::System => "system",
            Theme::Light => "light",
            Theme::Dark => "dark",
        }
    }

    /// The next one, in the order that the button goes through.
    pub fn next(self) -> Theme {
        match self {
            Theme::System => Theme::Light,
            Theme::Light => Theme::Dark,
            Theme::Dark => Theme::System,
        }
    }

    pub fn apply(self) {
        if let Ok(Some(storage)) = window().local_storage() {
            storage.set_item(Theme::KEY, self.as_str()).ok();
        }
        if let Some(root) = document().document_element() {
            root.set_attribute("data-theme", self.as_str()).ok();
        }
    }
}

/// Shows a panic over the page: after one, nothing on it can be trusted any more.
pub fn show_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        leptos::logging::error!("{text}");
        let Some(body) = document().body() else { return };
        let Ok(overlay) = document().create_element("div") else { return };
        overlay.set_class_name("crash");
        overlay.set_attribute("role", "alert").ok();
        overlay.set_inner_html(
            "<div><h1>The dashboard has stopped</h1><p>This is a fault of the page, not of the cluster, which \
             continues. Reload the page.</p><pre></pre><a class=\"button primary\" href=\"\">Reload</a></div>",
        );
        if let Ok(Some(pre)) = overlay.query_selector("pre") {
            pre.set_text_content(Some(&text));
        }
        body.append_child(&overlay).ok();
    }));
}
