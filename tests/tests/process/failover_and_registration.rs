//! Primaries and their failover, endpoints that register, and the lookup of healthy endpoints.

use reqwest::Method;
use ringmaster_common::{
    action::Action,
    operation::OperationStatus,
    traffic::{
        register::{HealthyEndpoints, Registered},
        upstream::Upstream,
    },
};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, parse, problem},
    eventually,
    process::binary,
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

async fn put(cluster: &Cluster, path: &str, body: Value) -> Value {
    parse(cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer")).await.expect("it is put")
}

async fn upstream(cluster: &Cluster, node: u64, name: &str) -> Result<Upstream, String> {
    cluster.get(node, &format!("/v1/upstreams/{name}?consistency=stale")).await
}

fn primary(upstream: &Upstream) -> (Option<&str>, u64) {
    let primary = upstream.primary.as_ref().expect("it is active-standby");
    (primary.endpoint.as_deref(), primary.epoch)
}

fn standby(automatic: bool, hold_down_ms: u64) -> Value {
    json!({
        "active_standby": { "automatic": automatic, "grace_ms": 300, "hold_down_ms": hold_down_ms },
        "endpoints": [
            { "id": "d1", "addr": "127.0.0.1:5001" },
            { "id": "d2", "addr": "127.0.0.1:5002" },
            { "id": "d3", "addr": "127.0.0.1:5003" }
        ]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_fails_over_and_back() {
    let cluster = Cluster::start(3).await;
    put(&cluster, "/v1/upstreams/db", standby(true, 60_000)).await;
    put(&cluster, "/v1/routes/db", json!({ "path_prefix": "/", "upstream": "db" })).await;
    let before = upstream(&cluster, 1, "db").await.expect("it is there");
    let (first, epoch) = primary(&before);
    assert_eq!(first, Some("d1"));

    let to = |to: &str| Action::FailOverUpstream { upstream: "db".to_owned(), to: Some(to.to_owned()) };
    let blocked = cluster.plan(2, &to("d1")).await.expect("a plan");
    assert_eq!(blocked.blockers[0].code, "already_primary");
    let plan = cluster.plan(2, &to("d3")).await.expect("a plan");
    let steps: Vec<_> = plan.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, ["preflight", "drain", "fence", "promote", "verify"]);
    let operation = cluster.apply(2, &plan).await.expect("it is applied");
    let ended = cluster.outcome(2, &operation).await;
    assert_eq!(ended.status, OperationStatus::Succeeded, "{ended:?}");
    let after = upstream(&cluster, 2, "db").await.expect("it is there");
    assert_eq!(primary(&after), (Some("d3"), epoch + 1));

    let undo = cluster.plan(1, &Action::Undo { operation: operation.id }).await.expect("a plan");
    let undone = cluster.apply(1, &undo).await.expect("it is applied");
    assert_eq!(cluster.outcome(1, &undone).await.status, OperationStatus::Succeeded);
    let back = upstream(&cluster, 1, "db").await.expect("it is there");
    assert_eq!(primary(&back), (Some("d1"), epoch + 2), "the same endpoint, in an epoch of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_reached_leaves_the_old_primary() {
    let cluster = Cluster::start(1).await;
    // A listener whose queue is full: Linux drops further SYNs, as a firewall does. reqwest 0.13.5 calls a request that
    // ends by its total time-out no connect error, even so.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let silent = socket.listen(0).expect("it listens");
    let addr = silent.local_addr().expect("an address");
    let fill: Vec<_> = (0..4).map(|_| tokio::spawn(TcpStream::connect(addr))).collect();
    // Nothing listens at the discard port.
    for (name, webhook) in
        [("refused", "http://127.0.0.1:9/fence"), ("silent", &format!("http://{addr}/fence"))]
    {
        let mut config = standby(true, 60_000);
        config["active_standby"]["fence_webhook"] = json!(webhook);
        put(&cluster, &format!("/v1/upstreams/{name}"), config).await;
        let action = Action::FailOverUpstream { upstream: name.to_owned(), to: None };
        let plan = cluster.plan(1, &action).await.expect("a plan");
        let operation = cluster.apply(1, &plan).await.expect("it is applied");
        let ended = cluster.outcome(1, &operation).await;
        assert_eq!(ended.status, OperationStatus::Failed, "{name}");
        assert_eq!(ended.error.as_ref().map(|error| error.code.as_str()), Some("fence_failed"), "{name}");
        let now = upstream(&cluster, 1, name).await.expect("it is there");
        assert_eq!(primary(&now).0, Some("d1"), "{name}");
    }
    fill.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Serves one call of a webhook: the body it was called with. Unless it answers, it closes the connection.
async fn serve_webhook(listener: &TcpListener, answers: bool) -> Value {
    let (mut connection, mut request) = (listener.accept().await.expect("a call").0, Vec::new());
    let body = loop {
        if connection.read_buf(&mut request).await.is_ok_and(|bytes| bytes == 0) {
            // The step ended before its call was sent.
            (connection, request) = (listener.accept().await.expect("a call").0, Vec::new());
        }
        let head_end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(body) = head_end.and_then(|at| serde_json::from_slice(&request[at + 4..]).ok()) {
            break body;
        }
    };
    if answers {
        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("it is sent");
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_of_unknown_outcome_leaves_no_primary_and_the_next_failover_fences_the_old_one() {
    let cluster = Cluster::start(1).await;
    let webhook = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut config = standby(false, 0);
    let url = format!("http://{}/fence", webhook.local_addr().expect("an address"));
    config["active_standby"]["fence_webhook"] = json!(url);
    put(&cluster, "/v1/upstreams/db", config).await;
    let action = Action::FailOverUpstream { upstream: "db".to_owned(), to: None };
    let plan = cluster.plan(1, &action).await.expect("a plan");
    let operation = cluster.apply(1, &plan).await.expect("it is applied");
    let ended = tokio::select! {
        ended = cluster.outcome(1, &operation) => ended,
        () = async { loop { serve_webhook(&webhook, false).await; } } => unreachable!("it has no end"),
    };
    assert_eq!(ended.status, OperationStatus::Failed);
    assert_eq!(ended.error.as_ref().map(|error| error.code.as_str()), Some("step_timeout"));
    let now = upstream(&cluster, 1, "db").await.expect("it is there");
    assert_eq!(primary(&now).0, None, "d1 may be fenced");

    let plan = cluster.plan(1, &action).await.expect("a plan");
    let operation = cluster.apply(1, &plan).await.expect("it is applied");
    assert_eq!(serve_webhook(&webhook, false).await["endpoint"], "d1");
    assert_eq!(serve_webhook(&webhook, true).await["endpoint"], "d1", "it is called again");
    let ended = cluster.outcome(1, &operation).await;
    assert_eq!(ended.status, OperationStatus::Succeeded, "{ended:?}");
    let now = upstream(&cluster, 1, "db").await.expect("it is there");
    assert_eq!(primary(&now).0, Some("d2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_has_left_is_fenced_at_the_address_that_it_had() {
    let cluster = Cluster::start(1).await;
    let webhook = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut config = standby(true, 0);
    let url = format!("http://{}/fence", webhook.local_addr().expect("an address"));
    config["active_standby"]["fence_webhook"] = json!(url);
    put(&cluster, "/v1/upstreams/db", config).await;
    let before = upstream(&cluster, 1, "db").await.expect("it is there");
    let (d1, elsewhere) = ("/v1/upstreams/db/endpoints/d1", json!({ "addr": "127.0.0.1:5009" }));
    let moved = cluster.send(1, Method::PUT, d1, Some(elsewhere.clone())).await.expect("an answer");
    let refused = problem(moved).await;
    assert_eq!((refused.status, refused.code.as_str()), (409, "endpoint_is_primary"), "{}", refused.detail);
    let now = upstream(&cluster, 1, "db").await.expect("it is there");
    assert_eq!(primary(&now), primary(&before));

    // What comes back under its id, elsewhere, is another process: it is neither the primary nor the one to fence.
    assert_eq!(cluster.send(1, Method::DELETE, d1, None).await.expect("an answer").status(), 204);
    put(&cluster, d1, elsewhere).await;
    let fenced = serve_webhook(&webhook, true).await;
    let (_, epoch) = primary(&before);
    let expected = json!({ "upstream": "db", "endpoint": "d1", "addr": "127.0.0.1:5001", "epoch": epoch });
    assert_eq!(fenced, expected);
    eventually("another primary", SOON, async || {
        let now = upstream(&cluster, 1, "db").await?;
        let (endpoint, now) = primary(&now);
        if endpoint.is_some() && now > epoch { Ok(()) } else { Err(format!("{endpoint:?} in epoch {now}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_fails_over_automatically_after_the_grace_period() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster, "/v1/upstreams/db", standby(true, 1_500)).await;
    put(&cluster, "/v1/upstreams/manual", standby(false, 0)).await;
    let delete = async |cluster: &Cluster, node: u64, path: &str| {
        let answer = cluster.send(node, Method::DELETE, path, None).await.expect("an answer");
        assert_eq!(answer.status(), 204);
    };
    let removed = Instant::now();
    delete(&cluster, 1, "/v1/upstreams/db/endpoints/d1").await;
    delete(&cluster, 1, "/v1/upstreams/manual/endpoints/d1").await;
    let counting = upstream(&cluster, 1, "db").await.expect("it is there");
    assert!(
        counting.primary.is_some_and(|primary| primary.fails_over_at.is_some()),
        "it is seen to count down"
    );
    let (epoch, now) = eventually("the next one to take over", SOON, async || {
        let now = upstream(&cluster, 1, "db").await?;
        let (who, epoch) = primary(&now);
        if who == Some("d2") { Ok((epoch, now)) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert!(removed.elapsed() >= Duration::from_millis(300), "after the grace, not before");
    assert_eq!(now.primary.and_then(|primary| primary.fails_over_at), None);

    // Right after a failover the next is held down, across a change of leader.
    let again = Instant::now();
    delete(&cluster, 1, "/v1/upstreams/db/endpoints/d2").await;
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    let observer = cluster.living();
    let (next, _) = eventually("the third to take over", SOON, async || {
        let now = upstream(&cluster, observer, "db").await?;
        let (who, epoch) = primary(&now);
        if who == Some("d3") { Ok((epoch, ())) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert!(next > epoch);
    assert!(again.elapsed() >= Duration::from_millis(1_000), "it was held down");
    let manual = upstream(&cluster, observer, "manual").await.expect("it is there");
    assert_eq!(primary(&manual).0, None, "there is no automatic failover");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_lasts_while_it_is_renewed_and_no_longer() {
    let mut cluster = Cluster::start(3).await;
    put(&cluster, "/v1/upstreams/web", json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] }))
        .await;
    let worker = json!({ "id": "w1", "addr": "127.0.0.1:9101", "ttl_ms": 1500 });
    let register = async |cluster: &Cluster, node: u64| -> Result<Registered, String> {
        let path = "/v1/upstreams/web/register";
        parse(cluster.send(node, Method::POST, path, Some(worker.clone())).await?).await
    };
    register(&cluster, 2).await.expect("it is registered");
    let healthy: HealthyEndpoints = cluster.get(2, "/v1/upstreams/web/healthy").await.expect("an answer");
    assert_eq!(healthy.endpoints.len(), 2);

    // A PUT of the configuration leaves it there, and a configured endpoint does not take its place.
    put(&cluster, "/v1/upstreams/web", json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] }))
        .await;
    let path = "/v1/upstreams/web/endpoints/w1";
    let taken = cluster.send(1, Method::PUT, path, Some(json!({ "addr": "127.0.0.1:9101" }))).await;
    assert_eq!(problem(taken.expect("an answer")).await.code, "endpoint_taken");

    // Renewals keep it for longer than its TTL, through the death of a leader, and are no entries.
    let before: HealthyEndpoints = cluster.get(2, "/v1/upstreams/web/healthy").await.expect("an answer");
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    let observer = cluster.living();
    let until = Instant::now() + Duration::from_millis(3_500);
    while Instant::now() < until {
        // While there is no leader, no registration can be renewed, and none is dropped.
        let _ = register(&cluster, observer).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let path = "/v1/upstreams/web/healthy";
    let after: HealthyEndpoints = cluster.get(observer, path).await.expect("an answer");
    assert_eq!(after, before, "nothing happened that the log would know of");

    // Without renewals it ends, and who waits for a change hears of it.
    let path = format!("/v1/upstreams/web/healthy?revision={}&wait_ms=10000", after.revision);
    let asked = Instant::now();
    let gone: HealthyEndpoints = cluster.get(observer, &path).await.expect("an answer");
    assert_eq!(gone.endpoints.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["e1"]);
    assert!(asked.elapsed() < Duration::from_secs(9), "not only when the wait ended: {:?}", asked.elapsed());
}

/// At the same addresses may be a cluster that was set up anew, and begins again with low revisions.
#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_with_a_revision_of_another_cluster_is_answered_soon() {
    let cluster = Cluster::start(1).await;
    put(&cluster, "/v1/upstreams/web", json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] }))
        .await;
    let asked = Instant::now();
    let path = "/v1/upstreams/web/healthy?revision=1000000&wait_ms=10000";
    let healthy: HealthyEndpoints = cluster.get(1, path).await.expect("an answer");
    assert!(healthy.revision.0 < 1_000_000 && healthy.endpoints.len() == 1, "{healthy:?}");
    assert!(asked.elapsed() < Duration::from_secs(9), "not only when the wait ended: {:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_exported_and_imported() {
    let cluster = Cluster::start(1).await;
    put(
        &cluster,
        "/v1/upstreams/web",
        json!({
            "health_check": { "type": "tcp" }, "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }]
        }),
    )
    .await;
    put(&cluster, "/v1/routes/all", json!({ "upstream": "web" })).await;
    let file = cluster.dir().join("traffic.toml").display().to_string();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).env("RINGMASTER_URL", &cluster.node(1).url);
        let output = tokio::task::block_in_place(|| command.output().expect("it starts"));
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert_eq!(run(&["config", "export", &file]).0, Some(0));
    let (code, said) = run(&["config", "import", &file, "--yes"]);
    assert_eq!((code, said.as_str()), (Some(0), "The configuration equals the file. Nothing to do.\n"));

    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("127.0.0.1:9001", "127.0.0.1:9007")).expect("the file");
    let (code, said) = run(&["config", "import", &file]);
    assert_eq!(code, Some(2), "it cannot ask for confirmation: {said}");
    let (code, said) = run(&["config", "import", &file, "--yes"]);
    assert!(code == Some(0) && said.contains("~ upstream web: endpoints"), "{code:?} {said}");
    let web = upstream(&cluster, 1, "web").await.expect("it is there");
    assert_eq!(web.config.endpoints[0].addr, "127.0.0.1:9007");

    // All of it, or nothing: one route that is refused keeps everything else from being put.
    let text = std::fs::read_to_string(&file).expect("the file");
    let more = "\n[upstreams.more]\n[routes.other]\nupstream = \"web\"\n";
    std::fs::write(&file, text.replace("127.0.0.1:9001", "127.0.0.1:9008") + more).expect("the file");
    let (code, said) = run(&["config", "import", &file, "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("route_shadows: route other: route all matches"), "{said}");
    assert!(said.contains("nothing was imported") && !said.contains('~'), "{said}");
    assert!(upstream(&cluster, 1, "more").await.is_err());
    assert_eq!(upstream(&cluster, 1, "web").await.expect("it is there"), web);
    let (code, exported) = run(&["config", "export", "-"]);
    assert!(code == Some(0) && exported.contains("[routes.all]"), "{exported}");

    let (_, table) = run(&["upstreams"]);
    assert!(table.contains("web") && table.contains("round_robin"), "{table}");
    let (_, one) = run(&["upstreams", "web"]);
    assert!(one.contains("127.0.0.1:9007"), "{one}");
    let (_, routes) = run(&["routes"]);
    assert!(routes.contains("all") && routes.contains("any"), "{routes}");
    assert_eq!(run(&["upstreams", "nowhere"]).0, Some(1));
}
