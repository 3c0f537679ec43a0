//! Filters over a list: a choice and words, both in the page's address.
//!
//! Test ids: `filter-<parameter>-<value>` (`all` for none), `filter-words`, `filter-count`.

use crate::{
    address::use_address,
    components::live::{click, text, typed},
    format::capitalised,
};
use leptos::prelude::*;

/// The bar over a list: its choices, the box for words, and how much passes.
pub fn filters(choices: AnyView, hint: &'static str, how_many: Signal<String>) -> AnyView {
    view! {
        <div class="filters" role="search">
            {choices} {words_box(hint)}
            <span class="quiet" data-testid="filter-count">{how_many}</span>
        </div>
    }
    .into_any()
}

/// One of some values, or all.
pub fn segments(parameter: &'static str, values: &[&'static str]) -> AnyView {
    let address = use_address();
    let chosen = Memo::new(move |_| address.parameter(parameter));
    let segment = |value: Option<&'static str>| {
        let name = value.unwrap_or("all");
        let label = value.map_or_else(|| "all".to_owned(), |value| value.replace('_', " "));
        view! {
            <button
                type="button"
                aria-pressed=text(move || chosen.with(|chosen| chosen.as_deref() == value).to_string())
                data-testid=format!("filter-{parameter}-{name}")
                on:click=click(move || address.set_parameter(parameter, value, true))
            >
                {capitalised(&label)}
            </button>
        }
        .into_any()
    };
    let mut segments = vec![segment(None)];
    segments.extend(values.iter().map(|value| segment(Some(value))));
    view! { <div class="segments" role="group" aria-label=capitalised(parameter)>{segments}</div> }.into_any()
}

fn words_box(hint: &'static str) -> AnyView {
    let address = use_address();
    let wanted = Memo::new(|_| wanted_words());
    view! {
        <input
            type="search"
            placeholder=hint
            aria-label="Filter by words"
            aria-keyshortcuts="/"
            data-testid="filter-words"
            prop:value={wanted}
            on:input=typed(move |words| {
                address.set_parameter("words", (!words.is_empty()).then_some(words.as_str()), true);
            })
        />
    }
    .into_any()
}

/// The words that the address names.
pub fn wanted_words() -> String {
    use_address().parameter("words").unwrap_or_default()
}

/// Whether a text has all of the words, in any order.
pub fn has_words(text: &str, words: &str) -> bool {
    let text = text.to_ascii_lowercase();
    words.to_ascii_lowercase().split_ascii_whitespace().all(|word| text.contains(word))
}
