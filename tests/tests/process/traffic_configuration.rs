//! Upstreams, endpoints and routes: configured on any node, seen on all, guarded by ETags.

use reqwest::{Method, StatusCode, header};
use ringmaster_common::{
    action::Action,
    operation::OperationStatus,
    traffic::{
        health::Verdict,
        route::Route,
        upstream::{EndpointDetail, EndpointState, Upstream},
    },
};
use ringmaster_tests::{
    cluster::{Cluster, parse, problem},
    stream::agreement,
};
use serde_json::{Value, json};

fn web() -> Value {
    json!({
        "policy": "least_connections",
        "health_check": { "type": "http", "path": "/", "interval_ms": 200, "timeout_ms": 200, "rise": 1, "fall": 2 },
        "endpoints": [
            { "id": "e1", "addr": "127.0.0.1:9001", "weight": 1 },
            { "id": "e2", "addr": "127.0.0.1:9002", "weight": 2 }
        ]
    })
}

async fn put<T: serde::de::DeserializeOwned>(cluster: &Cluster, node: u64, path: &str, body: Value) -> T {
    let response = cluster.send(node, Method::PUT, path, Some(body)).await.expect("an answer");
    parse(response).await.expect("it is put")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_written_on_one_node_is_seen_on_all() {
    let cluster = Cluster::start(3).await;
    let created = cluster.send(2, Method::PUT, "/v1/upstreams/web", Some(web())).await.expect("an answer");
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()[header::LOCATION], "/v1/upstreams/web");
    let etag = created.headers()[header::ETAG].clone();
    let upstream: Upstream = parse(created).await.expect("the upstream");
    assert_eq!(etag, format!("\"{}\"", upstream.version));
    let route: Route =
        put(&cluster, 3, "/v1/routes/all", json!({ "path_prefix": "/", "upstream": "web" })).await;
    assert_eq!(route.spec.upstream, "web");
    for node in 1..=3 {
        let seen: Upstream = cluster.get(node, "/v1/upstreams/web").await.expect("it is there");
        assert_eq!(seen, upstream, "node {node}");
    }

    // The answer of a GET may be put back, under its ETag.
    let shown: Value = cluster.get(1, "/v1/upstreams/web").await.expect("it is there");
    let put_back = |etag: header::HeaderValue| {
        let url = format!("{}/v1/upstreams/web", cluster.node(1).url);
        cluster.http.put(url).header(header::IF_MATCH, etag).json(&shown).send()
    };
    let again = put_back(etag.clone()).await.expect("an answer");
    assert_eq!(again.status(), StatusCode::OK);
    let again: Upstream = parse(again).await.expect("the upstream");
    assert_eq!(again.config, upstream.config);
    assert!(again.version > upstream.version);
    let stale = problem(put_back(etag).await.expect("an answer")).await;
    assert_eq!((stale.status, stale.code.as_str()), (412, "precondition_failed"));

    // One endpoint alone; the list in two pages.
    let body = json!({ "addr": "127.0.0.1:9003" });
    let e3: EndpointDetail = put(&cluster, 1, "/v1/upstreams/web/endpoints/e3", body).await;
    assert_eq!((e3.endpoint.weight, e3.endpoint.health.verdict), (1, Verdict::Unknown));
    assert!(!e3.is_serving, "it waits for its first check");
    let first: Value = cluster.get(1, "/v1/upstreams/web/endpoints?limit=2").await.expect("a page");
    assert_eq!(first["items"][1]["id"], "e2");
    let next = first["next"].as_str().expect("there is more");
    let second: Value =
        cluster.get(1, &format!("/v1/upstreams/web/endpoints?limit=2&cursor={next}")).await.expect("a page");
    assert_eq!((second["items"][0]["id"].as_str(), second["next"].as_str()), (Some("e3"), None));

    // In use, it stays; with its route gone, it goes.
    let delete = async |path: &str| cluster.send(2, Method::DELETE, path, None).await.expect("an answer");
    let used = problem(delete("/v1/upstreams/web").await).await;
    assert_eq!((used.status, used.code.as_str()), (409, "upstream_in_use"));
    assert_eq!(delete("/v1/upstreams/web/endpoints/e3").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(delete("/v1/routes/all").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(delete("/v1/upstreams/web").await.status(), StatusCode::NO_CONTENT);
    let gone = problem(delete("/v1/upstreams/web").await).await;
    assert_eq!((gone.status, gone.code.as_str()), (404, "unknown_upstream"));

    // The browsers' view came to the same, and the audit knows who did it.
    let view = agreement(&cluster).await;
    assert!(view.upstreams.is_empty() && view.routes.is_empty());
    let audit: Value = cluster.get(1, "/v1/audit?limit=100").await.expect("the audit");
    let requests: Vec<_> = audit["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|entry| entry["request"].as_str())
        .collect();
    for request in
        ["put upstream web", "put route all", "put endpoint e3 of web", "delete endpoint e3 of web"]
    {
        assert!(requests.contains(&request), "{request} is audited: {requests:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_set_by_a_plan_and_outlasts_a_put() {
    let cluster = Cluster::start(1).await;
    // Without a check: no server listens, and both endpoints are to be taken for healthy.
    let unchecked = || {
        let mut unchecked = web();
        unchecked["health_check"] = Value::Null;
        unchecked
    };
    let _: Upstream = put(&cluster, 1, "/v1/upstreams/web", unchecked()).await;
    let _: Route = put(&cluster, 1, "/v1/routes/all", json!({ "path_prefix": "/", "upstream": "web" })).await;
    let drain = |endpoint: &str| Action::SetEndpointState {
        upstream: "web".to_owned(),
        endpoint: endpoint.to_owned(),
        state: EndpointState::Drain,
    };
    let plan = cluster.plan(1, &drain("e1")).await.expect("a plan");
    let impact = plan.impact.upstream.clone().expect("an upstream is concerned");
    assert_eq!((impact.serving_before, impact.serving_after, impact.routes), (2, 1, vec!["all".to_owned()]));
    let operation = cluster.apply(1, &plan).await.expect("it is applied");
    assert_eq!(cluster.outcome(1, &operation).await.status, OperationStatus::Succeeded);

    // The last one cannot be drained while requests come.
    let blocked = cluster.plan(1, &drain("e2")).await.expect("a plan");
    assert_eq!(blocked.blockers[0].code, "no_endpoint_left", "{blocked:?}");

    let again: Upstream = put(&cluster, 1, "/v1/upstreams/web", unchecked()).await;
    let states: Vec<_> = again.config.endpoints.iter().map(|endpoint| endpoint.state).collect();
    assert_eq!(states, [EndpointState::Drain, EndpointState::Ready]);

    let undo = cluster.plan(1, &Action::Undo { operation: operation.id }).await.expect("a plan");
    let undone = cluster.apply(1, &undo).await.expect("it is applied");
    assert_eq!(cluster.outcome(1, &undone).await.status, OperationStatus::Succeeded);
    let e1: EndpointDetail = cluster.get(1, "/v1/upstreams/web/endpoints/e1").await.expect("it is there");
    assert_eq!(e1.endpoint.state, EndpointState::Ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_configuration_has_its_code_and_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let before: Upstream = put(&cluster, 1, "/v1/upstreams/web", web()).await;
    let _: Route = put(&cluster, 1, "/v1/routes/all", json!({ "path_prefix": "/", "upstream": "web" })).await;
    let endpoint =
        |addr: &str, weight: Value| json!({ "endpoints": [{ "id": "e1", "addr": addr, "weight": weight }] });
    let upstream = "/v1/upstreams/web";
    let route = "/v1/routes/new";
    for (what, path, body, status, code, says) in [
        ("an unknown policy", upstream, json!({ "policy": "best" }), 422, "invalid_upstream", "round_robin"),
        ("an unknown field", upstream, json!({ "endpoint": [] }), 422, "invalid_upstream", "endpoint"),
        (
            "a field of an endpoint",
            upstream,
            json!({ "endpoints": [{ "id": "a", "addr": "h:1", "wait": 1 }] }),
            422,
            "invalid_upstream",
            "wait",
        ),
        (
            "an address without port",
            upstream,
            endpoint("127.0.0.1", json!(1)),
            422,
            "invalid_upstream",
            "host:port",
        ),
        (
            "a port out of range",
            upstream,
            endpoint("h:70000", json!(1)),
            422,
            "invalid_upstream",
            "host:port",
        ),
        ("a weight of 0", upstream, endpoint("h:1", json!(0)), 422, "invalid_upstream", "weight"),
        (
            "a weight of 2^40",
            upstream,
            endpoint("h:1", json!(1_u64 << 40)),
            422,
            "invalid_upstream",
            "endpoints[0].weight",
        ),
        (
            "a weight of words",
            upstream,
            endpoint("h:1", json!("much")),
            422,
            "invalid_upstream",
            "endpoints[0].weight",
        ),
        ("no address", upstream, json!({ "endpoints": [{ "id": "e1" }] }), 422, "invalid_upstream", "addr"),
        ("no object", upstream, json!([]), 422, "invalid_upstream", "object"),
        ("a name with a slash", "/v1/upstreams/a%2Fb", json!({}), 422, "invalid_upstream", "name"),
        (
            "a check of an unknown kind",
            upstream,
            json!({ "health_check": { "type": "udp" } }),
            422,
            "invalid_upstream",
            "udp",
        ),
        (
            "a check without rest",
            upstream,
            json!({ "health_check": { "type": "tcp", "interval_ms": 1 } }),
            422,
            "invalid_upstream",
            "interval_ms",
        ),
        (
            "a cookie for bytes",
            upstream,
            json!({ "protocol": "tcp", "sticky_cookie": "c" }),
            422,
            "invalid_upstream",
            "tcp",
        ),
        (
            "another id than the path's",
            "/v1/upstreams/web/endpoints/e1",
            json!({ "id": "e2", "addr": "h:1" }),
            400,
            "invalid_request",
            "e2",
        ),
        (
            "a taken address",
            "/v1/upstreams/web/endpoints/e9",
            json!({ "addr": "127.0.0.1:9001" }),
            409,
            "endpoint_taken",
            "e1",
        ),
        (
            "an endpoint of nothing",
            "/v1/upstreams/nowhere/endpoints/e1",
            json!({ "addr": "h:1" }),
            404,
            "unknown_upstream",
            "web",
        ),
        ("a route to nowhere", route, json!({ "upstream": "nowhere" }), 404, "unknown_upstream", "nowhere"),
        (
            "a route that shadows",
            route,
            json!({ "path_prefix": "/", "upstream": "web" }),
            409,
            "route_shadows",
            "all",
        ),
        (
            "a path with dots",
            route,
            json!({ "path_prefix": "/a/../b", "upstream": "web" }),
            422,
            "invalid_route",
            "path_prefix",
        ),
        (
            "a host that ends with a dot",
            route,
            json!({ "host": "app.example.org.", "upstream": "web" }),
            422,
            "invalid_route",
            "dot at its end",
        ),
        (
            "a header of the connection",
            route,
            json!({ "path_prefix": "/h", "upstream": "web", "set_request_headers": { "Host": "x" } }),
            422,
            "invalid_route",
            "Host",
        ),
        (
            "an unknown field of a route",
            route,
            json!({ "path": "/x", "upstream": "web" }),
            422,
            "invalid_route",
            "path",
        ),
    ] {
        let response = cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer");
        let refused = problem(response).await;
        assert_eq!((refused.status, refused.code.as_str()), (status, code), "{what}: {}", refused.detail);
        assert!(refused.detail.contains(says), "{what}: {}", refused.detail);
    }
    for (path, code) in [
        ("/v1/upstreams/nowhere", "unknown_upstream"),
        ("/v1/upstreams/web/endpoints/e9", "unknown_endpoint"),
        ("/v1/routes/nowhere", "no_such_route"),
    ] {
        for method in [Method::GET, Method::DELETE] {
            let refused = problem(cluster.send(1, method, path, None).await.expect("an answer")).await;
            assert_eq!((refused.status, refused.code.as_str()), (404, code), "{path}");
        }
    }
    let after: Upstream = cluster.get(1, upstream).await.expect("it is there");
    assert_eq!(after, before);
    let routes: Value = cluster.get(1, "/v1/routes").await.expect("a list");
    assert_eq!(routes["items"].as_array().map(Vec::len), Some(1));
}
