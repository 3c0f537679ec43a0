//! Settings: configuration under ETags.

use crate::{
    Context,
    limits::Limits,
    outcome::{Outcome, Resource},
    precondition::Precondition,
    version::FEATURE_LEVEL,
};
use imbl::OrdMap;
use ringmaster_common::{
    error::{Code, Refusal},
    event::Event,
    id::Revision,
    setting::{DOWN_AFTER, Known, SUSPECT_AFTER, Setting, check_key},
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

    /// The value of a known setting, or its default, as this version knows them.
    pub fn number(&self, known: &Known) -> u64 {
        self.get(known.key).and_then(|setting| known.check(&setting.value).ok()).unwrap_or(known.default)
    }

    pub(super) fn put(
        &mut self,
        context: &mut Context,
        key: String,
        value: Value,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        self.check_order(context.limits, &key, &value)?;
        let stored = self.get(&key).map(|setting| setting.version);
        // A setting that Ringmaster knows is always there, at least with its default.
        let version = stored.or_else(|| known(context.limits, &key).map(|_| Revision(0)));
        precondition.check(&key, version)?;
        let most = context.limits.settings;
        if stored.is_none() && self.by_key.len() >= most {
            return Err(Refusal::new(
                Code::LimitReached,
                format!("a cluster holds {most} settings, and all are in use"),
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
        Ok(Outcome::stored(Resource::Setting(setting), context.revision, version.is_none()))
    }

    /// Deletes a stored value. A setting that Ringmaster knows has its default again.
    pub(super) fn delete(
        &mut self,
        context: &mut Context,
        key: &str,
        precondition: &Precondition,
    ) -> Result<Outcome, Refusal> {
        let known = known(context.limits, key);
        let stored = self.get(key).map(|setting| setting.version);
        precondition.check(key, stored.or_else(|| known.map(|_| Revision(0))))?;
        if stored.is_none() {
            let text = match known {
                Some(known) => format!("the setting {key:?} is not set; its default is {}", known.default),
                None => format!("the setting {key:?} is not set"),
            };
            return Err(Refusal::new(Code::UnknownSetting, text));
        }
        if let Some(known) = known {
            self.check_order(context.limits, key, &Value::from(known.default))?;
        }
        self.by_key.remove(key);
        context.emit(Event::SettingRemoved { key: key.to_owned() });
        Ok(Outcome::Done)
    }

    /// The value of a known setting, or its default at the cluster's feature level. A value is in its range: the leader
    /// that wrote it has checked that.
    pub(super) fn number_at(&self, limits: &Limits, key: &str) -> u64 {
        let default = || known(limits, key).map_or(0, |known| known.default);
        self.get(key).and_then(|setting| setting.value.as_u64()).unwrap_or_else(default)
    }

    /// A node is suspected before it is down.
    fn check_order(&self, limits: &Limits, key: &str, value: &Value) -> Result<(), Refusal> {
        let number = |known: &Known| match value.as_u64() {
            Some(value) if key == known.key => value,
            _ => self.number_at(limits, known.key),
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
    check_at(Limits::at(FEATURE_LEVEL), key, value)
}

/// The same in a cluster with these limits.
pub(super) fn check_at(limits: &Limits, key: &str, value: &Value) -> Result<(), Refusal> {
    check_key(key).map_err(|detail| Refusal::new(Code::InvalidRequest, detail))?;
    let length = value.to_string().len();
    let most = limits.setting_bytes;
    if length > most {
        return Err(Refusal::new(
            Code::ValueTooLarge,
            format!("the value of {key} has {length} bytes; a setting holds up to {most}"),
        ));
    }
    match known(limits, key) {
        Some(known) => {
            known.check(value).map(drop).map_err(|detail| Refusal::new(Code::InvalidSetting, detail))
        }
        None => Ok(()),
    }
}

fn known<'l>(limits: &'l Limits, key: &str) -> Option<&'l Known> {
    limits.known_settings.iter().find(|known| known.key == key)
}
