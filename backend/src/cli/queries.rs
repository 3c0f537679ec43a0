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
    event::{AuditEntry, Event, EventBatch},
    id::Revision,
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

#[derive(Args, Debug)]
pub struct Watching {
    /// Keep running and show every change
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub target: Target,
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
#[command(after_help = "Example: ringmaster events --after 1200 --json --watch")]
pub struct EventListing {
    /// Show the events after this revision instead of the latest
    #[arg(long, value_name = "REVISION")]
    after: Option<Revision>,
    #[command(flatten)]
    listing: Listing,
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
    async fn fetch(&self, client: &Client) -> Result<Value, ClientError> {
        match self {
            Query::Status => client.get("/v1/cluster").await,
            Query::Nodes => list(client, "/v1/nodes", MAX_LIMIT).await,
            Query::Operations { limit } => list(client, "/v1/operations", *limit).await,
            Query::Audit { limit } => list(client, "/v1/audit", *limit).await,
            Query::Settings => list(client, "/v1/settings", MAX_LIMIT).await,
            Query::Locks { prefix, contended } => {
                let path = format!("/v1/locks?prefix={}&contended={contended}", segment(prefix));
                list(client, &path, MAX_LIMIT).await
            }
            Query::Lock { name } => client.get(&format!("/v1/locks/{}", segment(name))).await,
            Query::Upstreams => list(client, "/v1/upstreams", MAX_LIMIT).await,
            Query::Upstream { name } => client.get(&format!("/v1/upstreams/{}", segment(name))).await,
            Query::Routes => list(client, "/v1/routes", MAX_LIMIT).await,
        }
    }

    fn show(&self, answer: Value, paint: Paint) -> Result<String, CliError> {
        Ok(match self {
            Query::Status => show::cluster(&read::<Cluster>(answer)?, paint),
            Query::Nodes => show::nodes(&items(answer)?, paint),
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
            Query::Settings => matches!(event, Event::SettingChanged { .. }),
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
    if watching.watch {
        return watch(query, &client, watching.target.json, out).await;
    }
    let answer = query.fetch(&client).await?;
    if watching.target.json {
        return Ok(out.line(answer.to_string())?);
    }
    Ok(out.text(query.show(answer, out.paint())?)?)
}

async fn watch(query: Query, client: &Client, json: bool, out: &Out) -> Result<(), CliError> {
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
        let text = match query.fetch(client).await {
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

/// Lists events; with `--watch`, appends new ones.
pub async fn events(arguments: &EventListing, out: &Out) -> Result<(), CliError> {
    let EventListing { after, listing: Listing { limit, watching: Watching { watch, target } } } = arguments;
    let client = target.client();
    if !*watch {
        let answer = list(&client, &history(*after), *limit).await?;
        if target.json {
            return Ok(out.line(answer.to_string())?);
        }
        let batches = in_order(items(answer)?);
        return Ok(out.text(show::event_heading(out.paint()) + &show::events(&batches, out.paint()))?);
    }

    let mut stream = Stream::open(&client);
    let mut shown = *after;
    if !target.json {
        out.text(show::event_heading(out.paint()))?;
    }
    loop {
        let batches = match stream.next().await? {
            // The events before a fresh view are unknown: read them from the history.
            Update::View => {
                let known = if shown.is_some() { MAX_LIMIT } else { *limit };
                in_order(items(list(&client, &history(shown), known).await?)?)
            }
            Update::Events(batch) => vec![batch],
            Update::Sample | Update::Locks(_) => continue,
        };
        for batch in batches.iter().filter(|batch| shown.is_none_or(|revision| batch.revision > revision)) {
            if target.json {
                out.line(to_json(batch))?;
            } else {
                out.text(show::events(std::slice::from_ref(batch), out.paint()))?;
            }
        }
        shown = shown.max(batches.last().map(|batch| batch.revision));
    }
}

fn history(after: Option<Revision>) -> String {
    match after {
        Some(revision) => format!("/v1/events?after={revision}"),
        None => "/v1/events?order=desc".to_owned(),
    }
}

fn in_order(mut batches: Vec<EventBatch>) -> Vec<EventBatch> {
    batches.sort_by_key(|batch| batch.revision);
    batches
}

/// Requests page after page until there are `limit` items or no more. The answer is one page, whose
/// `next` is the cursor after its last item.
pub async fn list(client: &Client, path: &str, limit: usize) -> Result<Value, ClientError> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let mut all = Page { items: Vec::new(), next: None };
    loop {
        let want = (limit - all.items.len()).min(PAGE_ITEMS);
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
