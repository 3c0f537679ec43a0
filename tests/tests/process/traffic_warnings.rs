//! Warnings about listeners and endpoints that fail without a health check, and heartbeats.

use reqwest::Method;
use ringmaster_common::{
    action::Action,
    cluster::Cluster as ClusterBody,
    traffic::{
        health::Verdict,
        upstream::{EndpointDetail, EndpointState},
    },
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Host, Program, parse, problem},
    eventually,
    process::{binary, free_ports},
};
use serde_json::{Value, json};
use std::{net::TcpListener, process::Command, time::Duration};
use tokio::time::sleep;

async fn put(cluster: &Cluster, path: &str, body: Value) -> Value {
    parse(cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer")).await.expect("it is put")
}

/// Code, detail and subject of the warnings of a node.
async fn warnings(cluster: &Cluster, node: u64) -> Result<Vec<[String; 3]>, String> {
    let body: ClusterBody = cluster.get(node, "/v1/cluster").await?;
    Ok(body.warnings.into_iter().map(|found| [found.code, found.detail, found.subject]).collect())
}

async fn proxies(count: usize) -> Cluster {
    let program = Program { proxies: true, ..Program::default() };
    Cluster::start_on(program, &vec![Host::default(); count]).await
}

/// DNS is optional, and so are its rules for names: only a node that serves it reports them.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_dns_cannot_have_is_warned_about_where_dns_is_served() {
    let [port] = free_ports();
    let serving = Cluster::start_with(1, &["--dns-addr", &format!("127.0.0.1:{port}")]).await;
    let plain = Cluster::start(1).await;
    let long = "e".repeat(64);
    for cluster in [&serving, &plain] {
        let body = json!({ "endpoints": [{ "id": long, "addr": "127.0.0.1:1" }] });
        put(cluster, "/v1/upstreams/a..b", json!({})).await;
        put(cluster, "/v1/upstreams/web", body).await;
    }
    eventually("the warnings", SOON, async || {
        let found = warnings(&serving, 1).await?;
        let subjects: Vec<_> =
            found.iter().map(|[code, _, subject]| (code.as_str(), subject.as_str())).collect();
        let endpoint = format!("upstream/web/{long}");
        let expected = [("dns_name_invalid", "upstream/a..b"), ("dns_name_invalid", endpoint.as_str())];
        if subjects == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(warnings(&plain, 1).await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_address_in_use_is_refused_or_warned_about() {
    let mut cluster = proxies(2).await;
    put(&cluster, "/v1/upstreams/web", json!({})).await;
    for port in [cluster.node(1).api_port, cluster.node(2).peer_port] {
        let body = json!({ "listener": format!("0.0.0.0:{port}"), "upstream": "web" });
        let refused = cluster.send(1, Method::PUT, "/v1/routes/own", Some(body)).await.expect("an answer");
        let refused = problem(refused).await;
        assert_eq!((refused.status, refused.code.as_str()), (409, "listener_taken"), "{}", refused.detail);
    }

    // No node can know beforehand that a foreign process has the port.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listener = stranger.local_addr().expect("it has one").to_string();
    put(&cluster, "/v1/routes/taken", json!({ "listener": listener, "upstream": "web" })).await;
    for node in [1, 2] {
        eventually("warnings about both nodes", SOON, async || {
            let mut found = warnings(&cluster, node).await?;
            found.retain(|[code, ..]| code == "listen_failed");
            let expected = [1, 2].map(|node| {
                [
                    "listen_failed".to_owned(),
                    format!("node {node} cannot listen on {listener} (route taken): address in use"),
                    format!("node/{node}"),
                ]
            });
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    let mut status = Command::new(binary());
    status.arg("status").env("RINGMASTER_URL", &cluster.node(1).url);
    let status = tokio::task::block_in_place(|| status.output().expect("it starts"));
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(&format!("node 2 cannot listen on {listener}")), "{status}");

    // It is logged once for each cause, however often it was tried.
    sleep(Duration::from_secs(2)).await;
    let log = cluster.node_mut(1).process().output();
    assert_eq!(log.matches("the proxy cannot listen at this address").count(), 1, "{log}");
    drop(stranger);
    eventually("it to be over", SOON, async || match warnings(&cluster, 1).await?.as_slice() {
        [[code, ..]] if code == "no_healthy_endpoints" => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_without_a_check_is_warned_about() {
    let cluster = proxies(1).await;
    let [dead] = free_ports();
    put(
        &cluster,
        "/v1/upstreams/web",
        json!({ "endpoints": [{ "id": "e1", "addr": format!("127.0.0.1:{dead}") }] }),
    )
    .await;
    put(&cluster, "/v1/routes/all", json!({ "upstream": "web" })).await;
    eventually("a warning about the endpoint", SOON, async || {
        let url = cluster.node(1).proxy_url();
        let answer = cluster.http.get(&url).send().await.map_err(|error| error.to_string())?;
        assert!(!answer.status().is_success());
        match warnings(&cluster, 1).await?.as_slice() {
            [[code, detail, subject]] => {
                assert_eq!((code.as_str(), subject.as_str()), ("endpoint_failing", "upstream/web/e1"));
                assert!(detail.starts_with("endpoint e1 of web: 100 % of "), "{detail}");
                assert!(detail.ends_with("failed in the last 10 s, and it has no health check"), "{detail}");
                Ok(())
            }
            found => Err(format!("{found:?}")),
        }
    })
    .await;

    // A plan says what it is about: who is left, and what the endpoint gets.
    let action = Action::SetEndpointState {
        upstream: "web".to_owned(),
        endpoint: "e1".to_owned(),
        state: EndpointState::Drain,
    };
    let plan = cluster.plan(1, &action).await.expect("a plan");
    assert_eq!(plan.observations[0].what, "requests at e1");
    let mut shown = Command::new(binary());
    shown.args(["plan", "set_endpoint_state", "--upstream", "web", "--endpoint", "e1", "--state", "drain"]);
    shown.env("RINGMASTER_URL", &cluster.node(1).url);
    let shown = tokio::task::block_in_place(|| shown.output().expect("it starts"));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("1 -> 0 of 1 endpoints") && shown.contains("routes              all"), "{shown}");
    assert!(!shown.contains("voters"), "{shown}");
}

/// How long an endpoint may be silent.
const TTL: Duration = Duration::from_millis(1_500);
/// How often it beats.
const BEAT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_one_node_receives_is_known_to_all() {
    let cluster = proxies(3).await;
    let ttl_ms = u64::try_from(TTL.as_millis()).expect("it is short");
    let config = json!({
        "health_check": { "type": "heartbeat", "ttl_ms": ttl_ms },
        "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9" }]
    });
    put(&cluster, "/v1/upstreams/jobs", config).await;
    let beat = async || {
        let path = "/v1/upstreams/jobs/endpoints/e1/heartbeat";
        cluster.send(2, Method::POST, path, None).await.is_ok_and(|answer| answer.status() == 204)
    };
    let opinions = async || -> Result<(Verdict, Vec<Verdict>), String> {
        let path = "/v1/upstreams/jobs/endpoints/e1?consistency=stale";
        let detail: EndpointDetail = cluster.get(3, path).await?;
        let health = detail.endpoint.health;
        Ok((health.verdict, health.opinions.iter().map(|opinion| opinion.verdict).collect()))
    };
    // Only node 2 gets the heartbeats; all three call the endpoint healthy.
    eventually("all nodes to have heard", SOON, async || {
        beat().await;
        match opinions().await? {
            (Verdict::Healthy, by) if by == [Verdict::Healthy; 3] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // It stays so for longer than any node waits that has missed something.
    let rounds = (3 * TTL).as_millis() / BEAT.as_millis();
    for _ in 0..rounds {
        assert!(beat().await);
        sleep(BEAT).await;
        assert_eq!(opinions().await, Ok((Verdict::Healthy, vec![Verdict::Healthy; 3])));
    }
    // Silence is noticed by all.
    eventually("all nodes to miss it", SOON, async || match opinions().await? {
        (Verdict::Unhealthy, by) if by == [Verdict::Unhealthy; 3] => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
