//! All settings: those that Ringmaster knows, with what they mean and which values they take, and those
//! that are free for its users. Each can be edited in place.
//!
//! Settings are in the view, so each row follows its own setting. The edited setting, the filters and the
//! order are in the page's address.
//!
//! Test ids: `setting-<key>`, `setting-value-<key>`, `edit-<key>`, `new-setting`, `setting-said`, those
//! of [`mod@editor`], and those of [`crate::components::filters`].

mod editor;

use crate::{
    address::use_address,
    components::{
        filters::{filters, has_words, segments, wanted_words},
        live::{click, each, either, live, optional, text, when},
        sorting::{Column, Order, SortKey, column, places},
        text::{empty, moment, quiet, revision, skeleton},
    },
    format::{count, grouped},
    store::{Store, use_store},
};
use editor::editor;
use leptos::prelude::*;
use ringmaster_common::{
    id::Revision,
    setting::{KNOWN, Known, Setting},
};

const KINDS: [&str; 3] = ["built-in", "custom", "changed"];

const COLUMNS: [Column; 3] =
    [column("key", "Setting"), column("value", "Value"), column("changed", "Last change")];
const ORDER: Order = Order { columns: &COLUMNS, latest_first: false, of: "" };

/// The setting, or its default.
fn setting(store: Store, key: &str) -> Option<Setting> {
    store.with_view(|view| view.settings.get(key).cloned()).or_else(|| Known::find(key).map(default_of))
}

fn default_of(known: &Known) -> Setting {
    Setting {
        key: known.key.to_owned(),
        value: known.default.into(),
        version: Revision(0),
        updated_at: None,
        updated_by: None,
    }
}

/// The actor of the last change.
fn author(setting: &Setting) -> Option<String> {
    setting.updated_by.clone()
}

pub fn settings_page() -> AnyView {
    let store = use_store();
    let address = use_address();
    let said = RwSignal::new(String::new());
    let kind = Memo::new(move |_| address.parameter("kind"));
    let filter = Memo::new(|_| wanted_words());
    let all = Memo::new(move |_| {
        let mut keys: Vec<String> = store.with_view(|view| view.settings.keys().cloned().collect());
        for known in KNOWN {
            if let Err(place) = keys.binary_search_by(|key| key.as_str().cmp(known.key)) {
                keys.insert(place, known.key.to_owned());
            }
        }
        keys
    });
    let shown = Memo::new(move |_| {
        let passes = |key: &&String| {
            let found = Known::find(key);
            let fits = match kind.get().as_deref() {
                Some("built-in") => found.is_some(),
                Some("custom") => found.is_none(),
                Some("changed") => setting(store, key).is_some_and(|setting| setting.version > Revision(0)),
                _ => true,
            };
            fits && filter
                .with(|words| has_words(&format!("{key} {}", found.map_or("", |known| known.doc)), words))
        };
        let keys: Vec<String> = all.with(|all| all.iter().filter(passes).cloned().collect());
        let (column, descending) = ORDER.of(address);
        let sort: Vec<SortKey> = keys.iter().map(|key| sort_key(store, column, key)).collect();
        places(&sort, descending).into_iter().map(|place| keys[place].clone()).collect::<Vec<_>>()
    });
    let how_many = text(move || {
        let all = count(all.with(Vec::len) as u64, "setting");
        format!("{} of {all}", grouped(shown.with(Vec::len) as u64))
    });
    let table = move || {
        view! {
            <div class="table settings" role="table" aria-label="Settings">
                {ORDER.headings(true, true)}
                {each(shown, |key| key.clone(), move |key| row(store, key, said))}
            </div>
            {when(move || shown.with(Vec::is_empty), no_match)}
        }
        .into_any()
    };
    let is_new = move || address.parameter("new").is_some();
    let new = move || {
        view! { <section class="card" aria-label="New setting">{editor(None, said)}</section> }.into_any()
    };
    view! {
        <div class="page">
            <div class="page-head">
                <h1>"Settings"</h1>
                <span class="quiet" role="status" data-testid="setting-said">{said}</span>
                <span class="spacer"></span>
                <button type="button" data-testid="new-setting" on:click=click(move || address.set_parameter("new", Some("1"), true))>
                    "New setting"
                </button>
            </div>
            {when(is_new, new)}
            {filters(segments("kind", &KINDS), "Words of a key or of its meaning", how_many)}
            <section class="card" aria-label="Settings">
                {either(move || store.loaded.get(), table, || skeleton(6))}
                {when(move || store.loaded.get() && all.with(|all| all.len() == KNOWN.len()), no_free)}
            </section>
        </div>
    }
    .into_any()
}

