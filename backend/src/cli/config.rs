//! `ringmaster config`: upstreams and routes as one file, to keep beside the code that they serve.
//!
//! An import puts what the file says and deletes nothing. It says first what it will change, and puts each thing only
//! if it is still as it was then.

use super::{
    Failure,
    changes::{Confirmation, ask},
    out::Out,
    queries::{MAX_LIMIT, items, list},
};
use clap::{Args, Subcommand};
use ringmaster_client::{Client, segment};
use ringmaster_common::{
    id::Revision,
    traffic::{
        check_name,
        route::{Route, RouteSpec},
        upstream::{Upstream, UpstreamSpec},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf};

#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Write upstreams and routes to a file, or to standard output
    #[command(after_help = "Example: ringmaster config export traffic.toml")]
    Export {
        file: Option<PathBuf>,
        #[command(flatten)]
        target: super::Target,
    },
    /// Put the upstreams and routes of a file; others stay as they are
    #[command(after_help = "Example: ringmaster config import traffic.toml")]
    Import(Import),
}

#[derive(Args, Debug)]
pub struct Import {
    file: PathBuf,
    #[command(flatten)]
    confirmation: Confirmation,
}

/// What a file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    upstreams: BTreeMap<String, UpstreamSpec>,
    #[serde(default)]
    routes: BTreeMap<String, RouteSpec>,
}

/// What an import puts.
#[derive(Debug, Serialize)]
struct Change {
    kind: &'static str,
    name: String,
    /// The fields that differ; none for what is new.
    differs: Option<Vec<String>>,
    #[serde(skip)]
    body: Value,
    #[serde(skip)]
    version: Option<Revision>,
}

pub async fn run(arguments: Arguments, out: &Out) -> Result<(), Failure> {
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
                toml::to_string(&configuration)
                    .map_err(|error| Failure::Failed(format!("this cannot be written as TOML: {error}")))?
            };
            match file {
                None => Ok(out.text(text)?),
                Some(file) => fs::write(&file, text).map_err(|error| {
                    Failure::Failed(format!("{} cannot be written: {error}", file.display()))
                }),
            }
        }
        Arguments::Import(Import { file, confirmation }) => import(&file, &confirmation, out).await,
    }
}

async fn import(file: &std::path::Path, confirmation: &Confirmation, out: &Out) -> Result<(), Failure> {
    let wrong = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let configuration: Configuration = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    for (name, spec) in &configuration.upstreams {
        let checked = check_name("an upstream", name).and_then(|()| spec.check());
        checked.map_err(|why| wrong(format!("upstream {name}: {why}")))?;
    }
    for (name, spec) in &configuration.routes {
        let checked = check_name("a route", name).and_then(|()| spec.check());
        checked.map_err(|why| wrong(format!("route {name}: {why}")))?;
    }
    confirmation.check()?;
    let client = confirmation.target.client();
    let (upstreams, routes) = current(&client).await?;
    let changes = changes(&configuration, &upstreams, &routes);
    let json = confirmation.target.json;
    if json {
        out.line(serde_json::to_string(&changes).expect("the API's types are JSON"))?;
    } else if changes.is_empty() {
        out.line("Everything is as the file says. Nothing is done.")?;
    } else {
        changes.iter().try_for_each(|change| out.line(change.sentence()))?;
    }
    if changes.is_empty() {
        return Ok(());
    }
    if !confirmation.yes && !ask("Put it like this? [y/N] ")? {
        return Err(Failure::Failed("nothing was put, and nothing has changed".to_owned()));
    }
    for (done, change) in changes.iter().enumerate() {
        let path = format!("/v1/{}s/{}", change.kind, segment(&change.name));
        if let Err(error) = client.put::<Value>(&path, &change.body, change.version).await {
            return Err(Failure::Failed(format!(
                "{} {}: {error}; {done} of {} changes were made before",
                change.kind,
                change.name,
                changes.len()
            )));
        }
    }
    if json { Ok(()) } else { Ok(out.line(format!("{} put.", changes.len()))?) }
}

async fn current(client: &Client) -> Result<(Vec<Upstream>, Vec<Route>), Failure> {
    let upstreams = items(list(client, "/v1/upstreams", MAX_LIMIT).await?)?;
    let routes = items(list(client, "/v1/routes", MAX_LIMIT).await?)?;
    Ok((upstreams, routes))
}

/// Upstreams come first, because routes lead to them.
fn changes(wanted: &Configuration, upstreams: &[Upstream], routes: &[Route]) -> Vec<Change> {
    let of_upstreams = wanted.upstreams.iter().filter_map(|(name, spec)| {
        let known = upstreams.iter().find(|known| known.name == *name);
        change("upstream", name, spec, known.map(|known| (known.spec(), known.version)))
    });
    let of_routes = wanted.routes.iter().filter_map(|(name, spec)| {
        let known = routes.iter().find(|known| known.name == *name);
        change("route", name, spec, known.map(|known| (known.spec.clone(), known.version)))
    });
    of_upstreams.chain(of_routes).collect()
}

fn change<T: Serialize>(
    kind: &'static str,
    name: &str,
    wanted: &T,
    known: Option<(T, Revision)>,
) -> Option<Change> {
    let as_json = |spec: &T| serde_json::to_value(spec).expect("the API's types are JSON");
    let body = as_json(wanted);
    let differs = known.as_ref().map(|(spec, _)| differing(&body, &as_json(spec)));
    if differs.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    let version = known.map(|(_, version)| version);
    Some(Change { kind, name: name.to_owned(), differs, body, version })
}

/// The names of the fields that are not the same.
fn differing(one: &Value, other: &Value) -> Vec<String> {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return Vec::new() };
    let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| one.get(*name) != other.get(*name));
    names.into_iter().cloned().collect()
}

impl Change {
    fn sentence(&self) -> String {
        match &self.differs {
            None => format!("+ {} {} is new", self.kind, self.name),
            Some(fields) => format!("~ {} {}: {}", self.kind, self.name, fields.join(", ")),
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
        changes(wanted, upstreams, &[]).iter().map(Change::sentence).collect()
    }

    #[test]
    fn an_import_says_what_is_new_and_what_differs() {
        let mut wanted: Configuration = toml::from_str(FILE).unwrap();
        assert_eq!(sentences(&wanted, &[]), ["+ upstream web is new", "+ route all is new"]);
        let known = known(&wanted.upstreams["web"]);
        assert_eq!(sentences(&wanted, std::slice::from_ref(&known)), ["+ route all is new"]);
        wanted.upstreams.get_mut("web").unwrap().endpoints[0].weight = 3;
        wanted.upstreams.get_mut("web").unwrap().drain_ms = 1;
        assert_eq!(sentences(&wanted, &[known])[0], "~ upstream web: drain_ms, endpoints");
    }

    #[test]
    fn what_is_written_is_read() {
        let wanted: Configuration = toml::from_str(FILE).unwrap();
        let text = toml::to_string(&wanted).unwrap();
        let read: Configuration = toml::from_str(&text).unwrap();
        assert_eq!(read.upstreams, wanted.upstreams);
        assert_eq!(read.routes, wanted.routes);
        assert!(toml::from_str::<Configuration>("[upstream.web]").is_err(), "a misspelt table is refused");
    }
}
