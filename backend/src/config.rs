//! The configuration of a node.
//!
//! Every option has one name and one meaning, in the file and on the command line: [`NodeOptions`] is
//! both. A flag overrides the file, and the file overrides the default. The result, a [`NodeConfig`], is
//! complete and validated.
//!
//! Deliberately absent: options that the whole cluster must agree on. Those are settings, which live in
//! the log and change at run time.

use crate::parse;
use clap::{Args, ValueEnum};
use ringmaster_common::{cluster::MAX_NAME_BYTES, id::NodeId, origin::check_origin};
use ringmaster_replication::elections::Elections;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// The greatest weight of a node on the ring.
pub const MAX_WEIGHT: u32 = 1000;
/// The largest id of a node: JSON clients read larger numbers as another one.
const MAX_NODE_ID: u64 = (1 << 53) - 1;
/// The longest election time-out. Writes stop for as long after the death of a leader.
pub const MAX_ELECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest heartbeat interval. Below it, a node does little else.
pub const MIN_HEARTBEAT: Duration = Duration::from_millis(10);

/// The minimum number of entries between two snapshots. Below it, a node does little else.
pub const MIN_SNAPSHOT_EVERY: u64 = 100;

/// A snapshot holds tens of thousands of remembered requests and events; taken more often, snapshots
/// would write more than the log.
const DEFAULT_SNAPSHOT_EVERY: u64 = 50_000;
const DEFAULT_API_PORT: u16 = 7701;
const DEFAULT_PEER_PORT: u16 = 7801;

/// The configuration of a node, complete and validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Without it, the id comes from the data directory, or on the first start from the cluster.
    pub id: Option<NodeId>,
    /// Without it, [`made_up_name`] makes one up.
    pub name: Option<String>,
    pub data_dir: PathBuf,
    pub api_addr: SocketAddr,
    pub peer_addr: SocketAddr,
    /// The proxy's listener, if there is one.
    pub proxy_addr: Option<SocketAddr>,
    /// The listener for heartbeats of endpoints, if there is one.
    pub heartbeat_addr: Option<SocketAddr>,
    /// The DNS listener, if there is one.
    pub dns_addr: Option<SocketAddr>,
    /// Without a slash at the end.
    pub public_url: String,
    pub start: Start,
    /// The peer addresses of members that were moved.
    pub moved: BTreeMap<NodeId, SocketAddr>,
    /// The name of the cluster, if this node creates one.
    pub cluster_name: String,
    pub zone: String,
    pub weight: u32,
    pub log_format: LogFormat,
    pub elections: Elections,
    /// In entries of the log.
    pub snapshot_every: u64,
}

/// How a node with an empty data directory starts. A node with an identity resumes instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Create a cluster.
    Bootstrap,
    /// Join the cluster at one of these URLs.
    Join(Vec<String>),
    /// Neither was given: the data directory must hold an identity.
    Resume,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// An invalid configuration: the option, the reason, and what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// The options as given; each may be absent.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeOptions {
    /// The node's id [default: the id in the data directory, else assigned by the cluster]
    #[arg(long, value_name = "N")]
    pub id: Option<NodeId>,
    /// The display name [default: made up from the id, such as amber-fox]
    #[arg(long)]
    pub name: Option<String>,
    /// The data directory; each node needs its own
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The advertised address for HTTP requests [default: 127.0.0.1:7701]
    #[arg(long, value_name = "IP:PORT")]
    pub api_addr: Option<SocketAddr>,
    /// The advertised peer address, TCP and UDP [default: 127.0.0.1:7801]
    #[arg(long, value_name = "IP:PORT")]
    pub peer_addr: Option<SocketAddr>,
    /// The address of the proxy's listener [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub proxy_addr: Option<SocketAddr>,
    /// The address of the listener for endpoint heartbeats, as lines of text [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub heartbeat_addr: Option<SocketAddr>,
    /// The address of the DNS listener for upstreams, UDP and TCP [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub dns_addr: Option<SocketAddr>,
    /// The URL of this node's dashboard as browsers reach it [default: http://API_ADDR]
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Create a new cluster, unless the data directory belongs to one already
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub bootstrap: Option<bool>,
    /// Join the cluster at this URL, unless the data directory belongs to one already; may be repeated
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// The peer address of a member that was moved, this node among them; may be repeated. Remove it once the cluster knows it
    #[arg(long, value_name = "ID=IP:PORT", value_delimiter = ',')]
    pub member: Option<Vec<String>>,
    /// The name of the cluster that --bootstrap creates [default: ringmaster]
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// The failure domain of the node [default: default]
    #[arg(long)]
    pub zone: Option<String>,
    /// The node's relative share of the ring [default: 1]
    #[arg(long)]
    pub weight: Option<u32>,
    /// Allow addresses other than loopback; anyone who can reach them may operate the cluster
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
    /// The format of the log on stderr [default: text]
    #[arg(long, value_enum)]
    pub log_format: Option<LogFormat>,
    /// The interval of the leader's heartbeats; must be equal on all members [default: 90]
    #[arg(long, value_name = "MS")]
    pub heartbeat_ms: Option<u64>,
    /// The minimum silence of a leader before an election; must be equal on all members [default: 190]
    #[arg(long, value_name = "MS")]
    pub election_timeout_min_ms: Option<u64>,
    /// The maximum silence of a leader before an election; must be equal on all members [default: 230]
    #[arg(long, value_name = "MS")]
    pub election_timeout_max_ms: Option<u64>,
    /// The number of log entries between two snapshots [default: 50000]
    #[arg(long, value_name = "N")]
    pub snapshot_every: Option<u64>,
}

