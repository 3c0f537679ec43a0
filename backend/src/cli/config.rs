//! `ringmaster config`: upstreams and routes as one file, to keep under version control.
//!
//! An import applies the whole file or nothing, and deletes nothing. It has a node validate the file first, prints the
//! changes, and applies them only if the current configuration has not changed meanwhile.

use super::{
    CliError,
    changes::{Confirmation, confirm},
    queries::{MAX_LIMIT, items, list, to_json},
};
use crate::out::Out;
use clap::{Args, Subcommand};
use ringmaster_client::{Client, ClientError};
use ringmaster_common::{
    id::Revision,
    traffic::{
        check_name,
        import::{Import, Put},
        route::{Route, RouteSpec},
        upstream::{Upstream, UpstreamSpec},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Write upstreams and routes to a file, or to standard output
    #[command(after_help = "\
Examples:
  ringmaster config export traffic.toml
  ringmaster config export - | diff traffic.toml -")]
    Export {
        /// The file to write; - or none is standard output
        file: Option<PathBuf>,
        #[command(flatten)]
        target: super::Target,
    },
    /// Apply the upstreams and routes of a file; others stay unchanged
    #[command(after_help = "Example: ringmaster config import traffic.toml")]
    Import(ImportArguments),
}

#[derive(Args, Debug)]
pub struct ImportArguments {
    /// The file to read; - is standard input and needs --yes
    file: PathBuf,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// The content of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    upstreams: BTreeMap<String, UpstreamSpec>,
    #[serde(default)]
    routes: BTreeMap<String, RouteSpec>,
}

/// One change of an import.
#[derive(Debug, Serialize)]
struct Change {
    kind: &'static str,
    name: String,
    /// The fields that differ; none for a new object.
    changed_fields: Option<Vec<String>>,
    /// Added (`+`), removed (`-`) and changed (`~`) endpoints.
    endpoints: Vec<String>,
}

pub async fn run(arguments: Arguments, out: &Out) -> Result<(), CliError> {
    match arguments {
        Arguments::Export { file, target } => {
            let (upstreams, routes) = current(&target.client()).await?;
            let configuration = Configuration {
                upstreams: upstreams.iter().map(|known| (known.name.clone(), known.spec())).collect(),
                routes: routes.into_iter().map(|known| (known.name, known.spec)).collect(),
            };
            let text = if target.json {
                serde_json::to_string(&configuration).expect("the API's types are JSON") + "\n"
            } else {
                toml::to_string(&configuration).map_err(|error| {
                    CliError::Failed(format!("the configuration cannot be written as TOML: {error}"))
                })?
            };
            match file.filter(|file| !is_standard(file)) {
                None => Ok(out.text(text)?),
                Some(file) => fs::write(&file, text)
                    .map_err(|error| CliError::Failed(format!("cannot write {}: {error}", file.display()))),
            }
        }
        Arguments::Import(ImportArguments { file, confirmation }) => import(&file, &confirmation, out).await,
    }
}

async fn import(file: &Path, confirmation: &Confirmation, out: &Out) -> Result<(), CliError> {
    let invalid = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let text = if is_standard(file) { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| invalid(error.to_string()))?;
    let configuration: Configuration = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    for (name, spec) in &configuration.upstreams {
        let checked = check_name("an upstream", name).and_then(|()| spec.check());
        checked.map_err(|why| invalid(format!("upstream {name}: {why}")))?;
    }
    for (name, spec) in &configuration.routes {
        let checked = check_name("a route", name).and_then(|()| spec.check());
        checked.map_err(|why| invalid(format!("route {name}: {why}")))?;
    }
    confirmation.check()?;
    let client = confirmation.target.client();
    let (upstreams, routes) = current(&client).await?;
    let (import, changes) = changes(configuration, &upstreams, &routes);
    let json = confirmation.target.json;
    if import.is_empty() {
        let nothing = if json { "[]" } else { "The configuration equals the file. Nothing to do." };
        return Ok(out.line(nothing)?);
    }
    let refused = |error: ClientError| match error {
        ClientError::Problem(_) => CliError::Failed(format!("{error}; nothing was imported")),
        other => other.into(),
    };
    client.post::<()>("/v1/traffic/import?check=true", &import).await.map_err(refused)?;
    if json {
        out.line(to_json(&changes))?;
    } else {
        changes.iter().try_for_each(|change| out.line(change.sentence()))?;
    }
    if !confirmation.yes && !confirm("Apply these changes? [y/N] ")? {
        return Err(CliError::Failed("nothing was imported; nothing has changed".to_owned()));
    }
    client.post::<()>("/v1/traffic/import", &import).await.map_err(refused)?;
    if json { Ok(()) } else { Ok(out.line(format!("Applied {} changes.", changes.len()))?) }
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn current(client: &Client) -> Result<(Vec<Upstream>, Vec<Route>), CliError> {
    let upstreams = items(list(client, "/v1/upstreams", MAX_LIMIT).await?)?;
    let routes = items(list(client, "/v1/routes", MAX_LIMIT).await?)?;
    Ok((upstreams, routes))
}

/// The import request, and its changes for display.
fn changes(wanted: Configuration, upstreams: &[Upstream], routes: &[Route]) -> (Import, Vec<Change>) {
    let (upstreams, mut changes) = different("upstream", wanted.upstreams, |name| {
        let known = upstreams.iter().find(|known| known.name == name)?;
        Some((known.spec(), known.version))
    });
    let (routes, of_routes) = different("route", wanted.routes, |name| {
        let known = routes.iter().find(|known| known.name == name)?;
        Some((known.spec.clone(), known.version))
    });
    changes.extend(of_routes);
    (Import { upstreams, routes }, changes)
}

fn different<T: Serialize>(
    kind: &'static str,
    wanted: BTreeMap<String, T>,
    known: impl Fn(&str) -> Option<(T, Revision)>,
) -> (Vec<Put<T>>, Vec<Change>) {
    let as_json = |spec: &T| serde_json::to_value(spec).expect("the API's types are JSON");
    let (mut puts, mut changes) = (Vec::new(), Vec::new());
    for (name, spec) in wanted {
        let known = known(&name);
        let changed_fields =
            known.as_ref().map(|(known, _)| changed_fields(&as_json(&spec), &as_json(known)));
        if changed_fields.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let endpoints = known.as_ref().map(|(known, _)| endpoint_changes(&as_json(&spec), &as_json(known)));
        let endpoints = endpoints.unwrap_or_default();
        changes.push(Change { kind, name: name.clone(), changed_fields, endpoints });
        puts.push(Put { name, version: known.map(|(_, version)| version), spec });
    }
    (puts, changes)
}

/// The names of the fields that differ.
fn changed_fields(one: &Value, other: &Value) -> Vec<String> {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return Vec::new() };
    let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    names.into_iter().cloned().collect()
}

fn endpoint_changes(wanted: &Value, known: &Value) -> Vec<String> {
    let of = |spec: &Value| -> BTreeMap<String, Value> {
        let endpoints = spec["endpoints"].as_array().into_iter().flatten();
        endpoints.filter_map(|one| Some((one["id"].as_str()?.to_owned(), one.clone()))).collect()
    };
    let (wanted, known) = (of(wanted), of(known));
    let added_or_changed = wanted.iter().filter_map(|(id, endpoint)| match known.get(id) {
        None => Some(format!("+{id}")),
        Some(before) if before != endpoint => Some(format!("~{id}")),
        Some(_) => None,
    });
    let removed = known.keys().filter(|id| !wanted.contains_key(*id)).map(|id| format!("-{id}"));
    added_or_changed.chain(removed).collect()
}

impl Change {
    fn sentence(&self) -> String {
        match &self.changed_fields {
            None => format!("+ {} {} is new", self.kind, self.name),
            Some(fields) => {
                let endpoints = match self.endpoints.as_slice() {
                    [] => String::new(),
                    some => format!(" ({})", some.join(" ")),
                };
                format!("~ {} {}: {}{endpoints}", self.kind, self.name, fields.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_common::{Timestamp, traffic::upstream::Endpoint};

    const FILE: &str = r#"
        [upstreams.web]
        policy = "p2c_ewma"
        health_check = { type = "http", path = "/healthy" }
        endpoints = [{ id = "e1", addr = "127.0.0.1:9001", weight = 2 }]

        [routes.all]
        upstream = "web"
    "#;

    fn known(spec: &UpstreamSpec) -> Upstream {
        let endpoints =
            spec.endpoints.iter().map(|endpoint| Endpoint::new(endpoint, Timestamp::UNIX_EPOCH)).collect();
        Upstream {
            name: "web".to_owned(),
            config: spec.clone().with_endpoints(endpoints),
            primary: None,
            version: Revision(7),
            updated_at: Timestamp::UNIX_EPOCH,
            updated_by: "ops".to_owned(),
        }
    }

    fn sentences(wanted: &Configuration, upstreams: &[Upstream]) -> Vec<String> {
        let (import, changes) = changes(wanted.clone(), upstreams, &[]);
        assert_eq!(import.upstreams.len() + import.routes.len(), changes.len());
        changes.iter().map(Change::sentence).collect()
    }

    #[test]
    fn an_import_lists_new_and_changed_objects() {
        let mut wanted: Configuration = toml::from_str(FILE).unwrap();
        assert_eq!(sentences(&wanted, &[]), ["+ upstream web is new", "+ route all is new"]);
        let known = known(&wanted.upstreams["web"]);
        assert_eq!(sentences(&wanted, std::slice::from_ref(&known)), ["+ route all is new"]);
        wanted.upstreams.get_mut("web").unwrap().endpoints[0].weight = 3;
        wanted.upstreams.get_mut("web").unwrap().drain_ms = 1;
        assert_eq!(sentences(&wanted, &[known])[0], "~ upstream web: drain_ms, endpoints (~e1)");
    }

    #[test]
    fn an_export_can_be_imported() {
        let wanted: Configuration = toml::from_str(FILE).unwrap();
        let text = toml::to_string(&wanted).unwrap();
        let read: Configuration = toml::from_str(&text).unwrap();
        assert_eq!(read.upstreams, wanted.upstreams);
        assert_eq!(read.routes, wanted.routes);
        assert!(toml::from_str::<Configuration>("[upstream.web]").is_err(), "a misspelt table is rejected");
    }
}
