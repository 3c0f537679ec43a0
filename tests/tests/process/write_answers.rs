//! A write is answered with the body and version that it stored, even while others write; a repeat under its key gets
//! the first answer again.

use reqwest::{
    Method, StatusCode,
    header::{ETAG, LOCATION},
};
use ringmaster_tests::cluster::Cluster;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Writes of each writer to one object.
const WRITES: u64 = 30;
/// How often a writer deletes the object, in writes.
const DELETE_EVERY: u64 = 7;

/// One object that both writers write: its path, its body with a number in it, and where that number is in an answer
/// and in the view of the cluster.
struct Object {
    path: &'static str,
    body: fn(u64) -> Value,
    number: fn(&Value) -> Option<u64>,
    in_view: fn(&Value) -> Option<&Value>,
}

/// All that a client can see of an answer.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    etag: Option<String>,
    location: Option<String>,
    body: String,
}

const OBJECTS: [Object; 4] = [
    Object {
        path: "/v1/settings/shared",
        body: |number| json!({ "value": { "number": number } }),
        number: |setting| setting["value"]["number"].as_u64(),
        in_view: |view| named(&view["settings"], "key", "shared"),
    },
    Object {
        path: "/v1/upstreams/shared",
        body: |number| json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001", "weight": number }] }),
        number: |upstream| upstream["endpoints"][0]["weight"].as_u64(),
        in_view: |view| named(&view["upstreams"], "name", "shared"),
    },
    Object {
        path: "/v1/upstreams/target/endpoints/shared",
        body: |number| json!({ "addr": "127.0.0.1:9002", "weight": number }),
        number: |endpoint| endpoint["weight"].as_u64(),
        in_view: |view| named(&named(&view["upstreams"], "name", "target")?["endpoints"], "id", "shared"),
    },
    Object {
        path: "/v1/routes/shared",
        body: |number| json!({ "path_prefix": format!("/{number}"), "upstream": "target" }),
        number: |route| route["path_prefix"].as_str()?.strip_prefix('/')?.parse().ok(),
        in_view: |view| named(&view["routes"], "name", "shared"),
    },
];

fn named<'a>(list: &'a Value, field: &str, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item[field] == name)
}

async fn put(cluster: &Cluster, node: u64, object: &Object, number: u64) -> Answer {
    let request = cluster.http.put(format!("{}{}", cluster.node(node).url, object.path));
    let key = format!("{}-{number}", object.path.replace('/', "-"));
    let request = request.header("idempotency-key", key).json(&(object.body)(number));
    let response = request.send().await.expect("an answer");
    let header = |name| response.headers().get(name).map(|value| value.to_str().expect("a text").to_owned());
    let (status, etag, location) = (response.status(), header(ETAG), header(LOCATION));
    Answer { status, etag, location, body: response.text().await.expect("a body") }
}

/// Writes with every second number, and deletes now and then.
async fn write(cluster: &Cluster, node: u64, object: &Object) -> BTreeMap<u64, Answer> {
    let mut answers = BTreeMap::new();
    for count in 1..=WRITES {
        let number = 2 * count + node % 2;
        answers.insert(number, put(cluster, node, object, number).await);
        if count % DELETE_EVERY == 0 {
            let deleted = cluster.send(node, Method::DELETE, object.path, None).await.expect("an answer");
            assert!([204, 404].contains(&deleted.status().as_u16()), "{}: {deleted:?}", object.path);
        }
    }
    answers
}

/// Fails unless the answer carries what this write stored.
async fn check(cluster: &Cluster, object: &Object, number: u64, answer: &Answer) {
    let what = format!("PUT {} with {number}", object.path);
    let is_new = answer.status == StatusCode::CREATED;
    assert!(is_new || answer.status == StatusCode::OK, "{what}: {answer:?}");
    assert_eq!(answer.location.as_deref(), is_new.then_some(object.path), "{what}: {answer:?}");
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!((object.number)(&body), Some(number), "{what}: another body: {answer:?}");
    let version: u64 = answer.etag.as_deref().expect("an ETag").trim_matches('"').parse().expect("a version");
    if let Some(shown) = body["version"].as_u64() {
        assert_eq!(shown, version, "{what}: the body has the version of the ETag");
    }
    let view: Value =
        cluster.get(3, &format!("/v1/state?at={version}")).await.expect("the view at the version");
    let stored = (object.in_view)(&view).and_then(object.number);
    assert_eq!(stored, Some(number), "{what}: version {version} is of another write");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_what_its_own_write_stored() {
    let cluster = Cluster::start(3).await;
    let target = json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] });
    let made = cluster.send(1, Method::PUT, "/v1/upstreams/target", Some(target)).await.expect("an answer");
    assert_eq!(made.status(), 201);
    for object in &OBJECTS {
        let (mut answers, others) = futures::join!(write(&cluster, 1, object), write(&cluster, 2, object));
        answers.extend(others);
        for (number, answer) in &answers {
            check(&cluster, object, *number, answer).await;
        }
        // At another node than the first time.
        for (number, first) in answers {
            let again = put(&cluster, 3, object, number).await;
            assert_eq!(again, first, "PUT {} with {number} once more", object.path);
        }
    }
}