impl NodeOptions {
    /// Reads a TOML file whose keys are the options' names.
    pub fn read(path: &Path) -> Result<NodeOptions, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
        parse::toml(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// These options, completed with those of `file`.
    pub fn or(self, file: NodeOptions) -> NodeOptions {
        // bootstrap and join are two answers to one question: a flag for either overrides both in the file.
        let (bootstrap, join) = match (self.bootstrap, self.join) {
            (None, None) => (file.bootstrap, file.join),
            given => given,
        };
        NodeOptions {
            id: self.id.or(file.id),
            name: self.name.or(file.name),
            data_dir: self.data_dir.or(file.data_dir),
            api_addr: self.api_addr.or(file.api_addr),
            peer_addr: self.peer_addr.or(file.peer_addr),
            proxy_addr: self.proxy_addr.or(file.proxy_addr),
            heartbeat_addr: self.heartbeat_addr.or(file.heartbeat_addr),
            dns_addr: self.dns_addr.or(file.dns_addr),
            public_url: self.public_url.or(file.public_url),
            bootstrap,
            join,
            member: self.member.or(file.member),
            cluster_name: self.cluster_name.or(file.cluster_name),
            zone: self.zone.or(file.zone),
            weight: self.weight.or(file.weight),
            insecure: self.insecure.or(file.insecure),
            log_format: self.log_format.or(file.log_format),
            heartbeat_ms: self.heartbeat_ms.or(file.heartbeat_ms),
            election_timeout_min_ms: self.election_timeout_min_ms.or(file.election_timeout_min_ms),
            election_timeout_max_ms: self.election_timeout_max_ms.or(file.election_timeout_max_ms),
            snapshot_every: self.snapshot_every.or(file.snapshot_every),
        }
    }

    /// Fills in the defaults and validates all options.
    pub fn complete(self) -> Result<NodeConfig, ConfigError> {
        if self.id == Some(NodeId(0)) {
            return invalid("id", "0 is not a node id; ids start at 1");
        }
        if let Some(id) = self.id.filter(|id| id.0 > MAX_NODE_ID) {
            return invalid(
                "id",
                format!("is at most {MAX_NODE_ID}, not {id}: a larger number is not exact in JSON"),
            );
        }
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let api_addr = self.api_addr.unwrap_or(loopback(DEFAULT_API_PORT));
        let peer_addr = self.peer_addr.unwrap_or(loopback(DEFAULT_PEER_PORT));
        check_addresses(
            &[
                ("api_addr", Some(api_addr)),
                ("peer_addr", Some(peer_addr)),
                ("proxy_addr", self.proxy_addr),
                ("heartbeat_addr", self.heartbeat_addr),
                ("dns_addr", self.dns_addr),
            ],
            self.insecure.unwrap_or(false),
        )?;
        let Some(data_dir) = self.data_dir.filter(|dir| !dir.as_os_str().is_empty()) else {
            return invalid("data_dir", "is missing; pass --data-dir DIR, a directory for this node only");
        };
        let start = match (self.bootstrap.unwrap_or(false), self.join.unwrap_or_default()) {
            (true, join) if !join.is_empty() => {
                return invalid("bootstrap", "and join exclude each other");
            }
            (true, _) => Start::Bootstrap,
            (false, join) if join.is_empty() => Start::Resume,
            (false, join) => {
                Start::Join(join.iter().map(|url| http_url("join", url)).collect::<Result<_, _>>()?)
            }
        };
        let moved = moved_members(&self.member.unwrap_or_default(), self.insecure.unwrap_or(false))?;
        if let Some(own) = self.id.and_then(|id| moved.get(&id)).filter(|own| **own != peer_addr) {
            return invalid("member", format!("says {own} for this node, and peer_addr is {peer_addr}"));
        }
        let public_url = match &self.public_url {
            Some(url) => web_url("public_url", url)?,
            None => format!("http://{api_addr}"),
        };
        let weight = self.weight.unwrap_or(1);
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return invalid("weight", format!("is 1 to {MAX_WEIGHT}, not {weight}"));
        }
        let snapshot_every = self.snapshot_every.unwrap_or(DEFAULT_SNAPSHOT_EVERY);
        if snapshot_every < MIN_SNAPSHOT_EVERY {
            return invalid(
                "snapshot_every",
                format!("is at least {MIN_SNAPSHOT_EVERY}, not {snapshot_every}"),
            );
        }
        Ok(NodeConfig {
            id: self.id,
            name: self.name.map(|name| check_name("name", name)).transpose()?,
            data_dir,
            api_addr,
            peer_addr,
            proxy_addr: self.proxy_addr,
            heartbeat_addr: self.heartbeat_addr,
            dns_addr: self.dns_addr,
            public_url,
            start,
            moved,
            cluster_name: check_name("cluster_name", self.cluster_name.unwrap_or("ringmaster".to_owned()))?,
            zone: check_name("zone", self.zone.unwrap_or("default".to_owned()))?,
            weight,
            log_format: self.log_format.unwrap_or_default(),
            elections: checked_elections(
                self.heartbeat_ms,
                self.election_timeout_min_ms,
                self.election_timeout_max_ms,
            )?,
            snapshot_every,
        })
    }
}

