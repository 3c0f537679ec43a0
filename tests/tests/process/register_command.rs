//! `ringmaster register`: a command that is an endpoint while it runs.

use nix::sys::signal::Signal;
use reqwest::Method;
use ringmaster_common::traffic::{live::Draining, upstream::Upstream};
use ringmaster_tests::{
    SOON,
    cluster::{Cluster, Program, parse},
    eventually,
    process::{Process, beside, binary, free_ports},
};
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};
use tokio::{task::block_in_place, time::sleep};

async fn put(cluster: &Cluster, path: &str, body: Value) {
    let answer = cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer");
    parse::<Value>(answer).await.expect("it is put");
}

/// The ids of the endpoints of `web`.
async fn endpoints(cluster: &Cluster) -> Result<Vec<String>, String> {
    let web: Upstream = cluster.get(1, "/v1/upstreams/web?consistency=stale").await?;
    Ok(web.config.endpoints.into_iter().map(|endpoint| endpoint.id).collect())
}

async fn registered(cluster: &Cluster, id: &str) {
    eventually("the command to be an endpoint", SOON, async || match endpoints(cluster).await? {
        ids if ids == [id] => Ok(()),
        ids => Err(format!("{ids:?}")),
    })
    .await;
}

/// Runs `ringmaster register` with these arguments.
fn register(cluster: &Cluster, arguments: &[&str]) -> Process {
    let mut command = Command::new(binary());
    command.arg("register").args(arguments).env("RINGMASTER_URL", &cluster.node(1).url);
    Process::start(&mut command, &cluster.dir().join("register.out"))
}

