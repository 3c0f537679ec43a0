//! All of the page's HTTP.
//!
//! Requests go to the node that the stream comes from, so that the effect of a click is on the page as
//! soon as its response is. A mutation carries an idempotency key and is sent again, under the same
//! key, if the node dies under it: by then another node may have taken over.

use crate::{address::escaped, browser};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::*;
use ringmaster_common::{
    action::Action,
    demo::{Chaos, DemoNode},
    error::{Code, Problem},
    event::{AuditEntry, EventBatch},
    id::{NodeId, OperationId, PlanId, Revision},
    lock::LockDetail,
    operation::Operation,
    page::Page,
    plan::{Fact, Plan},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt, pin::Pin};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

/// A node that takes longer than this to answer is as good as silent.
const TIMEOUT_MS: u32 = 15_000;
/// How often a mutation is sent.
const MAX_TRIES: u32 = 4;
/// The wait between two tries, in which the page may find another node.
const RETRY_WAIT_MS: u32 = 700;
/// How many items a page of a list has.
pub const PER_PAGE: u32 = 100;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// The node refused the request.
    Refused(Box<Problem>),
    /// No node could be reached. A change may have been executed all the same.
    Unreachable { url: String, is_change: bool },
    /// The response is not one of a node of this version.
    Unexpected { status: u16, detail: String },
}

impl ApiError {
    /// The stable code, where the node gave one.
    pub fn is(&self, code: Code) -> bool {
        matches!(self, ApiError::Refused(problem) if problem.code == code.as_str())
    }

    pub fn facts(&self) -> &[Fact] {
        match self {
            ApiError::Refused(problem) => &problem.facts,
            _ => &[],
        }
    }

    pub fn title(&self) -> String {
        match self {
            ApiError::Refused(problem) => problem.title.clone(),
            ApiError::Unreachable { .. } => "No response".to_owned(),
            ApiError::Unexpected { status, .. } => format!("Unexpected response (status {status})"),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Refused(problem) => f.write_str(&problem.detail),
            ApiError::Unreachable { url, is_change: false } => write!(f, "{url} does not answer."),
            ApiError::Unreachable { url, is_change: true } => write!(
                f,
                "{url} does not answer. The request may or may not have been executed; check before you repeat it."
            ),
            ApiError::Unexpected { detail, .. } => f.write_str(detail),
        }
    }
}