/// The new addresses of members, as ID=IP:PORT.
fn moved_members(texts: &[String], insecure: bool) -> Result<BTreeMap<NodeId, SocketAddr>, ConfigError> {
    let mut moved = BTreeMap::new();
    for text in texts {
        let parsed = text.split_once('=').and_then(|(id, addr)| Some((id.parse().ok()?, addr.parse().ok()?)));
        let Some((id, addr)) = parsed.filter(|(id, _)| *id != NodeId(0)) else {
            return invalid(
                "member",
                format!("is the id of a node and its peer address, as in 2=10.0.0.2:7801, not {text:?}"),
            );
        };
        check_addresses(&[("member", Some(addr))], insecure)?;
        if moved.insert(id, addr).is_some() {
            return invalid("member", format!("has two addresses for node {id}"));
        }
    }
    Ok(moved)
}

/// The election timing, validated.
fn checked_elections(
    heartbeat_ms: Option<u64>,
    min_ms: Option<u64>,
    max_ms: Option<u64>,
) -> Result<Elections, ConfigError> {
    let default = Elections::default();
    let elections = Elections {
        heartbeat: heartbeat_ms.map_or(default.heartbeat, Duration::from_millis),
        timeout_min: min_ms.map_or(default.timeout_min, Duration::from_millis),
        timeout_max: max_ms.map_or(default.timeout_max, Duration::from_millis),
    };
    let Elections { heartbeat, timeout_min, timeout_max } = elections;
    if heartbeat < MIN_HEARTBEAT {
        return invalid("heartbeat_ms", format!("is at least {}", MIN_HEARTBEAT.as_millis()));
    }
    // One lost heartbeat must not be enough for an election.
    if timeout_min < heartbeat.saturating_mul(2) {
        return invalid("election_timeout_min_ms", "is at least twice heartbeat_ms");
    }
    // Without a range between the two, voters become candidates at the same time and split the vote.
    if timeout_max <= timeout_min {
        return invalid("election_timeout_max_ms", "is more than election_timeout_min_ms");
    }
    if timeout_max > MAX_ELECTION_TIMEOUT {
        return invalid(
            "election_timeout_max_ms",
            format!("is at most {}", MAX_ELECTION_TIMEOUT.as_millis()),
        );
    }
    Ok(elections)
}