/// Exits with 7 when it is asked to end, and leaves a mark at HUP; its child leaves another one.
fn script(mark: &str) -> String {
    let wait = "for i in $(seq 600); do sleep 0.1; done";
    format!("(trap 'touch {mark}.child' HUP; {wait}) & trap 'exit 7' TERM; trap 'touch {mark}' HUP; {wait}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_an_endpoint_from_when_its_port_answers_until_it_ends() {
    let cluster = Cluster::start(1).await;
    put(&cluster, "/v1/upstreams/web", json!({})).await;
    let [port] = free_ports();
    let addr = format!("127.0.0.1:{port}");
    let mark = cluster.dir().join("hup").display().to_string();
    let script = script(&mark);
    let arguments = ["web", "--addr", &addr, "--id", "cmd", "--ttl", "3s", "--", "sh", "-c", &script];
    let mut running = register(&cluster, &arguments);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(endpoints(&cluster).await, Ok(Vec::new()), "its port does not answer: {}", running.output());
    let _listener = TcpListener::bind(&addr).expect("the port is free");
    registered(&cluster, "cmd").await;

    // A reload is not the end.
    running.signal(Signal::SIGHUP);
    eventually("the command to get the signal", SOON, async || {
        std::fs::exists(&mark).unwrap_or_default().then_some(()).ok_or_else(|| running.output())
    })
    .await;
    sleep(Duration::from_millis(3_500)).await;
    assert_eq!(endpoints(&cluster).await, Ok(vec!["cmd".to_owned()]), "it is renewed as before");
    assert!(!std::fs::exists(format!("{mark}.child")).unwrap_or(true), "the signal is for the command alone");
    running.signal(Signal::SIGTERM);
    let status = block_in_place(|| running.wait(SOON));
    assert_eq!(status.code(), Some(7), "the command's own code: {}", running.output());
    assert_eq!(endpoints(&cluster).await, Ok(Vec::new()), "it is taken out at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_final_and_silence_is_not() {
    let mut cluster = Cluster::start(1).await;
    let [port] = free_ports();
    let addr = format!("127.0.0.1:{port}");
    let _listener = TcpListener::bind(&addr).expect("the port is free");
    let mark = cluster.dir().join("started");
    let touch = format!("touch {}", mark.display());
    let mut unknown = register(&cluster, &["nowhere", "--addr", &addr, "--", "sh", "-c", &touch]);
    assert_eq!(block_in_place(|| unknown.wait(SOON)).code(), Some(125), "{}", unknown.output());
    assert!(unknown.output().contains("unknown_upstream") && !mark.exists(), "{}", unknown.output());

    // An id in use is refused for good: the command is ended, and the other endpoint stays.
    put(&cluster, "/v1/upstreams/web", json!({ "endpoints": [{ "id": "e1", "addr": "127.0.0.1:9001" }] }))
        .await;
    let ended = cluster.dir().join("ended");
    let trap = format!("trap 'touch {}; exit' TERM; sleep 60 & wait", ended.display());
    let mut refused = register(&cluster, &["web", "--addr", &addr, "--id", "e1", "--", "sh", "-c", &trap]);
    assert_eq!(block_in_place(|| refused.wait(SOON)).code(), Some(125), "{}", refused.output());
    let said = refused.output();
    assert!(said.contains("endpoint_taken") && !said.contains("retrying"), "{said}");
    assert!(ended.exists(), "the command was asked to end");
    assert_eq!(endpoints(&cluster).await, Ok(vec!["e1".to_owned()]));

    // No node answers: the command runs, and is registered when one does.
    put(&cluster, "/v1/upstreams/web", json!({})).await;
    cluster.node_mut(1).kill();
    let mark_in_script = cluster.dir().join("unused").display().to_string();
    let script = format!("touch {}; {}", mark.display(), script(&mark_in_script));
    let mut running =
        register(&cluster, &["web", "--addr", &addr, "--id", "late", "--", "sh", "-c", &script]);
    eventually("the command to start", SOON, async || {
        mark.exists().then_some(()).ok_or_else(|| running.output())
    })
    .await;
    cluster.node_mut(1).start();
    registered(&cluster, "late").await;
    // Nor does a signal wait for a node for long.
    cluster.node_mut(1).kill();
    let asked = Instant::now();
    running.signal(Signal::SIGTERM);
    assert_eq!(block_in_place(|| running.wait(SOON)).code(), Some(7), "{}", running.output());
    // Not for the requests of an endpoint of which no node says anything: that would be half a minute.
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_after_its_requests() {
    let cluster = Cluster::start_on(
        Program { proxies: true, ..Program::default() },
        &[Default::default(), Default::default()],
    )
    .await;
    put(&cluster, "/v1/upstreams/web", json!({ "drain_ms": 20_000 })).await;
    put(&cluster, "/v1/routes/all", json!({ "upstream": "web" })).await;
    let [port] = free_ports();
    let addr = format!("127.0.0.1:{port}");
    let server = beside("traffic-endpoint").display().to_string();
    let mut running =
        register(&cluster, &["web", "--addr", &addr, "--id", "cmd", "--", &server, "cmd", &addr]);
    registered(&cluster, "cmd").await;
    let get = async |node: u64, path: &str| {
        let url = format!("{}{path}", cluster.node(node).proxy_url());
        let answer = cluster.http.get(url).send().await.map_err(|error| error.to_string())?;
        if answer.status() == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    };
    eventually("each node to send it requests", SOON, async || {
        get(1, "/").await?;
        get(2, "/").await
    })
    .await;
    let began = Instant::now();
    let stop = async {
        // A request is in flight by each node, and there is no other endpoint that could answer.
        eventually("both requests to be in flight", SOON, async || {
            for node in [1, 2] {
                let live: Value = cluster.get(node, "/v1/upstreams/web/live").await?;
                if live["in_flight"] != 1 {
                    return Err(live.to_string());
                }
            }
            Ok(())
        })
        .await;
        let asked = Instant::now();
        running.signal(Signal::SIGTERM);
        let status = block_in_place(|| running.wait(SOON));
        (status.code(), asked.elapsed(), running.output())
    };
    let (one, other, (code, took, said)) = tokio::join!(get(1, "/slow/5000"), get(2, "/slow/5000"), stop);
    assert_eq!((one, other), (Ok(()), Ok(())), "{said}");
    assert_eq!(code, Some(128 + 15), "the server has no handler for the signal: {said}");
    assert!(began.elapsed() >= Duration::from_secs(5), "the requests came to their end: {said}");
    assert!(took < Duration::from_secs(18), "not only when the time to drain was over: {took:?}: {said}");
    assert!(said.contains("waiting for") && said.contains("requests in flight"), "{said}");
    let draining: Draining = cluster.get(1, "/v1/upstreams/web/draining").await.expect("an answer");
    assert_eq!(
        (draining.drain_ms, draining.endpoints, draining.unconfirmed),
        (20_000, Vec::new(), Vec::new())
    );
}
