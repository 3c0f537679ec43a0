//! Requests: one address after the other, under one key.

use crate::{Address, Attempt, ClientError};
use reqwest::{Method, StatusCode, header};
use ringmaster_common::{
    cluster::Cluster,
    error::{Code, Problem},
    id::Revision,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};
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
/// How often a node that takes its time, as it may, is asked whether it lives.
pub const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How long it may take to say so, before the request is taken to the next one.
pub const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// Tells nodes that no browser asks, so that no page of another site can be behind the request.
pub(crate) const CLIENT_HEADER: &str = "ringmaster-client";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A client of one cluster. Clones share what they know of it.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) name: &'static str,
    http: reqwest::Client,
    addresses: Arc<Mutex<VecDeque<Address>>>,
    discovered: Arc<OnceCell<()>>,
}

pub(crate) struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    if_match: Option<Revision>,
    idempotency_key: Option<Uuid>,
    /// How long a node may take for it.
    within: Duration,
}

impl Request {
    fn get(path: &str) -> Request {
        Request {
            method: Method::GET,
            path: path.to_owned(),
            body: None,
            if_match: None,
            idempotency_key: None,
            within: ANSWER_WITHIN,
        }
    }

    fn change(method: Method, path: &str, body: &impl Serialize) -> Request {
        Request {
            method,
            body: Some(serde_json::to_value(body).expect("the API's types are JSON")),
            idempotency_key: Some(Uuid::new_v4()),
            ..Request::get(path)
        }
    }

    pub(crate) fn post(path: &str, body: &impl Serialize) -> Request {
        Request::change(Method::POST, path, body)
    }

    pub(crate) fn under(self, key: Uuid) -> Request {
        Request { idempotency_key: Some(key), ..self }
    }

    pub(crate) fn within(self, within: Duration) -> Request {
        Request { within, ..self }
    }
}

impl Client {
    /// A client that knows these addresses, of which it needs one at least.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Client {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // Nodes are reached directly: a proxy of the environment is for the internet.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the options are constant");
        Client {
            name: "client",
            http,
            addresses: Arc::new(Mutex::new(addresses.into_iter().take(MAX_ADDRESSES).collect())),
            discovered: Arc::default(),
        }
    }

    /// What asks, as the audit names it: `cli` or `node`. All others are `api` there.
    pub fn named(self, name: &'static str) -> Client {
        Client { name, ..self }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Request::get(path)).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.ask(Request::post(path, body)).await
    }

    /// Replaces what is at `path`, where `if_match` is given only if it is at that version.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_match: Option<Revision>,
    ) -> Result<T, ClientError> {
        self.ask(Request { if_match, ..Request::change(Method::PUT, path, body) }).await
    }

    /// Asks a node for the addresses of the others, unless one was asked before.
    pub async fn discover(&self) -> Result<(), ClientError> {
        let members = async {
            let cluster: Cluster = self.get("/v1/cluster").await?;
            self.learn(cluster.nodes.iter().map(|info| info.node.public_url.as_str()));
            Ok(())
        };
        self.discovered.get_or_try_init(|| members).await.copied()
    }

    /// Sends the request until there is a leader to answer it, or patience ends. A change whose outcome
    /// is unknown is sent again, too: under its key, the cluster answers what became of it.
    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let mut retries = 0;
        loop {
            match self.ask_in_turn(&request).await {
                Err(error)
                    if (error.is(Code::NoLeader) || error.is(Code::OutcomeUnknown))
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
            match self.try_at(address, request).await {
                Ok(answer) => return answer,
                Err(attempt) => attempts.push(attempt),
            }
        }
        Err(ClientError::Unreachable(attempts))
    }

    /// Sends a change to one node after the other until one has a final answer, or `until` has come.
    /// `request` makes it anew for each attempt; all of them carry the same key.
    pub(crate) async fn insist<T: DeserializeOwned>(
        &self,
        until: Instant,
        request: impl Fn() -> Request,
    ) -> Result<T, ClientError> {
        loop {
            let mut attempts = Vec::new();
            let mut passing = None;
            for address in self.addresses() {
                match self.try_at(address, &request()).await {
                    Ok(Err(error @ ClientError::Problem(_))) if !error.is_final() => passing = Some(error),
                    Ok(answer) => return answer,
                    Err(attempt) => attempts.push(attempt),
                }
                if Instant::now() >= until {
                    break;
                }
            }
            if Instant::now() + NO_LEADER_PAUSE >= until {
                return Err(passing.unwrap_or(ClientError::Unreachable(attempts)));
            }
            sleep(NO_LEADER_PAUSE).await;
        }
    }

    /// The answer of one node, if there is one.
    async fn try_at<T: DeserializeOwned>(
        &self,
        address: Address,
        request: &Request,
    ) -> Result<Result<T, ClientError>, Attempt> {
        let sending = tokio::time::timeout(request.within, self.send(&address, request));
        let lost = tokio::select! {
            outcome = sending => match outcome {
                Ok(Ok((status, body))) => return Ok(self.read(&address, status, &body)),
                Ok(Err(error)) => (innermost(&error), !error.is_connect()),
                Err(_) => ("no answer in time".to_owned(), true),
            },
            () = self.silence(&address), if request.within > ANSWER_WITHIN => ("it fell silent".to_owned(), true),
        };
        let (reason, was_sent) = lost;
        self.put_off(&address);
        Err(Attempt { reason, in_doubt: request.idempotency_key.is_some() && was_sent, url: address })
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

    /// Ends once the node does not answer: a connection to one that is paused or cut off stays open.
    async fn silence(&self, address: &Address) {
        loop {
            sleep(PROBE_EVERY).await;
            let probe = self.http.get(format!("{address}/livez")).timeout(PROBE_WITHIN);
            if probe.send().await.is_err() {
                return;
            }
        }
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
            let body = if status == StatusCode::NO_CONTENT { b"null".as_slice() } else { body };
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
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.locked().iter().cloned().collect()
    }

    /// Remembers more addresses of the cluster, and tries them after those that it knows.
    pub(crate) fn learn<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        let mut addresses = self.locked();
        for address in urls.into_iter().filter_map(|url| url.parse::<Address>().ok()) {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push_back(address);
            }
        }
    }

    pub(crate) fn prefer(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_front(address.clone());
    }

    pub(crate) fn put_off(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_back(address.clone());
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Address>> {
        // Every change leaves the list whole.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
