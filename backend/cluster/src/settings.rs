//! Settings: configuration under ETags.

use crate::{
    Context,
    command::{Outcome, Precondition},
};
use imbl::OrdMap;
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::Revision,
    setting::{DOWN_AFTER, Known, MAX_SETTINGS, MAX_VALUE_BYTES, SUSPECT_AFTER, Setting, check_key},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    by_key: OrdMap<Arc<str>, Arc<Setting>>,
}

impl Settings {
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.by_key.get(key).map(Arc::as_ref)
    }

    /// In the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.by_key.values().map(Arc::as_ref)
    }

    /// The value of a known setting, or its default.
    pub fn number(&self, known: &Known) -> u64 {
        self.get(known.key).and_then(|setting| known.check(&setting.value).ok()).unwrap_or(known.default)
    }

    /// Whether the setting is a new one is told, too.
    pub(super) fn put(
        &mut self,
        context: &mut Context,
        key: String,
        value: Value,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        check(&key, &value)?;
        self.check_order(&key, &value)?;
        let stored = self.get(&key).map(|setting| setting.version);
        // A setting that Ringmaster knows is always there, at least with its default.
        let version = stored.or_else(|| Known::find(&key).map(|_| Revision(0)));
        precondition.check(&key, version)?;
        if stored.is_none() && self.by_key.len() >= MAX_SETTINGS {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a cluster holds {MAX_SETTINGS} settings, and all are in use"),
            ));
        }
        let setting = Setting {
            key: key.clone(),
            value,
            version: context.revision,
            updated_at: Some(context.wall),
            updated_by: Some(context.actor.to_string()),
        };
        self.by_key.insert(key.into(), Arc::new(setting.clone()));
        context.emit(Event::SettingChanged { setting: setting.clone() });
        Ok(Outcome::Setting { setting, created: version.is_none() })
    }

    /// A node is suspected before it is down.
    fn check_order(&self, key: &str, value: &Value) -> Result<(), Refusal> {
        let number = |known: &Known| match value.as_u64() {
            Some(value) if key == known.key => value,
            _ => self.number(known),
        };
        let (suspect, down) = (number(&SUSPECT_AFTER), number(&DOWN_AFTER));
        let concerned = key == SUSPECT_AFTER.key || key == DOWN_AFTER.key;
        if concerned && suspect >= down {
            return Err(Refusal::new(
                Code::InvalidSetting,
                format!(
                    "{} would be {suspect} and {} {down}: the first must be the smaller",
                    SUSPECT_AFTER.key, DOWN_AFTER.key
                ),
            ));
        }
        Ok(())
    }
}

/// What can be said of a setting without knowing the others. The API asks it before it proposes,
/// so that what is plainly wrong never reaches the log.
pub fn check(key: &str, value: &Value) -> Result<(), Refusal> {
    check_key(key).map_err(|detail| Refusal::new(Code::InvalidRequest, detail))?;
    let length = value.to_string().len();
    if length > MAX_VALUE_BYTES {
        return Err(Refusal::new(
            Code::ValueTooLarge,
            format!("the value of {key} has {length} bytes; a setting holds up to {MAX_VALUE_BYTES}"),
        ));
    }
    match Known::find(key) {
        Some(known) => {
            known.check(value).map(drop).map_err(|detail| Refusal::new(Code::InvalidSetting, detail))
        }
        None => Ok(()),
    }
}

impl Precondition {
    pub(super) fn check(&self, what: &str, version: Option<Revision>) -> Result<(), Refusal> {
        let holds = match self {
            Precondition::None => true,
            Precondition::AnyOf(versions) => version.is_some_and(|version| versions.contains(&version)),
            Precondition::Exists => version.is_some(),
            Precondition::Absent => version.is_none(),
        };
        if holds {
            return Ok(());
        }
        let stands = match version {
            Some(version) => format!("{what} is at version {version}"),
            None => format!("{what} does not exist"),
        };
        Err(Refusal::new(Code::PreconditionFailed, format!("{stands}; read it again and decide anew")))
    }
}
