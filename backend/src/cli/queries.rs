//! Queries, and `--watch`, which repeats a query whenever the stream reports a change.
//!
//! The stream decides *when* to query, the API gives the answer, so that a watched answer equals a
//! single one.

use super::{CliError, Target, show};
use crate::out::{Out, Paint};
use clap::{Args, Subcommand};
use ringmaster_client::{Client, ClientError, Stream, Update, segment};
use ringmaster_common::{
    cluster::Cluster,
    error::Code,
    event::{AuditEntry, Event},
    lock::LockDetail,
    operation::Operation,
    page::Page,
    stream::{ClientMessage, Topic},
    traffic::upstream::Upstream,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{pin::pin, time::Duration};
use tokio::time::sleep;

/// How long changes are collected, so that a burst of them causes one query.
pub const DEBOUNCE: Duration = Duration::from_millis(150);
/// The maximum length of a list.
pub const MAX_LIMIT: usize = 10_000;
/// How many items one request asks for.
const PAGE_ITEMS: usize = 500;
/// How many upstreams: each may have hundreds of endpoints.
pub const PAGE_UPSTREAMS: usize = 32;

#[derive(Args, Debug)]
pub struct Watching {
    /// Keep running and show every change
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub reading: Reading,
    #[command(flatten)]
    pub target: Target,
}

/// How fresh the answer must be.
#[derive(Args, Clone, Copy, Debug)]
pub struct Reading {
    /// Read the copy of the node that answers; it needs no quorum, and may be out of date
    #[arg(long)]
    pub stale: bool,
}

impl Reading {
    /// The path of a request that reads.
    pub fn path(self, path: impl Into<String>) -> String {
        let path = path.into();
        match (self.stale, path.contains('?')) {
            (false, _) => path,
            (true, false) => path + "?consistency=stale",
            (true, true) => path + "&consistency=stale",
        }
    }

    /// Without a quorum, a stale read is what is left.
    pub fn failed(self, error: ClientError) -> CliError {
        let needs_quorum = error.is(Code::NoLeader) && !self.stale;
        match error.into() {
            CliError::Failed(message) if needs_quorum => CliError::Failed(format!(
                "{message}; --stale reads what this node has, and docs/recovery.md has the ways back"
            )),
            other => other,
        }
    }
}

#[derive(Args, Debug)]
pub struct Listing {
    /// The maximum number of items; the latest are shown
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse_limit)]
    pub limit: usize,
    #[command(flatten)]
    pub watching: Watching,
}

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  ringmaster locks jobs/ --watch
  ringmaster locks --contended
  ringmaster locks show jobs/nightly"
)]
pub struct Locks {
    #[command(subcommand)]
    one: Option<OneLock>,
    /// Only locks whose names start with this
    prefix: Option<String>,
    /// Only locks with waiters
    #[arg(long)]
    contended: bool,
    #[command(flatten)]
    watching: Watching,
}

#[derive(Debug, Subcommand)]
pub enum OneLock {
    /// Show one lock with its holders, waiters and history
    Show {
        name: String,
        #[command(flatten)]
        watching: Watching,
    },
}

