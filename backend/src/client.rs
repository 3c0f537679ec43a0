//! A client of the HTTP API.
//!
//! It knows several addresses of one cluster and asks them in turn: any node can answer, so the
//! first that does is as good as another, and is asked first the next time. A change carries one
//! idempotency key through all its attempts, so that it takes effect once, however often it is sent.
//!
//! Deliberately absent: TLS and credentials. The nodes have neither yet, and refuse to listen beyond
//! loopback unless told that it is acceptable.

pub mod stream;

use reqwest::{Method, StatusCode, header};
use ringmaster_common::{
    error::{Code, Problem},
    id::Revision,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::sleep;
use uuid::Uuid;

/// How long a node may take to accept a connection.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take to answer. A paused process accepts connections and never answers; one
/// that runs says after three seconds that it could not do it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a request is sent again because there was no leader. A node has looked for one for a
/// while before it says so.
pub const NO_LEADER_RETRIES: u32 = 2;
/// How long to wait before it is.
pub const NO_LEADER_PAUSE: Duration = Duration::from_millis(250);
/// How many addresses of the cluster are remembered.
pub const MAX_ADDRESSES: usize = 16;
/// The longest answer that is read.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Tells nodes that no browser asks, so that no page of another site can be behind the request.
const CLIENT_HEADER: &str = "ringmaster-client";
/// What most clients are: somebody at a terminal, or a script of theirs.
const CLI: &str = "cli";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The address of a node: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// A client of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    /// How the audit names what asks.
    name: &'static str,
    http: reqwest::Client,
    addresses: Arc<Mutex<VecDeque<Address>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A node answered that it does not, cannot or will not do it.
    #[error("{}", show_problem(.0))]
    Problem(Box<Problem>),
    /// No node answered.
    #[error("{}", show_unreachable(.0))]
    Unreachable(Vec<Attempt>),
    /// Something answered that a node would not.
    #[error("{url} does not answer as a Ringmaster node of this version would: {detail}")]
    Protocol { url: Address, detail: String },
}

/// An address that was tried in vain.
#[derive(Debug)]
pub struct Attempt {
    pub url: Address,
    pub reason: String,
    /// Whether a change was sent, so that it may have taken effect.
    pub in_doubt: bool,
}

struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    if_match: Option<Revision>,
    idempotency_key: Option<Uuid>,
}

