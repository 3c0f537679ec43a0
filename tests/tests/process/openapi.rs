//! The OpenAPI document and the cluster say the same: every example is sent, and answered as written.

use futures::StreamExt;
use jsonschema::Validator;
use reqwest::{Method, RequestBuilder, Response};
use ringmaster_tests::{SOON, cluster::Cluster};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio_tungstenite::{connect_async, tungstenite::Message};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// The document, as a node serves it.
struct Document(Value);

/// A path and a method.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    text: &'a Value,
}

impl Document {
    async fn of(cluster: &Cluster) -> Document {
        let response = cluster.send(1, Method::GET, "/openapi.json", None).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        Document(response.json().await.expect("JSON"))
    }

    fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("operations").iter();
                methods.map(|(method, text)| Operation { path: path.as_str(), method: method.as_str(), text })
            })
            .collect()
    }

    /// Says what does not fit, if anything.
    fn check(&self, schema: &Value, body: &Value) -> Result<(), String> {
        let mut root = schema.as_object().cloned().unwrap_or_default();
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("components".to_owned(), self.0["components"].clone());
        let validator: Validator = jsonschema::validator_for(&Value::Object(root)).expect("a schema");
        let errors: Vec<_> =
            validator.iter_errors(body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}

impl Operation<'_> {
    fn name(&self) -> String {
        format!("{} {}", self.method.to_uppercase(), self.path)
    }

    fn parameters(&self, place: &str) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.text["parameters"].as_array().into_iter().flatten();
        all.filter(move |parameter| parameter["in"] == place)
            .map(|parameter| (parameter["name"].as_str().expect("a name"), &parameter["example"]))
    }

    /// The path with its examples, and the query with those that it has.
    fn target(&self) -> String {
        let mut target = self.path.to_owned();
        for (name, example) in self.parameters("path") {
            assert!(!example.is_null(), "{}: {name} has an example", self.name());
            target = target.replace(&format!("{{{name}}}"), &plain(example));
        }
        let query: Vec<_> = self
            .parameters("query")
            .filter(|(_, example)| !example.is_null())
            .map(|(name, example)| format!("{name}={}", plain(example)))
            .collect();
        if query.is_empty() { target } else { format!("{target}?{}", query.join("&")) }
    }

    /// Every example body, or none where the operation takes none.
    fn bodies(&self) -> Vec<(String, Option<&Value>)> {
        let content = &self.text["requestBody"]["content"]["application/json"];
        match content["examples"].as_object() {
            None if self.text["requestBody"].is_null() => vec![("plain".to_owned(), None)],
            None => panic!("{} has examples of its body", self.name()),
            Some(examples) => {
                examples.iter().map(|(name, example)| (name.clone(), Some(&example["value"]))).collect()
            }
        }
    }

    fn takes_stream(&self) -> bool {
        self.text["responses"].get("101").is_some()
    }
}

fn plain(example: &Value) -> String {
    example.as_str().map_or_else(|| example.to_string(), str::to_owned)
}

fn request(cluster: &Cluster, operation: &Operation<'_>, body: Option<&Value>) -> RequestBuilder {
    let method = Method::from_bytes(operation.method.to_uppercase().as_bytes()).expect("a method");
    let request = cluster.http.request(method, format!("{}{}", cluster.node(1).url, operation.target()));
    match body {
        Some(body) => request.json(body),
        None => request,
    }
}