impl Locks {
    pub fn query(self) -> (Query, Watching) {
        match self.one {
            Some(OneLock::Show { name, watching }) => (Query::Lock { name }, watching),
            None => {
                let prefix = self.prefix.unwrap_or_default();
                (Query::Locks { prefix, contended: self.contended }, self.watching)
            }
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringmaster upstreams
  ringmaster upstreams web --watch")]
pub struct Upstreams {
    /// Show only this upstream, with its endpoints
    name: Option<String>,
    #[command(flatten)]
    watching: Watching,
}

impl Upstreams {
    pub fn query(self) -> (Query, Watching) {
        let query = self.name.map_or(Query::Upstreams, |name| Query::Upstream { name });
        (query, self.watching)
    }
}

/// A query that can be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    Status,
    Nodes,
    Operations { limit: usize },
    Audit { limit: usize },
    Settings,
    Locks { prefix: String, contended: bool },
    Lock { name: String },
    Upstreams,
    Upstream { name: String },
    Routes,
}

impl Query {
    /// The answer as [`Query::show`] needs it, or as JSON for scripts.
    async fn fetch(&self, client: &Client, reading: Reading, json: bool) -> Result<Value, ClientError> {
        let all = async |path: &str, limit: usize| list(client, &reading.path(path), limit).await;
        match self {
            // These are the answering node's own view and need no quorum.
            Query::Status => client.get("/v1/cluster").await,
            Query::Nodes if json => list(client, "/v1/nodes", MAX_LIMIT).await,
            // Whether there is a quorum decides what the statuses of nodes are worth.
            Query::Nodes => client.get("/v1/cluster").await,
            Query::Operations { limit } => all("/v1/operations", *limit).await,
            Query::Audit { limit } => all("/v1/audit", *limit).await,
            Query::Settings => all("/v1/settings", MAX_LIMIT).await,
            Query::Locks { prefix, contended } => {
                let path = format!("/v1/locks?prefix={}&contended={contended}", segment(prefix));
                all(&path, MAX_LIMIT).await
            }
            Query::Lock { name } => client.get(&reading.path(format!("/v1/locks/{}", segment(name)))).await,
            Query::Upstreams => {
                list_by(client, &reading.path("/v1/upstreams"), MAX_LIMIT, PAGE_UPSTREAMS).await
            }
            Query::Upstream { name } => {
                client.get(&reading.path(format!("/v1/upstreams/{}", segment(name)))).await
            }
            Query::Routes => all("/v1/routes", MAX_LIMIT).await,
        }
    }

    fn show(&self, answer: Value, paint: Paint) -> Result<String, CliError> {
        Ok(match self {
            Query::Status => show::cluster(&read::<Cluster>(answer)?, paint),
            Query::Nodes => show::nodes(&read::<Cluster>(answer)?, paint),
            Query::Operations { .. } => {
                let mut operations: Vec<Operation> = items(answer)?;
                operations.sort_by_key(|operation| operation.id);
                show::operations(&operations, paint)
            }
            Query::Audit { .. } => {
                let mut entries: Vec<AuditEntry> = items(answer)?;
                entries.sort_by_key(|entry| entry.number);
                show::audit(&entries, paint)
            }
            Query::Settings => show::settings(&items(answer)?, paint),
            Query::Locks { .. } => show::locks(&items(answer)?, paint),
            Query::Lock { .. } => show::lock(&read::<LockDetail>(answer)?, paint),
            Query::Upstreams => show::upstreams(&items(answer)?, paint),
            Query::Upstream { .. } => show::upstream(&read::<Upstream>(answer)?, paint),
            Query::Routes => show::routes(&items(answer)?, paint),
        })
    }

    /// Whether the answer may have changed.
    fn is_touched_by(&self, update: &Update) -> bool {
        match update {
            Update::View | Update::Locks(_) => true,
            // These show measurements or the rest of a lease.
            Update::Sample => {
                matches!(self, Query::Status | Query::Nodes | Query::Locks { .. } | Query::Lock { .. })
            }
            Update::Events(batch) => batch.events.iter().any(|event| self.is_touched_by_event(event)),
        }
    }

    fn is_touched_by_event(&self, event: &Event) -> bool {
        match self {
            // These show the revision or the age of a measurement.
            Query::Status | Query::Nodes => true,
            Query::Operations { .. } => matches!(
                event,
                Event::OperationStarted { .. }
                    | Event::StepChanged { .. }
                    | Event::StepsAdded { .. }
                    | Event::OperationChanged { .. }
                    | Event::OperationUndone { .. }
            ),
            Query::Audit { .. } => matches!(event, Event::Audited { .. }),
            Query::Settings => matches!(event, Event::SettingChanged { .. } | Event::SettingRemoved { .. }),
            Query::Routes => matches!(event, Event::RoutePut { .. } | Event::RouteRemoved { .. }),
            Query::Upstreams | Query::Upstream { .. } => matches!(
                event,
                Event::UpstreamPut { .. }
                    | Event::UpstreamRemoved { .. }
                    | Event::EndpointPut { .. }
                    | Event::EndpointRemoved { .. }
                    | Event::EndpointStateChanged { .. }
                    | Event::EndpointHealthChanged { .. }
                    | Event::PrimaryChanged { .. }
            ),
            // Locks produce no events.
            Query::Locks { .. } | Query::Lock { .. } => false,
        }
    }

    /// The topic to follow besides the events.
    fn topic(&self) -> Option<ClientMessage> {
        let (prefix, contended) = match self {
            Query::Locks { prefix, contended } => (prefix.clone(), *contended),
            Query::Lock { name } => (name.clone(), false),
            _ => return None,
        };
        Some(ClientMessage::Follow {
            topic: Topic::Locks,
            limit: None,
            prefix,
            after: None,
            contended,
            upstream: None,
        })
    }
}

pub async fn run(query: Query, watching: &Watching, out: &Out) -> Result<(), CliError> {
    let client = watching.target.client();
    let reading = watching.reading;
    if watching.watch {
        return watch(query, &client, watching, out).await;
    }
    let answer =
        query.fetch(&client, reading, watching.target.json).await.map_err(|error| reading.failed(error))?;
    if watching.target.json {
        return Ok(out.line(answer.to_string())?);
    }
    Ok(out.text(query.show(answer, out.paint())?)?)
}

async fn watch(query: Query, client: &Client, watching: &Watching, out: &Out) -> Result<(), CliError> {
    let json = watching.target.json;
    let mut stream = Stream::open(client);
    if let Some(topic) = query.topic() {
        stream = stream.following(topic);
    }
    let mut last = String::new();
    loop {
        let mut touched = query.is_touched_by(&stream.next().await?);
        let mut debounce = pin!(sleep(DEBOUNCE));
        loop {
            tokio::select! {
                () = &mut debounce => break,
                update = stream.next() => touched |= query.is_touched_by(&update?),
            }
        }
        if !touched {
            continue;
        }
        let text = match query.fetch(client, watching.reading, json).await {
            Ok(answer) if json => answer.to_string(),
            Ok(answer) => query.show(answer, out.paint())?,
            // The problem may be transient: report it and keep watching.
            Err(error @ ClientError::Problem(_)) => {
                eprintln!("ringmaster: {error}");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if text != last {
            if json {
                out.line(&text)?;
            } else {
                if last.is_empty() {
                    out.clear()?;
                }
                out.redraw(&text)?;
            }
            last = text;
        }
    }
}

/// Requests page after page until there are `limit` items or no more. The answer is one page, whose
/// `next` is the cursor after its last item.
pub async fn list(client: &Client, path: &str, limit: usize) -> Result<Value, ClientError> {
    list_by(client, path, limit, PAGE_ITEMS).await
}

/// The same with a number of items for each request.
pub async fn list_by(
    client: &Client,
    path: &str,
    limit: usize,
    page_items: usize,
) -> Result<Value, ClientError> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut all = Page { items: Vec::new(), next: None };
    loop {
        let want = (limit - all.items.len()).min(page_items);
        let cursor = all.next.as_deref().map(|cursor: &str| format!("&cursor={}", segment(cursor)));
        let path = format!("{path}{separator}limit={want}{}", cursor.unwrap_or_default());
        let page: Page<Value> = client.get(&path).await?;
        let more = page.next.is_some() && !page.items.is_empty();
        all.items.extend(page.items);
        all.items.truncate(limit);
        all.next = page.next;
        if !more || all.items.len() >= limit {
            return Ok(serde_json::to_value(all).expect("a page of JSON is JSON"));
        }
    }
}

pub fn items<T: DeserializeOwned>(answer: Value) -> Result<Vec<T>, CliError> {
    Ok(read::<Page<T>>(answer)?.items)
}

/// Parses an answer of the API.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(|error| {
        CliError::Failed(format!("cannot parse the node's answer: {error}; --json prints it"))
    })
}

/// Serializes a value of the API.
pub fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the API's types are JSON")
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(format!("a limit is a number from 1 to {MAX_LIMIT}")),
    }
}
