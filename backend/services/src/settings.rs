//! Settings: configuration that the whole cluster agrees on, one value a key.

use crate::{
    Read, ReadRequest, ServiceError, Services, Stored, WriteRequest, Written,
    page::{Paging, page},
};
use ringmaster_cluster::{
    command::{Command, Precondition, Resource},
    settings,
};
use ringmaster_common::{
    error::{Code, Refusal},
    id::Revision,
    page::Page,
    setting::{KNOWN, Known, Setting},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The settings that are set and those that have a default, in the order of keys.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    paging: Paging<String>,
) -> Result<Read<Page<Setting>>, ServiceError> {
    services
        .list(request, |state| {
            let mut settings: BTreeMap<String, Setting> =
                KNOWN.iter().map(|known| (known.key.to_owned(), default_of(known))).collect();
            settings.extend(state.settings.iter().map(|setting| (setting.key.clone(), setting.clone())));
            let rest = settings.into_values().filter(|setting| setting.key > paging.after);
            Ok(page(rest, paging.limit, |setting| setting.key.clone()))
        })
        .await
}

pub async fn get(
    services: &Services,
    request: ReadRequest,
    key: &str,
) -> Result<Read<Stored<Setting>>, ServiceError> {
    services.read(request).await?.find(|state| {
        match state.settings.get(key).cloned().or_else(|| Known::find(key).map(default_of)) {
            Some(setting) => {
                let version = setting.version;
                Ok(Stored::found(setting, version))
            }
            None => Err(Refusal::new(Code::UnknownSetting, format!("the setting {key:?} is not set"))),
        }
    })
}

/// Sets a value. A setting that Ringmaster knows is validated; every other key is free.
pub async fn put(
    services: &Services,
    request: WriteRequest,
    key: String,
    value: Value,
    precondition: Precondition,
) -> Result<Written<Stored<Setting>>, ServiceError> {
    request.check(settings::check(&key, &value))?;
    let written = services.write(request, Command::PutSetting { key, value, precondition }).await?;
    written.stored(|resource| match resource {
        Resource::Setting(setting) => Some(setting),
        _ => None,
    })
}

/// Deletes a value. A setting that Ringmaster knows has its default again.
pub async fn delete(
    services: &Services,
    request: WriteRequest,
    key: String,
    precondition: Precondition,
) -> Result<Written<()>, ServiceError> {
    Ok(services.write(request, Command::DeleteSetting { key, precondition }).await?.map(drop))
}

fn default_of(known: &Known) -> Setting {
    Setting {
        key: known.key.to_owned(),
        value: json!(known.default),
        version: Revision(0),
        updated_at: None,
        updated_by: None,
    }
}
