//! Requests: sent to one address after the other, with one idempotency key.
//!
//! An address may be that of a proxy or a load balancer. What such a one answers when it has no node (502, 503, 504) is no
//! answer of a node: the request is sent to the next address, under the same key.

use crate::{Address, Attempt, ClientError};
use reqwest::{Method, StatusCode, header};
use ringmaster_common::{
    cluster::Cluster,
    error::{Code, Problem},
    id::Revision,
};
use serde::{
    Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

/// How long a node may take to accept a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node may take to answer. A paused process accepts connections and never answers; a running
/// one answers with an error after three seconds.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request is repeated because there was no leader. A node waits a while for a leader before
/// it answers so.
pub const NO_LEADER_RETRIES: u32 = 2;
/// The pause before each repeat.
pub const NO_LEADER_PAUSE: Duration = Duration::from_millis(250);
/// The maximum number of addresses that a client keeps.
pub const MAX_ADDRESSES: usize = 16;
/// The longest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The interval of liveness probes during a request that may take longer than [`REQUEST_TIMEOUT`].
pub const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long a node may take to answer a probe before the request moves to the next node.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How old the latest revision that this client has seen may be when it sends a change. It is read again before: the cluster
/// refuses a later attempt where it has forgotten answers since that revision, and an idle client's lies far behind.
pub const MAX_SEEN_AGE: Duration = Duration::from_secs(10);
/// How long one node may take to answer that read, and all together. Without it, the change is sent all the same.
pub const SEEN_NODE_TIMEOUT: Duration = Duration::from_secs(1);
pub const SEEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Marks requests as not from a browser: a page of another site cannot set this header.
pub(crate) const CLIENT_HEADER: &str = "ringmaster-client";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const RESENT_AFTER: &str = "ringmaster-resent-after";
const REVISION: &str = "ringmaster-revision";
const AGE_MS: &str = "ringmaster-age-ms";
/// A short answer that the leader confirms, and so comes with the latest revision.
const LATEST: &str = "/v1/locks?limit=1";

/// A client of one cluster. Clones share its addresses.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) name: &'static str,
    http: reqwest::Client,
    addresses: Arc<Mutex<VecDeque<Address>>>,
    discovered: Arc<OnceCell<()>>,
    /// What the latest answer came with; none before the first.
    seen: Arc<Mutex<Option<Seen>>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    revision: Revision,
    /// The cluster was there no later than this.
    at: Instant,
}

/// What is known of the attempts of one request so far.
#[derive(Default)]
struct Attempts {
    /// What this client had seen before the first.
    seen: Option<Revision>,
    /// Whether one of them may have taken effect.
    in_doubt: bool,
}

impl Attempts {
    /// The cluster refuses an attempt where it no longer knows whether an earlier one took effect. It looks no further
    /// back than to this revision.
    fn resent_after(&self) -> Option<Revision> {
        self.seen.filter(|_| self.in_doubt)
    }

    fn record<T>(&mut self, outcome: &Result<Result<T, ClientError>, Attempt>) {
        self.in_doubt |= match outcome {
            Ok(Err(error)) => error.is(Code::OutcomeUnknown) || error.is(Code::RequestTimeout),
            Ok(Ok(_)) => false,
            Err(attempt) => attempt.in_doubt,
        };
    }
}

pub(crate) struct Request {
    method: Method,
    path: String,
    body: Option<Value>,
    if_match: Option<Revision>,
    idempotency_key: Option<Uuid>,
    /// How long a node may take to answer.
    timeout: Duration,
}