/// The HTTP API of the node that the page is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Api {
    base: RwSignal<String>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl Api {
    pub fn new() -> Self {
        Api { base: RwSignal::new(browser::origin()) }
    }

    /// Sends requests to this node from now on.
    pub fn follow(self, url: &str) {
        if self.base.with_untracked(|base| base != url) {
            self.base.set(url.to_owned());
        }
    }

    /// The address that commands for a terminal name.
    pub fn base(self) -> String {
        self.base.get()
    }

    /// Whether this is a demo cluster, which offers chaos.
    pub async fn is_demo(self) -> ApiResult<bool> {
        /// The one field of `ringmaster_common::cluster::Cluster` that the stream does not bring.
        #[derive(Deserialize)]
        struct Cluster {
            demo: bool,
        }
        Ok(self.get::<Cluster>("/v1/cluster").await?.demo)
    }

    pub async fn plan(self, id: PlanId) -> ApiResult<Plan> {
        self.get(&format!("/v1/plans/{id}")).await
    }

    pub async fn operation(self, id: OperationId) -> ApiResult<Operation> {
        self.get(&format!("/v1/operations/{id}?consistency=stale")).await
    }

    /// Operations, the latest first, from before one or from now. History is read from the connected node, so that
    /// it can be read without a leader too.
    pub async fn operations(self, before: Option<String>) -> ApiResult<Page<Operation>> {
        self.get(&with_cursor(format!("/v1/operations?consistency=stale&limit={PER_PAGE}"), before)).await
    }

    /// Audit entries, the latest first, from before one or from now.
    pub async fn audit(self, before: Option<String>, limit: u32) -> ApiResult<Page<AuditEntry>> {
        self.get(&with_cursor(format!("/v1/audit?consistency=stale&limit={limit}"), before)).await
    }

    /// One lock, as this node has it.
    pub async fn lock(self, name: &str) -> ApiResult<LockDetail> {
        let path = format!("/v1/locks/{}?consistency=stale", escaped(name));
        self.get(&path).await
    }

    /// Any resource, as untyped JSON.
    pub async fn value(self, path: &str) -> ApiResult<Value> {
        self.get(path).await
    }

    /// Writes a configured resource, if its version is still `known`, or if it is new where that is none.
    pub async fn put(self, path: String, body: Value, known: Option<Revision>) -> ApiResult<Value> {
        decode(self.mutate("PUT", path, body, Some(condition(known))).await?)
    }

    /// Deletes a configured resource, if its version is still `known`.
    pub async fn delete(self, path: String, known: Option<Revision>) -> ApiResult<()> {
        match self.mutate("DELETE", path, json!({}), Some(condition(known))).await? {
            (_, true, _) => Ok(()),
            (status, false, body) => Err(refusal(status, &body)),
        }
    }

    /// The latest routing decisions for an upstream at the node with this address, oldest first.
    pub async fn decisions(self, url: String, upstream: &str) -> ApiResult<Value> {
        let api = Api { base: RwSignal::new(url) };
        api.value(&format!("/v1/upstreams/{upstream}/decisions")).await
    }

    /// The latest events first, from before a revision, or from now.
    pub async fn events(self, before: Option<String>, limit: u32) -> ApiResult<Page<EventBatch>> {
        self.get(&with_cursor(format!("/v1/events?order=desc&limit={limit}"), before)).await
    }

    pub async fn propose(self, action: Action) -> ApiResult<Plan> {
        self.post("/v1/plans", json!({ "action": action })).await
    }

    pub async fn apply(self, id: PlanId, keep_within_ms: Option<u64>) -> ApiResult<Operation> {
        self.operate(format!("/v1/plans/{id}/apply"), json!({ "keep_within_ms": keep_within_ms })).await
    }

    pub async fn abort(self, id: OperationId) -> ApiResult<Operation> {
        self.operate(format!("/v1/operations/{id}/abort"), json!({})).await
    }

    pub async fn keep(self, id: OperationId) -> ApiResult<Operation> {
        self.operate(format!("/v1/operations/{id}/keep"), json!({})).await
    }

    /// Asks the node at `through`, because `node` itself may not live to answer.
    pub async fn chaos(self, through: Option<String>, node: NodeId, chaos: Chaos) -> ApiResult<DemoNode> {
        let api = through.map_or(self, |url| Api { base: RwSignal::new(url) });
        api.post(&format!("/v1/demo/nodes/{node}/{}", chaos.as_str()), json!({})).await
    }

    pub async fn add_demo_node(self) -> ApiResult<DemoNode> {
        self.post("/v1/demo/nodes", json!({})).await
    }

    /// How long a node takes to answer at all, in milliseconds. The better of two: the first may have
    /// had to connect.
    pub async fn ping(self) -> Option<f64> {
        let url = format!("{}/livez", self.base.get_untracked());
        let mut best: Option<f64> = None;
        for _ in 0..2 {
            let started = browser::monotonic_ms();
            let request = web_sys::RequestInit::new();
            request.set_signal(Some(&timeout()));
            let answer = fetch(&url, &request).await.ok()?;
            let took = browser::monotonic_ms() - started;
            // A response that is not read is taken for one that was given up.
            JsFuture::from(answer.text().ok()?).await.ok()?;
            best = Some(best.map_or(took, |best| best.min(took))).filter(|_| answer.ok());
        }
        best
    }

    async fn get<T: DeserializeOwned>(self, path: &str) -> ApiResult<T> {
        decode(self.send(path.to_owned(), None).await?)
    }

    async fn post<T: DeserializeOwned>(self, path: &str, body: Value) -> ApiResult<T> {
        decode(self.mutate("POST", path.to_owned(), body, None).await?)
    }

    async fn operate(self, path: String, body: Value) -> ApiResult<Operation> {
        decode(self.mutate("POST", path, body, None).await?)
    }

    /// Boxed, so that there is one of it, whatever is sent and awaited.
    fn mutate(
        self,
        method: &'static str,
        path: String,
        body: Value,
        condition: Option<(&'static str, String)>,
    ) -> LocalBoxFuture<Raw> {
        let mutation = Mutation { method, body: body.to_string(), key: browser::unique_key(), condition };
        // A signal to a process is no request of the cluster, and has no idempotency key: a repeat is another signal.
        let max_tries = if path.starts_with("/v1/demo/") { 1 } else { MAX_TRIES };
        Box::pin(async move {
            let mut tries = 1;
            loop {
                match self.send(path.clone(), Some(mutation.clone())).await {
                    Err(ApiError::Unreachable { .. }) if tries < max_tries => {
                        tries += 1;
                        TimeoutFuture::new(RETRY_WAIT_MS).await;
                    }
                    answer => return answer,
                }
            }
        })
    }

    fn send(self, path: String, mutation: Option<Mutation>) -> LocalBoxFuture<Raw> {
        Box::pin(async move {
            let base = self.base.get_untracked();
            let is_change = mutation.is_some();
            let answer = exchange(&format!("{base}{path}"), mutation).await;
            answer.map_err(|_| ApiError::Unreachable { url: base, is_change })
        })
    }
}

/// The header that names the version which is changed.
fn condition(known: Option<Revision>) -> (&'static str, String) {
    match known {
        Some(version) => ("If-Match", format!("\"{version}\"")),
        None => ("If-None-Match", "*".to_owned()),
    }
}

/// Sends a request and reads the whole answer. Whatever fails of that, fails in the network.
async fn exchange(url: &str, mutation: Option<Mutation>) -> Result<(u16, bool, String), JsValue> {
    let request = web_sys::RequestInit::new();
    let headers = web_sys::Headers::new()?;
    headers.set("Ringmaster-Client", "dashboard")?;
    if let Some(Mutation { method, body, key, condition }) = mutation {
        request.set_method(method);
        request.set_body(&JsValue::from_str(&body));
        headers.set("Content-Type", "application/json")?;
        headers.set("Idempotency-Key", &key)?;
        if let Some((header, value)) = condition {
            headers.set(header, &value)?;
        }
    }
    request.set_headers(&headers);
    request.set_signal(Some(&timeout()));
    let answer = fetch(url, &request).await?;
    let text = JsFuture::from(answer.text()?).await?;
    Ok((answer.status(), answer.ok(), text.as_string().unwrap_or_default()))
}

async fn fetch(url: &str, request: &web_sys::RequestInit) -> Result<web_sys::Response, JsValue> {
    Ok(JsFuture::from(window().fetch_with_str_and_init(url, request)).await?.unchecked_into())
}

/// The content of a request that changes something.
#[derive(Clone, Debug)]
struct Mutation {
    method: &'static str,
    body: String,
    /// The idempotency key.
    key: String,
    /// A header that names the version which it changes.
    condition: Option<(&'static str, String)>,
}

pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;
/// Status, whether that is a success, and the body.
type Raw = ApiResult<(u16, bool, String)>;

fn timeout() -> web_sys::AbortSignal {
    web_sys::AbortSignal::timeout_with_u32(TIMEOUT_MS)
}

fn with_cursor(path: String, cursor: Option<String>) -> String {
    match cursor {
        Some(cursor) => format!("{path}&cursor={}", escaped(&cursor)),
        None => path,
    }
}

fn decode<T: DeserializeOwned>((status, ok, body): (u16, bool, String)) -> ApiResult<T> {
    if !ok {
        return Err(refusal(status, &body));
    }
    serde_json::from_str(&body).map_err(|error| ApiError::Unexpected {
        status,
        detail: format!("The response cannot be decoded: {error}."),
    })
}

fn refusal(status: u16, body: &str) -> ApiError {
    match serde_json::from_str(body) {
        Ok(problem) => ApiError::Refused(Box::new(problem)),
        Err(_) => ApiError::Unexpected { status, detail: body.chars().take(200).collect() },
    }
}
