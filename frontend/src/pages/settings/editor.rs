//! The form that changes a setting, or makes a new one.
//!
//! It remembers the version that the reader began from, and sends it as If-Match: what somebody else
//! has written in the meantime is never overwritten unseen. If that happens, the form says so, shows
//! what is there now, and asks which it is to be. What the value may be, the server says.
//!
//! Test ids: `setting-key`, `setting-input`, `setting-save`, `setting-cancel`, `setting-conflict`,
//! `setting-overwrite`, `setting-theirs`.

use super::{author, setting};
use crate::{
    address::use_address,
    api::ApiError,
    browser,
    components::{
        live::{click, effect, flag, follow, keys, live, memo, typed, when, words},
        text::{callout, moment, refusal, revision},
    },
    format::grouped,
    situation::Tone,
    store::use_store,
};
use leptos::{ev, html, prelude::*, task::spawn_local};
use ringmaster_common::{
    id::Revision,
    setting::{Known, Setting},
};

pub fn editor(key: Option<String>, said: RwSignal<String>) -> AnyView {
    let store = use_store();
    let address = use_address();
    let known = key.as_deref().and_then(Known::find);
    let is_new = key.is_none();
    let began = key.as_deref().and_then(|key| untrack(|| setting(store, key)));
    let base = RwSignal::new(version(began.as_ref()));
    let name = RwSignal::new(key.unwrap_or_default());
    let text = RwSignal::new(began.map(|setting| setting.value.to_string()).unwrap_or_default());
    let failed = RwSignal::new(None::<ApiError>);
    let is_json = RwSignal::new(true);
    let busy = RwSignal::new(false);
    let current = memo(move || name.with(|name| setting(store, name)));
    let close = move || {
        address.set_parameter("edit", None, true);
        address.set_parameter("new", None, true);
    };
    let save = move || {
        let value = serde_json::from_str(&text.get_untracked());
        is_json.set(value.is_ok());
        failed.set(None);
        let Ok(value) = value else { return };
        busy.set(true);
        spawn_local(async move {
            let key = name.get_untracked();
            match store.api.put_setting(&key, value, base.get_untracked().map(Revision)).await {
                Ok(written) => {
                    said.set(format!(
                        "{key} is {} as of revision {}",
                        written.value,
                        grouped(written.version.0)
                    ));
                    close();
                }
                Err(error) => failed.set(Some(error)),
            }
            crate::store::set(busy, false);
        });
    };
    let input = NodeRef::<html::Textarea>::new();
    let key_input = NodeRef::<html::Input>::new();
    effect(move || {
        if let Some(input) = key_input.get() {
            input.focus().ok();
        } else if let Some(input) = input.get() {
            input.focus().ok();
            input.select();
        }
    });
    let on_key = move |event: ev::KeyboardEvent| match event.key().as_str() {
        "Enter" if known.is_some() || event.ctrl_key() || event.meta_key() => {
            event.prevent_default();
            browser::click("[data-testid=setting-save]");
        }
        "Escape" => close(),
        _ => {}
    };
    let key_field = is_new.then(|| {
        view! {
            <label>
                <span>"Key"</span>
                <input
                    type="text"
                    node_ref=key_input
                    data-testid="setting-key"
                    placeholder="checkout/max-cart"
                    autocomplete="off"
                    spellcheck="false"
                    on:input=typed(move |text| name.set(text))
                />
            </label>
        }
        .into_any()
    });
    let hint = match known {
        Some(known) => format!("An integer from {} to {}.", grouped(known.min), grouped(known.max)),
        None => "JSON of up to 4 KiB: 50, true, \"text\", {\"a\": 1}. Ctrl Enter saves.".to_owned(),
    };
    let rows = if known.is_some() { "1" } else { "3" };
    let label = words(move || {
        name.with(|name| if name.is_empty() { "Save".to_owned() } else { format!("Set {name}") })
    });
    let not_json = || {
        let why = "Text is written in double quotes: \"like this\".";
        callout(Tone::Bad, view! { <strong>"That is not JSON"</strong> <p>{why}</p> }.into_any())
    };
    view! {
        <div class="editor" role="group" aria-label="Edit the setting" on:keydown=keys(on_key)>
            {key_field}
            <label>
                <span>"Value"</span>
                <textarea
                    node_ref=input
                    rows=rows
                    data-testid="setting-input"
                    spellcheck="false"
                    prop:value={follow::<String>(text)}
                    on:input=typed(move |written| text.set(written))
                ></textarea>
                <span class="quiet">{hint}</span>
            </label>
            {live(move || conflict(current.get(), base, text))}
            {when(move || !is_json.get(), not_json)}
            {live(move || failed.get().map(|error| refusal(&error)))}
            <div class="buttons">
                <button type="button" data-testid="setting-cancel" on:click=click(close)>"Cancel"</button>
                <button
                    type="button"
                    class="primary"
                    data-testid="setting-save"
                    disabled=flag(move || busy.get() || !store.is_live() || name.with(String::is_empty))
                    on:click=click(save)
                >
                    {label}
                </button>
            </div>
        </div>
    }
    .into_any()
}

/// The version that a change of it names: 0 for a default, none where there is no such setting.
fn version(setting: Option<&Setting>) -> Option<u64> {
    setting.map(|setting| setting.version.0)
}

/// What somebody else has written since the reader began.
fn conflict(
    current: Option<Setting>,
    base: RwSignal<Option<u64>>,
    text: RwSignal<String>,
) -> Option<AnyView> {
    let current = current?;
    let now = version(Some(&current));
    if now == base.get() {
        return None;
    }
    let value = current.value.to_string();
    let shown = value.clone();
    let by = author(&current).unwrap_or_default();
    let theirs = move || {
        text.set(value.clone());
        base.set(now);
    };
    let contents = view! {
        <p>
            "It is " <code>{shown}</code> " now, by " {by} " at " {current.updated_at.map(moment)} ", revision "
            {revision(current.version)} ". Saving is refused until you say which it is to be."
        </p>
        <div class="buttons">
            <button type="button" class="small" data-testid="setting-theirs" on:click=click(theirs)>"Start from that"</button>
            <button type="button" class="small" data-testid="setting-overwrite" on:click=click(move || base.set(now))>
                "Keep mine, and overwrite that"
            </button>
        </div>
    };
    Some(
        view! { <div data-testid="setting-conflict">{callout(Tone::Warning, contents.into_any())}</div> }
            .into_any(),
    )
}
