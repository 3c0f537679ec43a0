//! `ringmaster events`: the history; with `--watch`, new events as they come.
//!
//! A watch survives the nodes that it reads from. Where it finds another cluster at their addresses, or the same one
//! with another history, it says so and starts with the first event of that one.

use super::{
    CliError,
    queries::{Listing, MAX_LIMIT, Watching, items, list, to_json},
    show,
};
use crate::out::Out;
use clap::Args;
use ringmaster_client::{Client, Stream, Update};
use ringmaster_common::{
    event::EventBatch,
    id::{Incarnation, Revision},
    view::ClusterView,
};

#[derive(Args, Debug)]
#[command(after_help = "Example: ringmaster events --after 1200 --json --watch")]
pub struct EventListing {
    /// Show the events after this revision instead of the latest
    #[arg(long, value_name = "REVISION")]
    after: Option<Revision>,
    #[command(flatten)]
    listing: Listing,
}

/// Whose history the printed events are of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct History {
    cluster: String,
    incarnation: Incarnation,
}

impl History {
    fn of(view: &ClusterView) -> History {
        History { cluster: view.id.clone(), incarnation: view.incarnation }
    }

    /// The line between the events of two histories.
    fn follows(&self, last: &History) -> String {
        if self.cluster == last.cluster {
            format!(
                "cluster {} has another history (incarnation {} after {}); its events from the beginning:",
                self.cluster, self.incarnation, last.incarnation
            )
        } else {
            // A cluster that is being created has no id yet.
            format!("another cluster has replaced cluster {}; its events from the beginning:", last.cluster)
        }
    }
}

pub async fn run(arguments: &EventListing, out: &Out) -> Result<(), CliError> {
    let EventListing { after, listing: Listing { limit, watching: Watching { watch, target, .. } } } =
        arguments;
    let client = target.client();
    if *watch {
        return follow(&client, *after, *limit, target.json, out).await;
    }
    let answer = list(&client, &history(*after), *limit).await?;
    if target.json {
        return Ok(out.line(answer.to_string())?);
    }
    let batches = in_order(items(answer)?);
    Ok(out.text(show::event_heading(out.paint()) + &show::events(&batches, out.paint()))?)
}

async fn follow(
    client: &Client,
    after: Option<Revision>,
    limit: usize,
    json: bool,
    out: &Out,
) -> Result<(), CliError> {
    let mut stream = Stream::open(client);
    let mut shown = after;
    let mut known: Option<History> = None;
    if !json {
        out.text(show::event_heading(out.paint()))?;
    }
    loop {
        let update = stream.next().await?;
        let current = stream.view().map(History::of);
        let last = std::mem::replace(&mut known, current.clone());
        let batches = match update {
            // The events before a fresh view are unknown: read them from the history.
            Update::View => {
                let is_first = shown.is_none();
                if let (None, Some(after), Some(view)) = (&last, after, stream.view())
                    && after > view.revision
                {
                    eprintln!("ringmaster: the cluster is at revision {}, before {after}", view.revision);
                }
                if let Some((last, current)) = last.zip(current).filter(|(last, current)| last != current) {
                    // Lines of JSON stay lines of JSON.
                    let notice = current.follows(&last);
                    if json {
                        eprintln!("ringmaster: {notice}");
                    } else {
                        out.line(notice)?;
                    }
                    shown = None;
                }
                let wanted = if is_first { limit } else { MAX_LIMIT };
                in_order(items(list(client, &history(shown), wanted).await?)?)
            }
            Update::Events(batch) => vec![batch],
            Update::Sample | Update::Locks(_) => continue,
        };
        for batch in batches.iter().filter(|batch| shown.is_none_or(|revision| batch.revision > revision)) {
            if json {
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