impl Client {
    /// A client that knows these addresses, of which it needs one at least.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Client {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            // Nodes are reached directly: a proxy of the environment is for the internet.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the options are constant");
        Client {
            name: CLI,
            http,
            addresses: Arc::new(Mutex::new(addresses.into_iter().take(MAX_ADDRESSES).collect())),
        }
    }

    /// A client that asks for a node rather than for somebody at a terminal.
    pub fn for_node(self) -> Client {
        Client { name: "node", ..self }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Request {
            method: Method::GET,
            path: path.to_owned(),
            body: None,
            if_match: None,
            idempotency_key: None,
        })
        .await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.change(Method::POST, path, body, None).await
    }

    /// Replaces what is at `path`, where `if_match` is given only if it is at that version.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_match: Option<Revision>,
    ) -> Result<T, ClientError> {
        self.change(Method::PUT, path, body, if_match).await
    }

    async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        if_match: Option<Revision>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_value(body).expect("the API's types are JSON");
        self.ask(Request {
            method,
            path: path.to_owned(),
            body: Some(body),
            if_match,
            idempotency_key: Some(Uuid::new_v4()),
        })
        .await
    }

    /// Sends the request until there is a leader to answer it, or patience ends. A change whose outcome
    /// is unknown is sent again, too: under its key, the cluster answers what became of it.
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let mut retries = 0;
        loop {
            match self.ask_in_turn(&request).await {
                Err(ClientError::Problem(problem))
                    if [Code::NoLeader, Code::OutcomeUnknown]
                        .iter()
                        .any(|code| problem.code == code.as_str())
                        && retries < NO_LEADER_RETRIES =>
                {
                    retries += 1;
                    sleep(NO_LEADER_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Sends the request to one address after the other until a node answers.
    async fn ask_in_turn<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        let mut attempts = Vec::new();
        for address in self.addresses() {
            match self.send(&address, request).await {
                Ok((status, body)) => return self.read(&address, status, &body),
                Err(error) => attempts.push(Attempt {
                    reason: innermost(&error),
                    in_doubt: request.idempotency_key.is_some() && !error.is_connect(),
                    url: address,
                }),
            }
        }
        Err(ClientError::Unreachable(attempts))
    }

    /// The status, and the body up to just beyond the longest that is read.
    async fn send(&self, address: &Address, request: &Request) -> reqwest::Result<(StatusCode, Vec<u8>)> {
        let mut builder = self
            .http
            .request(request.method.clone(), format!("{address}{}", request.path))
            .header(CLIENT_HEADER, self.name)
            .header(header::ACCEPT, "application/json");
        if let Some(key) = request.idempotency_key {
            builder = builder.header(IDEMPOTENCY_KEY, key.to_string());
        }
        if let Some(version) = request.if_match {
            builder = builder.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let mut response = builder.send().await?;
        let mut body = Vec::new();
        while body.len() <= MAX_ANSWER_BYTES
            && let Some(chunk) = response.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    fn read<T: DeserializeOwned>(
        &self,
        address: &Address,
        status: StatusCode,
        body: &[u8],
    ) -> Result<T, ClientError> {
        let protocol = |detail: String| ClientError::Protocol { url: address.clone(), detail };
        if body.len() > MAX_ANSWER_BYTES {
            return Err(protocol(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes")));
        }
        if status.is_success() {
            self.prefer(address);
            return serde_json::from_slice(body).map_err(|error| protocol(error.to_string()));
        }
        let problem: Problem =
            serde_json::from_slice(body).map_err(|_| protocol(format!("it says {status}")))?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Another node may be on the better side of whatever is wrong.
            self.put_off(address);
        } else {
            self.prefer(address);
        }
        Err(ClientError::Problem(Box::new(problem)))
    }

    /// The addresses, in the order in which to try them.
    fn addresses(&self) -> Vec<Address> {
        self.locked().iter().cloned().collect()
    }

    /// Remembers more addresses of the cluster, and tries them after those that it knows.
    fn learn<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        let mut addresses = self.locked();
        for address in urls.into_iter().filter_map(|url| url.parse::<Address>().ok()) {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push_back(address);
            }
        }
    }

    fn prefer(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_front(address.clone());
    }

    fn put_off(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_back(address.clone());
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Address>> {
        // Every change leaves the list whole.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let url = reqwest::Url::parse(text)
            .ok()
            .filter(|url| url.scheme() == "http" && url.has_host())
            .filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none())
            .filter(|url| url.username().is_empty() && url.password().is_none());
        match url {
            Some(url) => Ok(Address(url.as_str().trim_end_matches('/').to_owned())),
            None => Err("a node's address is like http://127.0.0.1:7701".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path segment that may hold any character.
pub fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn show_problem(problem: &Problem) -> String {
    let mut text = problem.to_string();
    if !problem.facts.is_empty() {
        let facts: Vec<_> = problem.facts.iter().map(|fact| fact.fact.as_str()).collect();
        text.push_str(&format!("; changed since: {}", facts.join(", ")));
    }
    text
}

fn show_unreachable(attempts: &[Attempt]) -> String {
    let tried: Vec<_> =
        attempts.iter().map(|attempt| format!("{} ({})", attempt.url, attempt.reason)).collect();
    let doubt = if attempts.iter().any(|attempt| attempt.in_doubt) {
        "; the request was sent, and may or may not have taken effect"
    } else {
        ""
    };
    format!("no node answers: {}{doubt}; name a living node with --url or RINGMASTER_URL", tried.join(", "))
}

/// What went wrong at the bottom: "connection refused" rather than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