fn no_match() -> AnyView {
    empty("No setting passes the filters", view! { <p>"Remove a filter to see the others."</p> }.into_any())
}

/// The purpose of free settings.
fn no_free() -> AnyView {
    let why = "Any other key is yours to use, for example for flags, limits and addresses that your processes share. Values are \
               replicated and versioned, and a change requires the latest version.";
    let example = "curl -X PUT …/v1/settings/checkout/max-cart -H 'content-type: application/json' -d '{\"value\": 50}'";
    empty("No custom settings yet", view! { <p>{why}</p> <code>{example}</code> }.into_any())
}

fn sort_key(store: Store, column: usize, key: &str) -> SortKey {
    let of = |read: fn(&Setting) -> SortKey| setting(store, key).as_ref().map(read).unwrap_or_default();
    match COLUMNS[column].name {
        "value" => of(|setting| match setting.value.as_u64() {
            Some(number) => (String::new(), number),
            None => (setting.value.to_string(), 0),
        }),
        "changed" => of(|setting| (String::new(), setting.version.0)),
        _ => (key.to_owned(), 0),
    }
}

fn row(store: Store, key: String, said: RwSignal<String>) -> AnyView {
    let address = use_address();
    let known = Known::find(&key);
    let current = Memo::new({
        let key = key.clone();
        move |_| setting(store, &key)
    });
    let value = text(move || {
        current.with(|setting| setting.as_ref().map(|setting| setting.value.to_string()).unwrap_or_default())
    });
    // The value as a person reads it, where it has a unit.
    let is_duration = key.ends_with("_ms");
    let in_words = text(move || {
        let ms = current.with(|setting| setting.as_ref().and_then(|setting| setting.value.as_u64()));
        ms.filter(|ms| is_duration && *ms >= 1_000).map(crate::format::duration).unwrap_or_default()
    });
    let changed = live(move || {
        let changed = current.with(|setting| {
            let setting = setting.as_ref()?;
            Some((author(setting)?, setting.updated_at?, setting.version))
        });
        match changed {
            Some((by, at, version)) => view! {
                <span class="clip" title=by.clone()>{by.clone()}</span>
                <span class="when">{moment(at)} " " {revision(version)}</span>
            }
            .into_any(),
            None => quiet("default".to_owned()),
        }
    });
    let is_edited = Memo::new({
        let key = key.clone();
        move |_| address.parameter("edit").as_deref() == Some(&key)
    });
    let meaning = known.map(|known| {
        let takes = format!(
            "{} to {}, {} by default",
            grouped(known.min),
            grouped(known.max),
            grouped(known.default)
        );
        view! { <span class="meaning quiet">{known.doc} " " {takes} "."</span> }.into_any()
    });
    let edit = {
        let key = key.clone();
        move || address.set_parameter("edit", (!is_edited.get_untracked()).then_some(&key), true)
    };
    let form = {
        let key = key.clone();
        move || {
            view! { <div role="cell" class="cell-form">{editor(Some(key.clone()), said)}</div> }.into_any()
        }
    };
    view! {
        <div class="row" role="row" data-testid=format!("setting-{key}")>
            <span role="cell" class="cell-key">
                <code title=key.clone()>{key.clone()}</code>
                {meaning}
            </span>
            <span role="cell" class="cell-value">
                <code class="clip" title=value data-testid=format!("setting-value-{key}")>{value}</code>
                <span class="quiet">{in_words}</span>
            </span>
            <span role="cell" class="cell-changed">{changed}</span>
            <span role="cell" class="cell-action">
                <button
                    type="button"
                    class="small"
                    data-testid=format!("edit-{key}")
                    aria-expanded=optional(move || Some(is_edited.get().to_string()))
                    aria-label=format!("Edit {key}")
                    on:click=click(edit)
                >
                    "Edit"
                </button>
            </span>
            {when(move || is_edited.get(), form)}
        </div>
    }
    .into_any()
}
