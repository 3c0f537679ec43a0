//! The stream is the truth: the fold of its events is the state, on whichever node it resumes.

use futures::{SinkExt, future::join_all};
use ringmaster_common::{
    id::{Incarnation, Revision},
    stream::{JSON, PACKED, ServerMessage},
    telemetry::NodeReport,
    view::ClusterView,
};
use ringmaster_tests::{
    SOON,
    cluster::Cluster,
    eventually,
    stream::{Client, agreement, assert_same},
    writers::Writers,
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

async fn open(
    cluster: &Cluster,
    position: Option<(Revision, Incarnation)>,
    subprotocol: Option<&str>,
) -> Client {
    let position = position
        .map(|(revision, incarnation)| format!("?after={revision}&incarnation={incarnation}"))
        .unwrap_or_default();
    Client::open(&cluster.node(1).url, &position, subprotocol).await.expect("the node streams")
}

fn value(client: &Client, key: &str) -> Option<u64> {
    client.view.settings.get(key)?.value.as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_at_another_node_when_its_own_dies() {
    let mut cluster = Cluster::start(3).await;
    let mut client = Client::connect(&cluster, 1, ClusterView::default()).await;
    client.until("a view and samples", |client| client.fresh_views == 1 && client.samples >= 2).await;
    assert_eq!(client.view.nodes.len(), 3);

    cluster.put_setting(2, "n", json!(1)).await.expect("the cluster takes writes");
    client.until("the setting", |client| value(client, "n") == Some(1)).await;

    cluster.node_mut(1).kill();
    let survivor = 2;
    for n in 2..30 {
        eventually("a write", SOON, async || cluster.put_setting(survivor, "n", json!(n)).await).await;
    }
    let view = client.view.clone();
    let mut client = Client::connect(&cluster, 3, view).await;
    client.until("the latest setting", |client| value(client, "n") == Some(29)).await;
    assert_eq!(client.fresh_views, 0, "the history of another node went on where the first one's ended");

    // The fold equals a fresh view.
    let mut fresh = Client::connect(&cluster, 2, ClusterView::default()).await;
    fresh.until("a view", |client| client.fresh_views == 1).await;
    let target = fresh.view.revision.max(client.view.revision);
    client.until("the same revision", |client| client.view.revision >= target).await;
    fresh.until("the same revision", |fresh| fresh.view.revision >= client.view.revision).await;
    client.until("the same revision", |client| client.view.revision >= fresh.view.revision).await;
    if client.view.revision == fresh.view.revision {
        assert_eq!(client.view, fresh.view);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_elsewhere_gets_a_fresh_view() {
    let cluster = Cluster::start(1).await;
    let elsewhere = Some((Revision(1), Incarnation(99)));
    let mut client = open(&cluster, elsewhere, None).await;
    client.until("a fresh view", |client| client.fresh_views == 1).await;
}

/// At an address may be another cluster by now, with revisions that look like those one has.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_cluster_gets_a_fresh_view() {
    let cluster = Cluster::start(1).await;
    let known = open(&cluster, None, None).await.view;
    let mut of_another = ClusterView { id: "another".to_owned(), ..known };
    for revision in [of_another.revision, Revision(1_000_000)] {
        of_another.revision = revision;
        let mut client = Client::connect(&cluster, 1, of_another.clone()).await;
        client.until("a fresh view", |client| client.fresh_views == 1).await;
        assert_ne!(client.view.id, "another");
    }
}

/// The client knows only a revision, and a cluster that was set up anew has not reached it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_the_cluster_has_not_reached_gets_a_fresh_view() {
    let cluster = Cluster::start(1).await;
    let url = &cluster.node(1).url;
    let mut client = Client::open(url, "?after=1000000", None).await.expect("the node streams");
    client.until("a fresh view", |client| client.fresh_views == 1).await;
    assert!(client.view.revision < Revision(1_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_ahead_is_sent_elsewhere() {
    let cluster = Cluster::start(1).await;
    let mut client = open(&cluster, Some((Revision(1_000_000), Incarnation(1))), None).await;
    match client.next().await {
        Some(ServerMessage::Behind { revision, cluster: id, incarnation, .. }) => {
            assert!(revision.0 < 1_000_000);
            // A cluster that was set up anew is another one, which the client sees here.
            let known: ClusterView = cluster.get(1, "/v1/state").await.expect("the view");
            assert_eq!((id, incarnation), (known.id, known.incarnation));
        }
        other => panic!("{other:?}"),
    }
    assert!(client.next().await.is_none());
    assert_eq!(client.close.map(|(code, _)| code), Some(1013));
}

/// The codes of RFC 6455, section 7.4.1, and of the registry that it makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_a_close_on_both_sides() {
    let mut cluster = Cluster::start(1).await;
    let client = open(&cluster, None, None).await;
    assert_eq!(client.end().await, Some((1000, String::new())), "a Close is answered");

    let mut client = open(&cluster, None, None).await;
    client.send(&"x".repeat((64 << 10) + 1)).await;
    while client.next().await.is_some() {}
    assert_eq!(client.close.map(|(code, _)| code), Some(1009), "its message was too large");

    let mut client = open(&cluster, None, None).await;
    client.until("a view", |client| client.fresh_views == 1).await;
    let mut slow = open(&cluster, None, None).await;
    let stopping = tokio::task::spawn_blocking(move || {
        cluster.node_mut(1).terminate();
        cluster
    });
    while client.next().await.is_some() {}
    assert_eq!(client.close.map(|(code, _)| code), Some(1001), "the node stops");
    // One that reads nothing meanwhile has it, too.
    stopping.await.expect("the node has stopped");
    while slow.next().await.is_some() {}
    assert_eq!(slow.close.map(|(code, _)| code), Some(1001));
}

/// Sixteen upstreams of 256 endpoints, and 300 settings of 4 KiB: a view of 2 MB.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_state_comes_in_small_messages() {
    let cluster = Cluster::start(3).await;
    let mut before = open(&cluster, None, None).await;
    before.until("a view", |client| client.fresh_views == 1).await;
    let endpoints: Vec<_> =
        (1..=256).map(|n| json!({ "id": format!("e{n}"), "addr": format!("10.0.0.1:{n}") })).collect();
    let upstreams: Vec<_> =
        (0..16).map(|n| json!({ "name": format!("u{n}"), "spec": { "endpoints": endpoints } })).collect();
    let body = json!({ "upstreams": upstreams, "routes": [] });
    let response = cluster.send(2, reqwest::Method::POST, "/v1/traffic/import", Some(body)).await;
    assert_eq!(response.expect("an answer").status(), 204);
    before.until("the import", |client| client.view.upstreams.len() == 16).await;
    assert!(before.parts > 0, "the events of the import came in several messages");

    let value = json!("v".repeat(4_094));
    for n in 0..300 {
        cluster.put_setting(1, &format!("large-{n}"), value.clone()).await.expect("it is set");
    }
    for form in [JSON, PACKED] {
        let mut fresh = open(&cluster, None, Some(form)).await;
        fresh.until("a view", |client| client.fresh_views == 1).await;
        assert!(fresh.parts > 4, "{} parts", fresh.parts);
        let shown: ClusterView =
            cluster.get(1, &format!("/v1/state?at={}", fresh.view.revision)).await.expect("the view");
        assert_same(&fresh.view, &shown);
        before.until("the same revision", |client| client.view.revision >= shown.revision).await;
    }
    agreement(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_chooses_topics_and_the_form_of_messages() {
    let cluster = Cluster::start(1).await;
    let write = async |n: u64| cluster.put_setting(1, "n", json!(n)).await.expect("it takes writes");

    // Both forms say the same, one in fewer bytes.
    let mut plain = open(&cluster, None, Some(JSON)).await.without_samples().await;
    let mut packed = open(&cluster, None, Some(PACKED)).await.without_samples().await;
    for n in 0..20 {
        write(n).await;
    }
    for client in [&mut plain, &mut packed] {
        client.until("the last write", |client| value(client, "n") == Some(19)).await;
        assert!(client.samples <= 1 && client.fresh_views == 1, "{} samples", client.samples);
    }
    assert_same(&plain.view, &packed.view);
    println!("{} bytes as JSON, {} packed", plain.bytes, packed.bytes);
    assert!(4 * packed.bytes < 3 * plain.bytes);

    // Lists without bound are followed, with as much of their past as is asked for.
    let mut follower = open(&cluster, None, None).await.without_samples().await;
    follower.until("a view", |client| client.fresh_views == 1).await;
    let count = follower.view.audit_count;
    follower.send(r#"{"type": "follow", "topic": "audit", "limit": 5}"#).await;
    assert_eq!(audited(&mut follower).await, (count - 4..=count).collect::<Vec<_>>());
    write(20).await;
    assert_eq!(audited(&mut follower).await, [count + 1]);

    for nonsense in ["follow", "{}", r#"{"type": "follow", "topic": "gossip"}"#] {
        follower.send(nonsense).await;
        let problem = loop {
            match follower.next().await.expect("the stream is open") {
                ServerMessage::Problem { problem } => break problem,
                other => assert!(follower.take(other)),
            }
        };
        assert_eq!(problem.code, "invalid_request", "{nonsense}: {problem}");
    }
    follower.send(r#"{"type": "unfollow", "topic": "audit"}"#).await;
    write(21).await;
    follower.until("the write", |client| value(client, "n") == Some(21)).await;
}

/// The numbers of the entries that come next.
async fn audited(client: &mut Client) -> Vec<u64> {
    loop {
        match client.next().await.expect("the stream is open") {
            ServerMessage::Audit { entries } => return entries.iter().map(|entry| entry.number).collect(),
            other => assert!(client.take(other)),
        }
    }
}

/// How many streams resume at the same time, and how often all of them together.
const RESUMERS: usize = 20;
const RESUMES: usize = 1_000;

/// Streams are cut and resume at a random node, while nodes are killed and the log is compacted:
/// no gap, no repeat, and in the end all hold what a fresh view shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_resumes_lose_and_repeat_nothing() {
    let mut cluster = Cluster::start_with(3, &["--snapshot-every", "150"]).await;
    let load = Writers::start(&cluster, 24);
    let urls: Arc<[String]> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let streams: Vec<_> = (0..RESUMERS)
        .map(|seed| tokio::spawn(resume(seed, urls.clone(), done.clone(), stop.clone())))
        .collect();

    let mut kills = 0;
    while done.load(Ordering::Relaxed) < RESUMES {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let victim = kills % 3 + 1;
        cluster.node_mut(victim).kill();
        kills += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.node_mut(victim).start();
        cluster.wait_status(victim % 3 + 1, victim, ringmaster_common::cluster::NodeStatus::Up).await;
    }
    let record = load.stop().await;
    stop.store(true, Ordering::Relaxed);
    let ends = join_all(streams).await;

    let agreed = agreement(&cluster).await;
    let (mut resumes, mut views, mut events) = (0, 0, 0);
    for end in ends {
        let end = end.expect("no gap and no repeat");
        let mut last = Client::connect(&cluster, 1, end.view).await;
        last.until("the end", |client| client.view.revision >= agreed.revision).await;
        assert_same(&last.view, &agreed);
        resumes += end.resumes;
        views += end.fresh_views;
        events += end.events;
    }
    println!(
        "{resumes} resumes, {kills} kills, {events} events folded, {views} fresh views, {} writes, revision {}",
        record.acknowledgements, agreed.revision
    );
    assert!(resumes >= RESUMES && kills >= 2 && events > resumes);
    let compacted = report(&mut open(&cluster, None, None).await).await.snapshot_index;
    assert!(compacted > 0, "no snapshot was taken");
    assert!(
        views < resumes / 2,
        "most resumes continue where they were: {views} of {resumes} got a fresh view"
    );
}

struct End {
    view: ClusterView,
    resumes: usize,
    fresh_views: usize,
    events: usize,
}

/// Connects, folds a little, hangs up, and resumes elsewhere.
async fn resume(seed: usize, urls: Arc<[String]>, done: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> End {
    let mut end = End { view: ClusterView::default(), resumes: 0, fresh_views: 0, events: 0 };
    let mut random = seed as u64;
    while !stop.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let node = (random >> 33) as usize % urls.len();
        let known = end.view.revision > Revision(0);
        let Ok(mut client) = Client::resume(&urls[node], end.view.clone()).await else {
            // That one is dead at the moment.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        for _ in 0..(random >> 40) % 40 + 1 {
            if !client.step().await {
                break;
            }
        }
        // A node that was behind, and said so, or died at once has sent nothing: that is no resume.
        if known && client.resumed + client.fresh_views > 0 {
            end.resumes += 1;
            end.fresh_views += client.fresh_views;
            end.events += client.events;
            done.fetch_add(1, Ordering::Relaxed);
        }
        end.view = client.view;
    }
    end
}

/// How much more memory a node may take for readers that stall.
const STALLED_BYTES: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stall_cost_little_and_are_let_go() {
    let cluster = Cluster::start(1).await;
    let port = cluster.node(1).api_port;
    let mut observer = open(&cluster, None, None).await;
    let before = report(&mut observer).await;

    let mut stalled = Vec::new();
    for _ in 0..100 {
        let (socket, _) = connect_async(format!("ws://127.0.0.1:{port}/v1/stream")).await.expect("a stream");
        stalled.push(socket);
    }
    let value = "x".repeat(3_000);
    let mut highest = 0;
    let written = Instant::now();
    // 100 readers that were given all of it would need 600 MB.
    for n in 0..2_000 {
        let body = json!({ "value": format!("{value}{n}") });
        let put = cluster.http.put(format!("{}/v1/settings/key-{}", cluster.node(1).url, n % 50));
        put.json(&body).send().await.expect("an answer").error_for_status().expect("it takes writes");
        if n % 100 == 0 {
            highest = report(&mut observer).await.rss_bytes.max(highest);
        }
    }
    println!(
        "{} MiB before, {} MiB at the most, 2,000 writes in {:?}",
        before.rss_bytes >> 20,
        highest >> 20,
        written.elapsed()
    );
    assert!(highest < before.rss_bytes + STALLED_BYTES, "{highest} bytes, {} before", before.rss_bytes);
    let deadline = Instant::now() + SOON;
    while report(&mut observer).await.streams > 1 {
        assert!(Instant::now() < deadline, "the stalled readers are still kept");
    }
    drop(stalled);
}

/// The next report of the node.
async fn report(observer: &mut Client) -> NodeReport {
    loop {
        let message = observer.next().await.expect("the stream is open");
        if let ServerMessage::Sample { sample, .. } = message
            && let Some(aged) = sample.nodes.into_iter().next()
        {
            return aged.report;
        }
    }
}

/// How many browsers watch one node.
const MANY: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_see_a_change_at_once() {
    let cluster = Cluster::start(1).await;
    let mut clients = Vec::new();
    for _ in 0..MANY / 50 {
        let some = (0..50).map(|_| open(&cluster, None, Some(PACKED)));
        clients.extend(join_all(some).await);
    }
    join_all(clients.iter_mut().map(|client| client.until("a view", |client| client.fresh_views == 1))).await;

    let started = Instant::now();
    cluster.put_setting(1, "n", json!(1)).await.expect("it takes writes");
    join_all(
        clients.iter_mut().map(|client| client.until("the change", |client| value(client, "n") == Some(1))),
    )
    .await;
    let took = started.elapsed();
    println!("{MANY} clients saw the change within {took:?}");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_foreign_origin_gets_no_stream() {
    let cluster = Cluster::start(1).await;
    let port = cluster.node(1).api_port;
    let connect = async |origin: &str| {
        let mut request =
            format!("ws://127.0.0.1:{port}/v1/stream").into_client_request().expect("a request");
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
        connect_async(request).await
    };
    let (mut socket, _) = connect(&format!("http://127.0.0.1:{port}")).await.expect("its own page streams");
    socket.close(None).await.expect("it closes");
    let refused = connect("http://evil.example").await.expect_err("a foreign page does not");
    assert!(refused.to_string().contains("403"), "{refused}");
    timeout(Duration::from_secs(5), socket.send(Message::Text("late".into()))).await.expect("no hang").ok();
}