fn invalid<T>(option: &str, why: impl AsRef<str>) -> Result<T, ConfigError> {
    Err(ConfigError(format!("{option} {}", why.as_ref())))
}

/// Rejects addresses that members cannot reach, duplicates, and addresses beyond loopback without --insecure.
fn check_addresses(addresses: &[(&str, Option<SocketAddr>)], insecure: bool) -> Result<(), ConfigError> {
    let given: Vec<_> =
        addresses.iter().filter_map(|(option, addr)| addr.map(|addr| (*option, addr))).collect();
    for (position, (option, addr)) in given.iter().enumerate() {
        if addr.port() == 0 {
            return invalid(option, format!("{addr} has port 0; members need a fixed port"));
        }
        if addr.ip().is_unspecified() {
            return invalid(
                option,
                format!("{addr} is not an address that members can reach; pass the one that they use"),
            );
        }
        if !addr.ip().is_loopback() && !insecure {
            return invalid(
                option,
                format!(
                    "{addr} is not a loopback address, and there is no authentication yet: anyone who can reach \
                     it may operate the cluster. In a network where that is acceptable, pass --insecure"
                ),
            );
        }
        if let Some((other, _)) = given[..position].iter().find(|(_, known)| known == addr) {
            return invalid(option, format!("{addr} is also the address of {other}; each needs its own"));
        }
    }
    Ok(())
}

/// Names and zones appear in lists, URLs and command lines.
fn check_name(option: &str, word: String) -> Result<String, ConfigError> {
    let fits = !word.is_empty()
        && word.len() <= MAX_NAME_BYTES
        && !word.starts_with('-')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits {
        Ok(word)
    } else {
        invalid(option, format!("is 1 to {MAX_NAME_BYTES} letters, digits, or any of . _ -, not {word:?}"))
    }
}

/// The URL of another member's API, without a slash at the end.
fn http_url(option: &str, text: &str) -> Result<String, ConfigError> {
    let url = web_url(option, text)?;
    if url.starts_with("http://") {
        Ok(url)
    } else {
        invalid(option, format!("{text} is not an http:// URL"))
    }
}

fn web_url(option: &str, text: &str) -> Result<String, ConfigError> {
    let origin = reqwest::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
        .filter(|url| url.username().is_empty() && url.password().is_none());
    let origin = origin.map(|url| url.as_str().trim_end_matches('/').to_owned());
    match origin.as_deref().map_or_else(|| check_origin(text), check_origin) {
        Ok(()) => Ok(origin.unwrap_or_else(|| text.to_owned())),
        Err(why) => invalid(option, format!("is invalid: {why}")),
    }
}

/// The name of a node without a configured one: always the same for the same id, and distinct for any 256
/// consecutive ids.
pub fn made_up_name(id: NodeId) -> String {
    const ADJECTIVES: [&str; 16] = [
        "amber", "brisk", "calm", "dapper", "eager", "fuzzy", "gentle", "hardy", "ivory", "jolly", "keen",
        "lucky", "mellow", "nimble", "olive", "plucky",
    ];
    const ANIMALS: [&str; 16] = [
        "fox", "otter", "heron", "lynx", "badger", "wren", "hare", "ibex", "raven", "seal", "stoat", "tapir",
        "vole", "yak", "zebu", "marten",
    ];
    // An odd step visits each of the 256 pairs; this one changes both words each time.
    let pair = id.0.wrapping_sub(1).wrapping_mul(37) % 256;
    let adjective = usize::try_from(pair / 16).expect("below 16");
    let animal = usize::try_from(pair % 16).expect("below 16");
    format!("{}-{}", ADJECTIVES[adjective], ANIMALS[animal])
}

#[cfg(test)]
mod tests;
