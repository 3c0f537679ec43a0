//! `ringmaster config`: upstreams and routes as one file, to keep under version control.
//!
//! An import applies the whole file or nothing, and deletes nothing. It has a node validate the file first, prints the
//! changes, and applies them only if the current configuration has not changed meanwhile. A file that is too large for
//! one request ([`MAX_IMPORT_BYTES`]) is applied in parts, each of them whole.

use super::{
    CliError,
    changes::{Confirmation, confirm},
    queries::{MAX_LIMIT, PAGE_UPSTREAMS, Reading, items, list, list_by, to_json},
};
use crate::{out::Out, parse};
use clap::{Args, Subcommand};
use ringmaster_client::{Client, ClientError};
use ringmaster_common::{
    id::Revision,
    traffic::{
        check_name,
        import::{Import, MAX_IMPORT_BYTES, Put},
        route::{Route, RouteSpec},
        upstream::{Upstream, UpstreamSpec},
    },
};
use ringmaster_storage::atomic_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// Write upstreams and routes to a file, or to standard output
    #[command(after_help = "\
Examples:
  ringmaster config export traffic.toml
  ringmaster config export - | diff traffic.toml -
  ringmaster config export traffic.toml --stale      without a quorum: what the node has")]
    Export {
        /// The file to write; - or none is standard output
        file: Option<PathBuf>,
        #[command(flatten)]
        reading: Reading,
        #[command(flatten)]
        target: super::Target,
    },
    /// Apply the upstreams and routes of a file; others stay unchanged
    #[command(after_help = "Example: ringmaster config import traffic.toml")]
    Import(ImportArguments),
}

#[derive(Args, Debug)]
pub struct ImportArguments {
    /// The file to read, TOML or JSON as `export` writes them; - is standard input and needs --yes
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
        Arguments::Export { file, reading, target } => {
            let (upstreams, routes) = current(&target.client(), reading).await?;
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
                Some(file) => {
                    write_file(&file, &text).map_err(|error| {
                        CliError::Failed(format!("cannot write {}: {error}", file.display()))
                    })?;
                    let upstreams = counted(configuration.upstreams.len(), "upstream");
                    let routes = counted(configuration.routes.len(), "route");
                    let (file, bytes) = (file.display(), text.len());
                    if !target.json {
                        out.line(format!("Wrote {upstreams} and {routes} to {file} ({bytes} bytes)."))?;
                    }
                    Ok(())
                }
            }
        }
        Arguments::Import(ImportArguments { file, confirmation }) => import(&file, &confirmation, out).await,
    }
}

