//! Bad input gets a problem document with a stable code, and changes nothing.

use reqwest::{Method, RequestBuilder};
use ringmaster_common::id::Revision;
use ringmaster_tests::cluster::{Cluster, problem};
use serde_json::json;
use std::time::Duration;

/// Everything that is not telemetry.
async fn replicated(cluster: &Cluster) -> serde_json::Value {
    let settings: serde_json::Value = cluster.get(1, "/v1/settings").await.expect("settings are listed");
    let operations: serde_json::Value =
        cluster.get(1, "/v1/operations").await.expect("operations are listed");
    let nodes = cluster.cluster(1).await.expect("the cluster is shown");
    let nodes: Vec<_> =
        nodes.nodes.iter().map(|info| (info.node.id, info.node.status, info.node.voter)).collect();
    let upstreams: serde_json::Value = cluster.get(1, "/v1/upstreams").await.expect("upstreams are listed");
    let routes: serde_json::Value = cluster.get(1, "/v1/routes").await.expect("routes are listed");
    json!({
        "settings": settings, "operations": operations, "nodes": nodes, "upstreams": upstreams, "routes": routes
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_input_has_its_code() {
    let cluster = Cluster::start(1).await;
    let url = &cluster.node(1).url;
    let to = |method: Method, path: &str| cluster.http.request(method, format!("{url}{path}"));
    let post = |path: &str| to(Method::POST, path);
    let put = |path: &str| to(Method::PUT, path);
    let transfer = |to: u64| json!({ "action": { "type": "transfer_leadership", "group": 0, "to": to } });
    let before = replicated(&cluster).await;

    let cases: Vec<(&str, RequestBuilder, u16, &str)> = vec![
        ("an unknown node", post("/v1/plans").json(&transfer(99)), 404, "unknown_node"),
        ("an unknown node in the path", to(Method::GET, "/v1/nodes/99"), 404, "unknown_node"),
        (
            "an unknown group",
            post("/v1/plans")
                .json(&json!({ "action": { "type": "transfer_leadership", "group": 7, "to": 1 } })),
            404,
            "unknown_group",
        ),
        (
            "an unknown action",
            post("/v1/plans").json(&json!({ "action": { "type": "explode" } })),
            400,
            "unknown_action",
        ),
        (
            "an action without a target",
            post("/v1/plans").json(&json!({ "action": { "type": "transfer_leadership" } })),
            400,
            "invalid_request",
        ),
        (
            "an unknown field",
            post("/v1/plans").json(&json!({ "action": {}, "more": 1 })),
            400,
            "invalid_request",
        ),
        (
            "malformed JSON",
            post("/v1/plans").header("content-type", "application/json").body("{\"action\":"),
            400,
            "malformed_json",
        ),
        (
            "no JSON at all",
            post("/v1/plans").header("content-type", "text/plain").body("hello"),
            415,
            "unsupported_media_type",
        ),
        ("no content type", put("/v1/settings/a").body("{\"value\":1}"), 415, "unsupported_media_type"),
        (
            "a body of 10 MiB",
            put("/v1/settings/a").header("content-type", "application/json").body(vec![b' '; 10 << 20]),
            413,
            "body_too_large",
        ),
        (
            "a value of 5 KiB",
            put("/v1/settings/a").json(&json!({ "value": "x".repeat(5 << 10) })),
            413,
            "value_too_large",
        ),
        (
            "a key with a space",
            put("/v1/settings/a%20b").json(&json!({ "value": 1 })),
            400,
            "invalid_request",
        ),
        (
            "a key that is too long",
            put(&format!("/v1/settings/{}", "k".repeat(200))).json(&json!({ "value": 1 })),
            400,
            "invalid_request",
        ),
        (
            "a known setting of the wrong type",
            put("/v1/settings/plans.ttl_ms").json(&json!({ "value": "long" })),
            422,
            "invalid_setting",
        ),
        ("a setting without a value", to(Method::GET, "/v1/settings/unset"), 404, "unknown_setting"),
        (
            "an ETag of another kind",
            put("/v1/settings/a").header("if-match", "W/\"x\"").json(&json!({ "value": 1 })),
            400,
            "invalid_request",
        ),
        (
            "a version that is not there",
            put("/v1/settings/a").header("if-match", "\"5\"").json(&json!({ "value": 1 })),
            412,
            "precondition_failed",
        ),
        ("an unknown plan", post("/v1/plans/4711/apply"), 404, "unknown_plan"),
        ("a plan that is no number", post("/v1/plans/x/apply"), 400, "invalid_request"),
        ("an unknown operation", to(Method::GET, "/v1/operations/4711"), 404, "unknown_operation"),
        ("an abort of nothing", post("/v1/operations/4711/abort"), 404, "unknown_operation"),
        ("the wrong method", to(Method::DELETE, "/v1/cluster"), 405, "method_not_allowed"),
        ("the wrong method on a page", to(Method::POST, "/nodes"), 405, "method_not_allowed"),
        ("an unknown route", to(Method::GET, "/v1/nothing"), 404, "unknown_route"),
        ("an unknown file", to(Method::GET, "/assets/nothing.js"), 404, "unknown_route"),
        ("a limit of nothing", to(Method::GET, "/v1/events?limit=0"), 400, "invalid_request"),
        ("a limit of words", to(Method::GET, "/v1/settings?limit=many"), 400, "invalid_request"),
        ("a cursor of words", to(Method::GET, "/v1/operations?cursor=x"), 400, "invalid_request"),
        (
            "an empty idempotency key",
            put("/v1/settings/a").header("idempotency-key", "").json(&json!({ "value": 1 })),
            400,
            "invalid_request",
        ),
        (
            "a foreign origin",
            to(Method::GET, "/v1/cluster").header("origin", "http://evil.example"),
            403,
            "foreign_origin",
        ),
        (
            "a foreign origin that posts",
            post("/v1/plans").header("origin", "http://127.0.0.1:1").json(&transfer(1)),
            403,
            "foreign_origin",
        ),
        (
            "a foreign host",
            to(Method::GET, "/v1/cluster").header("host", "evil.example"),
            403,
            "unknown_host",
        ),
        ("a stream that is no WebSocket", to(Method::GET, "/v1/stream"), 400, "invalid_request"),
        ("chaos outside a demo", post("/v1/demo/nodes/1/kill"), 404, "not_a_demo"),
    ];
    for (what, request, status, code) in cases {
        let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let answered = problem(response).await;
        assert_eq!((answered.status, answered.code.as_str()), (status, code), "{what}: {}", answered.detail);
    }
    assert_eq!(replicated(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_under_one_key_are_answered_alike() {
    let cluster = Cluster::start(1).await;
    let put = |key: &str, value: u64| {
        cluster
            .http
            .put(format!("{}/v1/settings/once", cluster.node(1).url))
            .header("idempotency-key", key)
            .json(&json!({ "value": value }))
            .send()
    };
    let mut versions = Vec::new();
    for (key, value, status) in [("k1", 1, 201), ("k2", 2, 200), ("k1", 1, 201)] {
        let response = put(key, value).await.expect("an answer");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("location"), status == 201);
        let etag = response.headers()["etag"].to_str().expect("an ETag").to_owned();
        versions.push(etag);
    }
    assert_eq!(versions[0], versions[2], "the repeat is answered as before");
    let now: serde_json::Value = cluster.get(1, "/v1/settings/once").await.expect("it is set");
    assert_eq!(now["value"], 2, "and does nothing");
    let reused = problem(put("k1", 3).await.expect("an answer")).await;
    assert_eq!(reused.code, "idempotency_key_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etag_guards_a_setting() {
    let cluster = Cluster::start(1).await;
    let first = cluster.put_setting(1, "guarded", json!("a")).await.expect("it is set");
    let put = |etag: String| {
        cluster
            .http
            .put(format!("{}/v1/settings/guarded", cluster.node(1).url))
            .header("if-match", etag)
            .json(&json!({ "value": "b" }))
            .send()
    };
    let response = put(format!("\"{}\"", first.version)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let refused = problem(put(format!("\"{}\"", first.version)).await.expect("an answer")).await;
    assert_eq!((refused.status, refused.code.as_str()), (412, "precondition_failed"));
    assert!(first.version > Revision(0));

    // A setting without a value is at version 0, and so is its ETag.
    let url = format!("{}/v1/settings/plans.ttl_ms", cluster.node(1).url);
    let known = cluster.http.get(&url).send().await.expect("an answer");
    let etag = known.headers()["etag"].clone();
    let put = || cluster.http.put(&url).header("if-match", &etag).json(&json!({ "value": 5_000 })).send();
    assert_eq!(put().await.expect("an answer").status(), 200);
    assert_eq!(put().await.expect("an answer").status(), 412);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_expires() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.put_setting(leader, "plans.ttl_ms", json!(1000)).await.expect("it is set");
    let action = json!({ "action": { "type": "transfer_leadership", "to": leader % 3 + 1 } });
    let response = cluster.send(leader, Method::POST, "/v1/plans", Some(action)).await.expect("an answer");
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().expect("a path").to_owned();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let refused = problem(
        cluster.send(leader, Method::POST, &format!("{location}/apply"), None).await.expect("an answer"),
    )
    .await;
    assert_eq!((refused.status, refused.code.as_str()), (410, "plan_expired"));
}
