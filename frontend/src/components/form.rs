//! A form over a configured resource: fields of a JSON body, put under the version that the reader began from.
//!
//! A form is a list of fields; the server validates the values, and its refusal stands beside the field that the
//! message names. A change by another client is never overwritten silently: the form shows it and asks which version
//! to keep.
//!
//! Test ids: `field-<path>`, `field-error`, `form-save`, `form-cancel`, `form-conflict`, `form-theirs`,
//! `form-overwrite`, `form-anew`, `form-remove`, `form-remove-really`.

mod conflict;

use crate::{
    address::escaped,
    api::ApiError,
    browser,
    components::{
        live::{class_if, click, keys, live, text, typed, when},
        text::refusal,
    },
    store::use_store,
};
use conflict::conflict;
use leptos::{ev, prelude::*, task::spawn_local};
use ringmaster_common::{error::Code, id::Revision, traffic::upstream::Upstream};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A field of the body.
#[derive(Debug)]
pub struct Field {
    /// Where it is in the body, as the server's messages name it: `timeouts.connect_ms`.
    pub path: &'static str,
    pub label: &'static str,
    pub hint: &'static str,
    pub kind: Kind,
    /// The field that has to have one of these values for this one to make sense.
    pub only: Option<(&'static str, &'static [&'static str])>,
    /// The name of this field in a refusal, where that is not its path.
    pub said: &'static str,
}

#[derive(Debug)]
pub enum Kind {
    Text,
    Number,
    /// The name of an upstream, of which those that there are are suggested.
    Upstream,
    /// Any JSON; what is none is text.
    Json,
    /// One of these words; where the first is empty, it stands for the object being absent.
    Choice(&'static [&'static str]),
    /// An object that is there or not; this switch in it is on to begin with.
    Object(&'static str),
    Switch,
}

impl Field {
    pub const fn new(path: &'static str, label: &'static str, hint: &'static str, kind: Kind) -> Field {
        Field { path, label, hint, kind, only: None, said: "" }
    }

    pub const fn only(self, path: &'static str, values: &'static [&'static str]) -> Field {
        Field { only: Some((path, values)), ..self }
    }

    pub const fn said(self, said: &'static str) -> Field {
        Field { said, ..self }
    }

    fn makes_sense(&self, body: &Value) -> bool {
        self.only.is_none_or(|(path, values)| {
            let value = at(body, path);
            values.iter().any(|wanted| *wanted == text_of(value) || (*wanted == "{}" && value.is_object()))
        })
    }

    fn is_meant_by(&self, detail: &str) -> bool {
        detail.contains(self.path) || (!self.said.is_empty() && detail.contains(self.said))
    }
}

/// The field that a refusal means: the one with the longest path that it names.
fn meant<'a>(fields: &'a [&'static [Field]], detail: &str) -> Option<&'a Field> {
    let fields = fields.iter().flat_map(|fields| fields.iter());
    fields.filter(|field| field.is_meant_by(detail)).max_by_key(|field| field.path.len())
}

pub fn at<'a>(body: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(body, |value, name| value.get(name)).unwrap_or(&Value::Null)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Sets what a path names, or takes it away, so that the server puts what is usual there.
pub fn set_at(body: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        Some((name, rest)) => {
            let Value::Object(fields) = body else { return };
            let inner = fields.entry(name).or_insert(Value::Null);
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            set_at(inner, rest, value);
        }
        None => {
            let Value::Object(fields) = body else { return };
            match value {
                Value::Null => drop(fields.remove(path)),
                value => drop(fields.insert(path.to_owned(), value)),
            }
        }
    }
}

/// The object of a form.
pub struct Form {
    /// Its name, as in `Save <what>`.
    pub what: &'static str,
    /// Where it is put, without its name.
    pub place: String,
    /// None for a new one, which is asked for its name.
    pub name: Option<String>,
    pub body: Value,
    /// The version that the change names; none where there must not be any yet.
    pub version: Option<Revision>,
    pub fields: &'static [Field],
    /// The values that apply where a field is empty; null where there are none.
    pub defaults: Value,
    /// Those that are seldom changed.
    pub more: &'static [Field],
    /// The version that is there now, and who configured it.
    pub current: Memo<Option<(Revision, String)>>,
    /// Whether the name is in the body, too.
    pub named_by: &'static str,
    /// Fields that a GET returns and a PUT does not accept.
    pub read_only: &'static [&'static str],
    pub removable: bool,
    /// Called at the end: with the name, or without where the edit was cancelled or the object removed.
    pub done: Arc<dyn Fn(Option<String>) + Send + Sync>,
}

pub fn form(form: Form) -> AnyView {
    let store = use_store();
    let Form { what, place, name, fields, more, current, named_by, read_only, removable, done, .. } = form;
    let is_new = name.is_none();
    let (body, defaults) = (RwSignal::new(form.body), StoredValue::new(form.defaults));
    let base = RwSignal::new(form.version);
    let name = RwSignal::new(name.unwrap_or_default());
    let failed = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let sure = RwSignal::new(false);
    let path = move || format!("{place}{}", escaped(&name.get_untracked()));
    let finish = Arc::clone(&done);
    let end = move |answer: Result<Option<String>, ApiError>| {
        match answer {
            Ok(name) => finish(name),
            Err(error) => failed.set(Some(error)),
        }
        crate::signal::set(busy, false);
    };
    let save = {
        let (path, end) = (path.clone(), end.clone());
        move || {
            let (path, end) = (path(), end.clone());
            let mut wanted = body.get_untracked();
            if !named_by.is_empty() {
                set_at(&mut wanted, named_by, name.get_untracked().into());
            }
            busy.set(true);
            failed.set(None);
            spawn_local(async move {
                let put = store.api.put(path, wanted, base.get_untracked()).await;
                end(put.map(|_| name.try_with_untracked(Clone::clone)));
            });
        }
    };
    let remove = {
        let path = path.clone();
        move || {
            let (path, end) = (path(), end.clone());
            busy.set(true);
            failed.set(None);
            spawn_local(async move {
                let removed = store.api.delete(path, base.get_untracked()).await;
                end(removed.map(|()| None));
            });
        }
    };
    let start_again = move || {
        let path = path();
        spawn_local(async move {
            match store.api.value(&path).await {
                Ok(mut now) => {
                    read_only.iter().for_each(|name| set_at(&mut now, name, Value::Null));
                    // An endpoint has the version of its upstream.
                    let version = now["version"].as_u64().map(Revision);
                    base.set(version.or_else(|| current.get_untracked().map(|(version, _)| version)));
                    body.set(now);
                    failed.set(None);
                }
                Err(error) => failed.set(Some(error)),
            }
        });
    };
    let all: Arc<[&'static [Field]]> = Arc::from([fields, more]);
    let general = {
        let all = Arc::clone(&all);
        live(move || {
            let error = failed.get()?;
            let named = is_new && names_it(&error) || meant(&all, &error.to_string()).is_some();
            (!named).then(|| refusal(&error))
        })
    };
    let name_field = is_new.then(|| {
        view! {
            <label>
                <span>"Name"</span>
                <input
                    type="text"
                    data-testid="field-name"
                    autocomplete="off"
                    spellcheck="false"
                    on:input=typed(move |text| {
                        // The refusal was about the name before.
                        failed.set(None);
                        name.set(text);
                    })
                />
                {live(move || failed.get().filter(names_it).map(|error| wrong(&error)))}
            </label>
        }
        .into_any()
    });
    let list = move |fields: &'static [Field]| -> AnyView {
        let fields = fields.iter().map(|field| field_view(field, body, defaults, failed, &all));
        view! { <div class="fields">{fields.collect_view()}</div> }.into_any()
    };
    let rest = (!more.is_empty()).then(|| {
        view! { <details class="why"><summary>"More"</summary> {list.clone()(more)}</details> }.into_any()
    });
    let remove_button = (removable && !is_new).then(|| {
        let really = move || {
            view! {
                <button type="button" data-testid="form-remove-really" on:click=click(remove.clone())>
                    {text(move || format!("Yes, remove {}", name.get()))}
                </button>
            }
            .into_any()
        };
        let ask = move || {
            view! {
                <button type="button" data-testid="form-remove" on:click=click(move || {
                    sure.set(true);
                    request_animation_frame(|| browser::focus("[data-testid=form-remove-really]"));
                })>"Remove…"</button>
            }
            .into_any()
        };
        crate::components::live::either(move || sure.get(), really, ask).into_any()
    });
    let cancel = Arc::clone(&done);
    let is_prose = matches!(fields[0].kind, Kind::Json);
    let on_key = {
        let cancel = Arc::clone(&done);
        move |event: ev::KeyboardEvent| match event.key().as_str() {
            "Enter" if !is_prose || event.ctrl_key() || event.meta_key() => {
                event.prevent_default();
                browser::click("[data-testid=form-save]");
            }
            "Escape" => cancel(None),
            _ => {}
        }
    };
    request_animation_frame(|| browser::focus(".editor :is(input, select, textarea)"));
    view! {
        <div class="editor" role="form" aria-label=what on:keydown=keys(on_key)>
            {name_field}
            {list(fields)}
            {rest}
            {live(move || {
                let settled = store.loaded.get() && !busy.get();
                settled.then(|| conflict(current.get(), base, start_again.clone()))
            })}
            {general}
            <div class="buttons">
                {remove_button} <span class="spacer"></span>
                <button type="button" data-testid="form-cancel" on:click=click(move || cancel(None))>"Cancel"</button>
                <button
                    type="button"
                    class="primary"
                    data-testid="form-save"
                    on:click=click(save)
                    disabled=class_if(move || busy.get() || !store.is_live() || name.with(String::is_empty))
                >
                    {text(move || format!("Save {what} {}", name.get()))}
                </button>
            </div>
        </div>
    }
    .into_any()
}

/// Whether a refusal is about the name.
fn names_it(error: &ApiError) -> bool {
    error.to_string().contains("has a name of") || error.is(Code::PreconditionFailed)
}

fn wrong(error: &ApiError) -> AnyView {
    view! { <span class="wrong" role="alert" data-testid="field-error">{error.to_string()}</span> }.into_any()
}

fn field_view(
    field: &'static Field,
    body: RwSignal<Value>,
    defaults: StoredValue<Value>,
    failed: RwSignal<Option<ApiError>>,
    all: &Arc<[&'static [Field]]>,
) -> AnyView {
    let all = StoredValue::new(Arc::clone(all));
    let value = text(move || body.with(|body| text_of(at(body, field.path))));
    let is_meant = move |error: &ApiError| {
        let detail = error.to_string();
        all.with_value(|all| meant(all, &detail).is_some_and(|meant| meant.path == field.path))
    };
    let put = move |value: Value| {
        body.update(|body| set_at(body, field.path, value));
        // The refusal was about the value before.
        if failed.with_untracked(|failed| failed.as_ref().is_some_and(is_meant)) {
            failed.set(None);
        }
    };
    let input = move || match field.kind {
        Kind::Choice(options) => {
            let option = |option: &'static str| {
                let label = if option.is_empty() { "none".to_owned() } else { option.replace('_', " ") };
                view! { <option value=Signal::stored(option.to_owned()) prop:selected=class_if(move || value.get() == option)>{label}</option> }
                    .into_any()
            };
            let choose = move |chosen: String| match field.path.split_once(".type") {
                // Another kind of thing has other fields.
                Some((object, _)) => body.update(|body| {
                    set_at(body, object, Value::Null);
                    if !chosen.is_empty() {
                        set_at(body, field.path, chosen.into());
                    }
                }),
                None => put(chosen.into()),
            };
            view! {
                <select data-testid=format!("field-{}", field.path) on:input=typed(choose)>
                    {options.iter().map(|name| option(name)).collect_view()}
                </select>
            }
            .into_any()
        }
        Kind::Switch | Kind::Object(_) => {
            let is_on = class_if(move || {
                body.with(|body| {
                    let value = at(body, field.path);
                    value.is_object() || value.as_bool() == Some(true)
                })
            });
            let turn = move |_: String| {
                let on = !is_on.get_untracked();
                put(match field.kind {
                    Kind::Object(_) if !on => Value::Null,
                    Kind::Object(first) => json!({ first: true }),
                    _ => on.into(),
                });
            };
            view! {
                <input
                    type="checkbox"
                    role="switch"
                    data-testid=format!("field-{}", field.path)
                    prop:checked=is_on
                    on:input=typed(turn)
                />
            }
            .into_any()
        }
        Kind::Json => {
            let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            let written = RwSignal::new(body.with_untracked(|body| at(body, field.path).to_string()));
            // As it was written, unless something else is there meanwhile.
            let shown = text(move || {
                let written = written.get();
                body.with(|body| match at(body, field.path) {
                    same if *same == read(&written) => written,
                    other => other.to_string(),
                })
            });
            let write = move |text: String| {
                put(read(&text));
                written.set(text);
            };
            view! {
                <textarea
                    data-testid=format!("field-{}", field.path)
                    spellcheck="false"
                    prop:value=shown
                    on:input=typed(write)
                ></textarea>
            }
            .into_any()
        }
        Kind::Text | Kind::Number | Kind::Upstream => {
            let is_number = matches!(field.kind, Kind::Number);
            let is_upstream = matches!(field.kind, Kind::Upstream);
            let write = move |text: String| {
                put(match text.parse::<u64>() {
                    _ if text.is_empty() => Value::Null,
                    Ok(number) if is_number => number.into(),
                    _ => text.into(),
                });
            };
            view! {
                <input
                    type="text"
                    data-testid=format!("field-{}", field.path)
                    autocomplete="off"
                    spellcheck="false"
                    list=is_upstream.then_some("upstream-names")
                    placeholder=defaults.with_value(|defaults| text_of(at(defaults, field.path)))
                    prop:value=value
                    on:input=typed(write)
                />
                {is_upstream.then(upstream_names)}
            }
            .into_any()
        }
    };
    let is_switch = matches!(field.kind, Kind::Switch | Kind::Object(_));
    let error = move || live(move || failed.get().filter(is_meant).map(|error| wrong(&error)));
    let whole = move || {
        view! {
            <label class=if is_switch { "switch" } else { "" }>
                <span>{field.label}</span>
                {input()}
                {(!field.hint.is_empty()).then(|| crate::components::text::quiet(field.hint.to_owned()))}
                {error()}
            </label>
        }
        .into_any()
    };
    when(move || body.with(|body| field.makes_sense(body)), whole).into_any()
}

fn upstream_names() -> AnyView {
    let store = use_store();
    let name = |upstream: &Upstream| upstream.name.clone();
    let names: Vec<String> = untrack(|| store.with_view(|view| view.upstreams.values().map(name).collect()));
    let names = names.into_iter().map(|name| view! { <option value=name></option> }.into_any());
    view! { <datalist id="upstream-names">{names.collect_view()}</datalist> }.into_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Field; 3] = [
        Field::new("timeouts.connect_ms", "", "", Kind::Number),
        Field::new("weight", "", "", Kind::Number),
        Field::new("addr", "", "", Kind::Text).said("an address is host:port"),
    ];

    #[test]
    fn a_refusal_names_its_field() {
        for (detail, path) in [
            ("timeouts.connect_ms is 1 to 60000, not 0", Some("timeouts.connect_ms")),
            ("the weight of endpoint e1 is 1 to 1000, not 0", Some("weight")),
            ("an address is host:port, such as 127.0.0.1:9001", Some("addr")),
            ("no leader was found", None),
        ] {
            assert_eq!(meant(&[&FIELDS], detail).map(|field| field.path), path, "{detail}");
        }
    }

    #[test]
    fn a_path_is_set_and_taken_away() {
        let mut body = json!({ "health_check": null });
        set_at(&mut body, "health_check.type", "tcp".into());
        assert_eq!(body, json!({ "health_check": { "type": "tcp" } }));
        set_at(&mut body, "health_check", Value::Null);
        assert_eq!(body, json!({}));
        set_at(&mut body, "weight", 3.into());
        assert_eq!(text_of(at(&body, "weight")), "3");
        assert_eq!(text_of(at(&body, "weight.more")), "");
    }
}