async fn import(file: &Path, confirmation: &Confirmation, out: &Out) -> Result<(), CliError> {
    let invalid = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
    let text = if is_standard(file) { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| invalid(error.to_string()))?;
    let configuration = Configuration::parse(&text).map_err(invalid)?;
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
    let (upstreams, routes) = current(&client, Reading { stale: false }).await?;
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
    let parts = parts(import, MAX_IMPORT_BYTES);
    // A part may need those before it, so only a whole import can be checked.
    if let [whole] = parts.as_slice() {
        client.post::<()>("/v1/traffic/import?check=true", whole).await.map_err(refused)?;
    }
    if json {
        out.line(to_json(&changes))?;
    } else {
        changes.iter().try_for_each(|change| out.line(change.sentence()))?;
    }
    if !confirmation.yes && !confirm("Apply these changes? [y/N] ")? {
        return Err(CliError::Failed("nothing was imported; nothing has changed".to_owned()));
    }
    for (done, part) in parts.iter().enumerate() {
        client.post::<()>("/v1/traffic/import", part).await.map_err(|error| match done {
            0 => refused(error),
            _ => CliError::Failed(format!("{error}; {done} of {} parts were applied", parts.len())),
        })?;
    }
    let in_parts = if parts.len() > 1 { format!(" in {} parts", parts.len()) } else { String::new() };
    if json { Ok(()) } else { Ok(out.line(format!("Applied {} changes{in_parts}.", changes.len()))?) }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Writes a file whole or not at all. What is no regular file, such as a pipe, is written as it is.
fn write_file(file: &Path, text: &str) -> io::Result<()> {
    // A link stays, and the file that it leads to is replaced.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let before = fs::metadata(&file).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return fs::write(&file, text);
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // As a file that is created in the plain way; the process's mask applies.
    let permissions = before.map_or(fs::Permissions::from_mode(0o666), |before| before.permissions());
    let mut unfinished =
        tempfile::Builder::new().prefix(".export-").permissions(permissions.clone()).tempfile_in(dir)?;
    unfinished.write_all(text.as_bytes())?;
    if file.exists() {
        unfinished.as_file().set_permissions(permissions)?;
    }
    unfinished.as_file().sync_all()?;
    unfinished.persist(&file)?;
    atomic_file::sync_dir(dir)
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}

async fn current(client: &Client, reading: Reading) -> Result<(Vec<Upstream>, Vec<Route>), CliError> {
    let failed = |error| reading.failed(error);
    let upstreams = list_by(client, &reading.path("/v1/upstreams"), MAX_LIMIT, PAGE_UPSTREAMS).await;
    let routes = list(client, &reading.path("/v1/routes"), MAX_LIMIT).await;
    Ok((items(upstreams.map_err(failed)?)?, items(routes.map_err(failed)?)?))
}

impl Configuration {
    fn parse(text: &str) -> Result<Configuration, String> {
        let text = text.trim_start_matches('\u{feff}');
        // A table in TOML starts with its name.
        if text.trim_start().starts_with('{') { parse::json(text) } else { parse::toml(text) }
    }
}

/// As many puts in each part as fit into `max_bytes`. Upstreams come first, because routes lead to them.
fn parts(import: Import, max_bytes: usize) -> Vec<Import> {
    let mut parts = Parts { parts: vec![Import::default()], bytes: ENVELOPE, max_bytes };
    for put in import.upstreams {
        parts.part_for(&put).upstreams.push(put);
    }
    for put in import.routes {
        parts.part_for(&put).routes.push(put);
    }
    parts.parts
}

/// `{"upstreams":[],"routes":[]}`, rounded up.
const ENVELOPE: usize = 64;

struct Parts {
    parts: Vec<Import>,
    /// Of the last part.
    bytes: usize,
    max_bytes: usize,
}

impl Parts {
    /// The last part, or a new one if this does not fit into the last.
    fn part_for(&mut self, put: &impl Serialize) -> &mut Import {
        let bytes = to_json(put).len() + 1;
        if self.bytes + bytes > self.max_bytes && self.bytes > ENVELOPE {
            self.parts.push(Import::default());
            self.bytes = ENVELOPE;
        }
        self.bytes += bytes;
        self.parts.last_mut().expect("there is a first part")
    }
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
    fn an_export_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let (file, link) = (dir.path().join("traffic.toml"), dir.path().join("link"));
        write_file(&file, "one").unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&file), mode(&plain));
        fs::remove_file(&plain).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_file(&link, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link stays");
        assert_eq!(mode(&file) & 0o777, 0o640);
        assert_eq!(names(), ["link", "traffic.toml"]);
        write_file(&dir.path().join("missing/file"), "three").expect_err("there is no such directory");
        write_file(Path::new("/dev/null"), "four").expect("a device is written, not replaced");
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn an_import_lists_new_and_changed_objects() {
        let mut wanted = Configuration::parse(FILE).unwrap();
        assert_eq!(sentences(&wanted, &[]), ["+ upstream web is new", "+ route all is new"]);
        let known = known(&wanted.upstreams["web"]);
        assert_eq!(sentences(&wanted, std::slice::from_ref(&known)), ["+ route all is new"]);
        wanted.upstreams.get_mut("web").unwrap().endpoints[0].weight = 3;
        wanted.upstreams.get_mut("web").unwrap().drain_ms = 1;
        assert_eq!(sentences(&wanted, &[known])[0], "~ upstream web: drain_ms, endpoints (~e1)");
    }

    #[test]
    fn an_export_can_be_imported() {
        let wanted = Configuration::parse(FILE).unwrap();
        for text in
            [toml::to_string(&wanted).unwrap(), to_json(&wanted), format!("\u{feff}{}", to_json(&wanted))]
        {
            let read = Configuration::parse(&text).unwrap();
            assert_eq!(read.upstreams, wanted.upstreams);
            assert_eq!(read.routes, wanted.routes);
        }
        assert!(Configuration::parse("[upstream.web]").is_err(), "a misspelt table is rejected");
        assert!(Configuration::parse(r#"{"upstream": {}}"#).is_err(), "also in JSON");
    }

    #[test]
    fn a_large_import_is_split_into_parts_that_fit() {
        let wanted = Configuration::parse(FILE).unwrap();
        let names = (0..40).map(|nth| format!("u{nth:02}"));
        let upstreams = names.map(|name| Put { name, version: None, spec: wanted.upstreams["web"].clone() });
        let route = Put { name: "all".to_owned(), version: None, spec: wanted.routes["all"].clone() };
        let import = Import { upstreams: upstreams.collect(), routes: vec![route] };
        assert_eq!(parts(import.clone(), 1 << 20), std::slice::from_ref(&import));
        let parts = parts(import.clone(), 10_000);
        assert!(parts.len() > 2);
        assert!(parts.iter().all(|part| to_json(part).len() <= 10_000 && !part.is_empty()));
        let upstreams = parts.iter().flat_map(|part| part.upstreams.clone());
        assert_eq!(upstreams.collect::<Vec<_>>(), import.upstreams, "in their order");
        assert_eq!(parts.last().unwrap().routes, import.routes);
    }
}