impl Request {
    fn get(path: &str) -> Request {
        Request {
            method: Method::GET,
            path: path.to_owned(),
            body: None,
            if_match: None,
            idempotency_key: None,
            timeout: REQUEST_TIMEOUT,
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

    pub(crate) fn with_key(self, key: Uuid) -> Request {
        Request { idempotency_key: Some(key), ..self }
    }

    pub(crate) fn with_timeout(self, timeout: Duration) -> Request {
        Request { timeout, ..self }
    }
}

impl Client {
    /// A client of the cluster at these addresses; it needs at least one.
    pub fn new(addresses: impl IntoIterator<Item = Address>) -> Client {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Nodes are reached directly: a proxy in the environment is for the internet.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the options are constant");
        Client {
            name: "client",
            http,
            addresses: Arc::new(Mutex::new(addresses.into_iter().take(MAX_ADDRESSES).collect())),
            discovered: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// The kind of client, as the audit records it: `cli` or `node`. Any other name is recorded as `api`.
    pub fn named(self, name: &'static str) -> Client {
        Client { name, ..self }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send_with_retry(Request::get(path)).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send_with_retry(Request::post(path, body)).await
    }

    /// Replaces the object at `path`; with `if_match`, only if it has that version.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        if_match: Option<Revision>,
    ) -> Result<T, ClientError> {
        self.send_with_retry(Request { if_match, ..Request::change(Method::PUT, path, body) }).await
    }

    /// Deletes the object at `path`; with `if_match`, only if it has that version.
    pub async fn delete(&self, path: &str, if_match: Option<Revision>) -> Result<(), ClientError> {
        let request = Request { if_match, body: None, ..Request::change(Method::DELETE, path, &()) };
        self.send_with_retry(request).await
    }

    /// Fetches the addresses of the other nodes, once per client.
    pub async fn discover(&self) -> Result<(), ClientError> {
        let members = async {
            let cluster: Cluster = self.get("/v1/cluster").await?;
            self.add_addresses(cluster.nodes.iter().map(|info| info.node.public_url.as_str()));
            Ok(())
        };
        self.discovered.get_or_try_init(|| members).await.copied()
    }

    /// Repeats the request while there is no leader, a bounded number of times. A change with an unknown
    /// outcome is repeated, too: with the same key, the cluster returns the first outcome.
    async fn send_with_retry<T: DeserializeOwned>(&self, request: Request) -> Result<T, ClientError> {
        let mut attempts = match request.idempotency_key {
            Some(_) => self.attempts(Instant::now() + SEEN_TIMEOUT).await,
            None => Attempts::default(),
        };
        let mut retries = 0;
        loop {
            match self.send_to_any(&request, &mut attempts).await {
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
    async fn send_to_any<T: DeserializeOwned>(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<T, ClientError> {
        let mut failed = Vec::new();
        for address in self.addresses() {
            match self.send_to(address, request, attempts).await {
                Ok(answer) => return answer,
                Err(attempt) => failed.push(attempt),
            }
        }
        Err(ClientError::Unreachable(failed))
    }

    /// Of a change whose first attempt has not been sent. A revision that is read later would say nothing about that attempt.
    async fn attempts(&self, until: Instant) -> Attempts {
        if self.seen().is_some_and(|seen| seen.at.elapsed() > MAX_SEEN_AGE) {
            let until = until.min(Instant::now() + SEEN_TIMEOUT);
            let latest = Request::get(LATEST).with_timeout(SEEN_NODE_TIMEOUT);
            let mut attempts = Attempts::default();
            // Where it fails, the revision from before serves: it is too low rather than too high.
            let _ = timeout_at(until, self.send_to_any::<IgnoredAny>(&latest, &mut attempts)).await;
        }
        Attempts { seen: self.seen().map(|seen| seen.revision), in_doubt: false }
    }

    fn seen(&self) -> Option<Seen> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a change to one node after the other until one gives a final answer or `until` has passed.
    /// `request` builds it for each attempt; all attempts carry the same key.
    pub(crate) async fn send_until<T: DeserializeOwned>(
        &self,
        until: Instant,
        request: impl Fn() -> Request,
    ) -> Result<T, ClientError> {
        let mut attempts = self.attempts(until).await;
        loop {
            let mut failed = Vec::new();
            let mut transient = None;
            for address in self.addresses() {
                match self.send_to(address, &request(), &mut attempts).await {
                    Ok(Err(error @ ClientError::Problem(_))) if !error.is_final() => transient = Some(error),
                    Ok(answer) => return answer,
                    Err(attempt) => failed.push(attempt),
                }
                if Instant::now() >= until {
                    break;
                }
            }
            if Instant::now() + NO_LEADER_PAUSE >= until {
                return Err(transient.unwrap_or(ClientError::Unreachable(failed)));
            }
            sleep(NO_LEADER_PAUSE).await;
        }
    }

    /// Sends the request to one node and returns its answer, if there is one.
    async fn send_to<T: DeserializeOwned>(
        &self,
        address: Address,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<Result<T, ClientError>, Attempt> {
        let outcome = self.attempt(address, request, attempts.resent_after()).await;
        attempts.record(&outcome);
        outcome
    }

    async fn attempt<T: DeserializeOwned>(
        &self,
        address: Address,
        request: &Request,
        resent_after: Option<Revision>,
    ) -> Result<Result<T, ClientError>, Attempt> {
        let sending = tokio::time::timeout(request.timeout, self.exchange(&address, request, resent_after));
        let failed = tokio::select! {
            // An answer counts though a probe fails in the same moment.
            biased;
            outcome = sending => match outcome {
                Ok(Ok((status, body))) if is_of_a_node(status, &body) => {
                    return Ok(self.read(&address, status, &body));
                }
                Ok(Ok((status, _))) => (format!("it answered {status}, and not as a node"), true),
                Ok(Err(error)) => (root_cause(&error), !error.is_connect()),
                Err(_) => ("no answer in time".to_owned(), true),
            },
            () = self.unresponsive(&address), if request.timeout > REQUEST_TIMEOUT => {
                ("it stopped answering".to_owned(), true)
            }
        };
        let (reason, was_sent) = failed;
        self.defer(&address);
        Err(Attempt { reason, in_doubt: request.idempotency_key.is_some() && was_sent, url: address })
    }

    /// The status and the body, which is cut off just beyond the length limit.
    async fn exchange(
        &self,
        address: &Address,
        request: &Request,
        resent_after: Option<Revision>,
    ) -> reqwest::Result<(StatusCode, Vec<u8>)> {
        let mut builder = self
            .http
            .request(request.method.clone(), format!("{address}{}", request.path))
            .header(CLIENT_HEADER, self.name)
            .header(header::ACCEPT, "application/json");
        if let Some(key) = request.idempotency_key {
            builder = builder.header(IDEMPOTENCY_KEY, key.to_string());
            if let Some(revision) = resent_after {
                builder = builder.header(RESENT_AFTER, revision.to_string());
            }
        }
        if let Some(version) = request.if_match {
            builder = builder.header(header::IF_MATCH, format!("\"{version}\""));
        }
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let sent = Instant::now();
        let mut response = builder.send().await?;
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        if let Some(revision) = number(REVISION) {
            let age = Duration::from_millis(number(AGE_MS).unwrap_or(0));
            let seen = Seen { revision: Revision(revision), at: sent.checked_sub(age).unwrap_or(sent) };
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        }
        let mut body = Vec::new();
        while body.len() <= MAX_ANSWER_BYTES
            && let Some(chunk) = response.chunk().await?
        {
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }

    /// Ends when the node does not answer a probe: a connection to a paused or unreachable node stays open.
    async fn unresponsive(&self, address: &Address) {
        loop {
            sleep(PROBE_INTERVAL).await;
            let probe = self.http.get(format!("{address}/livez")).timeout(PROBE_TIMEOUT);
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
            serde_json::from_slice(body).map_err(|_| protocol(format!("it answered {status}")))?;
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Another node may be on the majority side of a network fault.
            self.defer(address);
        } else {
            self.prefer(address);
        }
        Err(ClientError::Problem(Box::new(problem)))
    }

    /// The addresses, in the order in which to try them.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.locked().iter().cloned().collect()
    }

    /// Adds addresses of the cluster behind the known ones.
    pub(crate) fn add_addresses<'a>(&self, urls: impl IntoIterator<Item = &'a str>) {
        let mut addresses = self.locked();
        for address in urls.into_iter().filter_map(|url| url.parse::<Address>().ok()) {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push_back(address);
            }
        }
    }

    /// Moves the address to the front.
    pub(crate) fn prefer(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_front(address.clone());
    }

    /// Moves the address to the back.
    pub(crate) fn defer(&self, address: &Address) {
        let mut addresses = self.locked();
        addresses.retain(|known| known != address);
        addresses.push_back(address.clone());
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Address>> {
        // A panic cannot leave the list in an inconsistent state.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that fails or has too much to do sends a problem document. Anything else like that is of a proxy before it.
fn is_of_a_node(status: StatusCode, body: &[u8]) -> bool {
    let may_be_of_a_proxy = status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS;
    !may_be_of_a_proxy || serde_json::from_slice::<Problem>(body).is_ok()
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
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
