//! The form that changes a setting, or makes a new one. The server validates the value.
//!
//! Test ids: those of [`crate::components::form`].

use super::{author, setting};
use crate::{
    address::use_address,
    components::form::{Field, Form, Kind, form},
    format::grouped,
    store::use_store,
};
use leptos::prelude::*;
use ringmaster_common::{id::Revision, setting::Known};
use serde_json::{Value, json};
use std::sync::Arc;

const NUMBER: [Field; 1] = [Field::new("value", "Value", "", Kind::Number).said("takes an integer")];
const ANYTHING: [Field; 1] = [Field::new(
    "value",
    "Value",
    "JSON of up to 4 KiB: 50, true, {\"a\": 1}. Anything else is text. Ctrl Enter saves.",
    Kind::Json,
)];

pub fn editor(key: Option<String>, said: RwSignal<String>) -> AnyView {
    let store = use_store();
    let address = use_address();
    let began = key.as_deref().and_then(|key| untrack(|| setting(store, key)));
    let known = key.as_deref().and_then(Known::find);
    let of = key.clone();
    let current = Memo::new(move |_| {
        let setting = setting(store, of.as_ref()?)?;
        Some((setting.version, author(&setting).unwrap_or_default()))
    });
    let done = move |key: Option<String>| {
        if let Some(setting) = key.and_then(|key| untrack(|| setting(store, &key))) {
            said.set(format!("{} is set as of revision {}", setting.key, grouped(setting.version.0)));
        }
        address.set_parameter("edit", None, true);
        address.set_parameter("new", None, true);
    };
    form(Form {
        what: "setting",
        place: "/v1/settings/".to_owned(),
        name: key,
        version: began.as_ref().map(|setting| setting.version),
        // A default cannot be deleted.
        removable: began.as_ref().is_some_and(|setting| setting.version > Revision(0)),
        body: json!({ "value": began.map(|setting| setting.value) }),
        fields: if known.is_some() { &NUMBER } else { &ANYTHING },
        defaults: Value::Null,
        more: &[],
        current,
        named_by: "",
        read_only: &["key", "version", "updated_at", "updated_by"],
        done: Arc::new(done),
    })
}
