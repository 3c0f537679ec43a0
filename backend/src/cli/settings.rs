//! `ringmaster settings`: replicated settings.

use super::{
    CliError, Target,
    queries::{self, Query, Reading, Watching, read},
    show,
};
use crate::out::Out;
use clap::Subcommand;
use ringmaster_client::segment;
use ringmaster_common::id::Revision;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum Arguments {
    /// List the settings
    List(Watching),
    /// Show a setting
    Get {
        key: String,
        #[command(flatten)]
        reading: Reading,
        #[command(flatten)]
        target: Target,
    },
    /// Write a setting
    #[command(after_help = "\
Examples:
  ringmaster settings put nodes.suspect_after_ms 800
  ringmaster settings put team.contact '\"#platform\"'
  ringmaster settings put team.limits '{\"cpu\": 4}' --if-match 120")]
    Put {
        key: String,
        /// Any JSON value; a string needs quotes
        #[arg(value_parser = parse_json, allow_hyphen_values = true)]
        value: Value,
        /// Write only if the setting has this version; 0 is a setting without a stored value
        #[arg(long, value_name = "VERSION")]
        if_match: Option<Revision>,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a setting; one that Ringmaster knows has its default again
    #[command(after_help = "\
Examples:
  ringmaster settings delete team.contact
  ringmaster settings delete nodes.suspect_after_ms --if-match 120")]
    Delete {
        key: String,
        /// Delete only if the setting has this version
        #[arg(long, value_name = "VERSION")]
        if_match: Option<Revision>,
        #[command(flatten)]
        target: Target,
    },
}

pub async fn run(arguments: Arguments, out: &Out) -> Result<(), CliError> {
    let (answer, target) = match arguments {
        Arguments::List(watching) => return queries::run(Query::Settings, &watching, out).await,
        Arguments::Get { key, reading, target } => {
            let answer = target.client().get::<Value>(&reading.path(path(&key))).await;
            (answer.map_err(|error| reading.failed(error))?, target)
        }
        Arguments::Put { key, value, if_match, target } => {
            let body = json!({ "value": value });
            (target.client().put::<Value>(&path(&key), &body, if_match).await?, target)
        }
        Arguments::Delete { key, if_match, target } => {
            target.client().delete(&path(&key), if_match).await?;
            return if target.json { Ok(()) } else { Ok(out.line(format!("Deleted {key}."))?) };
        }
    };
    if target.json {
        return Ok(out.line(answer.to_string())?);
    }
    Ok(out.text(show::settings(&[read(answer)?], out.paint()))?)
}

fn path(key: &str) -> String {
    format!("/v1/settings/{}", segment(key))
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("not JSON ({error}); a string needs quotes: '\"text\"'"))
}