/// Fails unless the answer is one that is documented, with a body that fits.
async fn check_answer(
    document: &Document,
    operation: &Operation<'_>,
    example: &str,
    response: Response,
) -> u16 {
    let what = format!("{}, {example}", operation.name());
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().to_owned();
    let headers = response.headers().clone();
    let text = response.text().await.expect("a body");
    let documented = &operation.text["responses"][status.to_string()];
    assert!(documented.is_object(), "{what}: {status} is not documented: {text}");
    let named = documented["headers"].as_object().cloned().unwrap_or_default();
    for (name, _) in named.iter().filter(|(_, header)| header["required"] == true) {
        assert!(headers.contains_key(name), "{what}: there is no {name}");
    }
    let own =
        |name: &&str| name.starts_with("ringmaster-") || ["etag", "location", "retry-after"].contains(name);
    for name in headers.keys().map(|name| name.as_str()).filter(own) {
        assert!(
            named.keys().any(|known| known.eq_ignore_ascii_case(name)),
            "{what}: {name} is not documented"
        );
    }
    if status == 204 {
        assert_eq!(text, "", "{what}: 204 has no body");
        return status;
    }
    let content = &documented["content"][&kind];
    assert!(content.is_object(), "{what}: {status} with {kind} is not documented: {text}");
    if kind.ends_with("json") {
        let body: Value = serde_json::from_str(&text).expect("JSON");
        document
            .check(&content["schema"], &body)
            .unwrap_or_else(|why| panic!("{what}: {status} is not as documented: {why}\n{body:#}"));
        if kind == "application/problem+json" {
            let code = body["code"].as_str().expect("a code");
            assert!(content["examples"].get(code).is_some(), "{what}: {code} is not documented");
        }
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_answered_as_documented() {
    // One after the other, so that plan 1 and operation 1 are the same join each time.
    let mut cluster = Cluster::start(1).await;
    for count in 2..=3 {
        cluster.add();
        cluster.wait_formed(count).await;
    }
    // The objects that the examples read, change and delete.
    let upstream = json!({ "endpoints": [
        { "id": "e1", "addr": "127.0.0.1:9001" }, { "id": "e2", "addr": "127.0.0.1:9002" }
    ] });
    for name in ["web", "retired"] {
        let path = format!("/v1/upstreams/{name}");
        let answer = cluster.send(1, Method::PUT, &path, Some(upstream.clone())).await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let route = json!({ "path_prefix": format!("/of/{name}"), "upstream": "web" });
        let path = format!("/v1/routes/{name}");
        let answer = cluster.send(1, Method::PUT, &path, Some(route)).await.expect("an answer");
        assert_eq!(answer.status(), 201);
    }
    let worker = json!({ "id": "worker-8", "addr": "127.0.0.1:9108", "ttl_ms": 60000 });
    let path = "/v1/upstreams/web/register";
    let answer = cluster.send(1, Method::POST, path, Some(worker)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    cluster.put_setting(1, "retired", json!(true)).await.expect("it is set");
    let document = Document::of(&cluster).await;
    let mut answered = BTreeMap::new();
    for operation in document.operations().iter().filter(|operation| !operation.takes_stream()) {
        for (example, body) in operation.bodies() {
            if let Some(body) = body {
                let schema = &operation.text["requestBody"]["content"]["application/json"]["schema"];
                document.check(schema, body).unwrap_or_else(|why| {
                    panic!("{}, {example}: the example does not fit: {why}", operation.name())
                });
            }
            let response = request(&cluster, operation, body).send().await.expect("an answer");
            let status = check_answer(&document, operation, &example, response).await;
            answered.insert(format!("{} {example}", operation.name()), status);
        }
    }
    println!("{answered:#?}");
    // Outside a demo there is no chaos; the only operation has ended, and awaits no confirmation.
    let refused: BTreeSet<_> = answered
        .iter()
        .filter(|(_, status)| **status >= 400)
        .map(|(name, status)| (name.as_str(), *status))
        .collect();
    let expected = BTreeSet::from([
        ("GET /v1/demo/nodes plain", 404),
        ("POST /v1/demo/nodes plain", 404),
        ("POST /v1/demo/nodes/{id}/{chaos} plain", 404),
        ("POST /v1/operations/{id}/abort plain", 409),
        ("POST /v1/operations/{id}/keep plain", 409),
    ]);
    assert_eq!(refused, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_speaks_as_documented() {
    let cluster = Cluster::start(1).await;
    let document = Document::of(&cluster).await;
    let operations = document.operations();
    let operation = operations.iter().find(|operation| operation.takes_stream()).expect("a stream");
    let url = format!("{}{}", cluster.node(1).url.replace("http", "ws"), operation.target());
    let (mut stream, response) = connect_async(url).await.expect("a stream");
    assert_eq!(response.status(), 101);
    let schema = json!({ "$ref": "#/components/schemas/ServerMessage" });
    let mut kinds = BTreeSet::new();
    cluster.put_setting(1, "seen", json!(1)).await.expect("it is set");
    while kinds.len() < 3 {
        let message =
            tokio::time::timeout(SOON, stream.next()).await.expect("in time").expect("the stream is open");
        let Message::Text(text) = message.expect("a message") else { continue };
        let message: Value = serde_json::from_str(&text).expect("JSON");
        document.check(&schema, &message).unwrap_or_else(|why| panic!("{why}\n{message:#}"));
        let is_new = kinds.insert(message["type"].as_str().expect("a type").to_owned());
        if is_new && message["type"] == "view" {
            cluster.put_setting(1, "seen", json!(2)).await.expect("it is set");
        }
    }
    assert_eq!(kinds, ["events", "sample", "view"].map(str::to_owned).into());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_takes_the_methods_that_are_documented_and_no_others() {
    let cluster = Cluster::start(1).await;
    let document = Document::of(&cluster).await;
    let mut documented = BTreeMap::<&str, (String, BTreeSet<String>)>::new();
    let operations = document.operations();
    for operation in &operations {
        let target = operation.target();
        let path = target.split('?').next().expect("a path").to_owned();
        let (_, methods) = documented.entry(operation.path).or_insert((path, BTreeSet::new()));
        methods.insert(operation.method.to_uppercase());
    }
    let tried = Method::from_bytes(b"BREW").expect("a method");
    for (path, methods) in documented.into_values() {
        let response = cluster.send(1, tried.clone(), &path, None).await.expect("an answer");
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers()["allow"].to_str().expect("methods").to_owned();
        // A path with GET has HEAD, too.
        // The path of an action on locks has it for the lock of that name.
        let is_namesake = path.starts_with("/v1/locks/") && !methods.contains("GET");
        let allowed: BTreeSet<_> = allowed
            .split(',')
            .map(|method| method.trim().to_owned())
            .filter(|method| method != "HEAD" && !(is_namesake && method == "GET"))
            .collect();
        assert_eq!(allowed, methods, "{path}");
        assert!(
            methods.iter().all(|method| METHODS.contains(&method.to_lowercase().as_str())),
            "{methods:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_read_by_its_name_whatever_that_is() {
    let cluster = Cluster::start(1).await;
    for name in ["jobs/nightly", "acquire", "verify", "a/b/c", "trailing/", "über/weiß ?#%"] {
        let body = json!({ "name": name, "owner": "me", "ttl_ms": 60_000 });
        let granted =
            cluster.send(1, Method::POST, "/v1/locks/acquire", Some(body)).await.expect("an answer");
        assert_eq!(granted.status(), 200, "{name}");
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let with_slashes = encoded.replace("%2F", "/");
        let mut paths = vec![encoded, with_slashes];
        if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'/') {
            paths.push(name.to_owned());
        }
        for path in paths {
            let lock: Value = cluster.get(1, &format!("/v1/locks/{path}")).await.expect("the lock");
            assert_eq!(lock["name"], name, "{path}");
        }
    }
    let unknown = cluster.send(1, Method::GET, "/v1/locks/release", None).await.expect("an answer");
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.expect("a problem")["code"], "unknown_lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_may_be_left_out_may_be_null() {
    let cluster = Cluster::start(1).await;
    let action = json!({ "action": { "type": "transfer_leadership", "to": 1 } });
    for body in ["null", "{}", r#"{"keep_within_ms": null}"#] {
        let plan = cluster.send(1, Method::POST, "/v1/plans", Some(action.clone())).await.expect("an answer");
        let plan: Value = plan.json().await.expect("a plan");
        let url = format!("{}/v1/plans/{}/apply", cluster.node(1).url, plan["id"]);
        let request = cluster.http.post(url).header("content-type", "application/json").body(body);
        let problem: Value = request.send().await.expect("an answer").json().await.expect("JSON");
        // The node leads already: the plan is blocked, not the body refused.
        assert_eq!(problem["code"], "plan_blocked", "{body}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_revision_is_shown_as_it_was() {
    let cluster = Cluster::start(3).await;
    let mut seen: Vec<Value> = Vec::new();
    for number in 0..5 {
        cluster.put_setting(1, "number", json!(number)).await.expect("it is set");
        seen.push(cluster.get(1, "/v1/state").await.expect("the view"));
    }
    for was in &seen {
        let revision = &was["revision"];
        for node in 1..=3 {
            let shown: Value =
                cluster.get(node, &format!("/v1/state?at={revision}")).await.expect("the view");
            assert_eq!(&shown, was, "node {node} at revision {revision}");
        }
    }
    let first: Value = cluster.get(1, "/v1/state?at=0").await.expect("the view");
    assert_eq!(first["nodes"], json!([]), "at the beginning, there is no node");
}
