//! Traffic through a cluster's proxies: endpoints that are processes of their own, and a load that counts
//! what became of each request.
//!
//! Whoever loads the proxies sends GETs alone, which are safe to send twice, so that no fault of an endpoint
//! may be seen by a client. Whatever is not answered with 200 is a failure, and kept with its reason.

use crate::{
    SOON,
    cluster::{Cluster, Host, Program, parse},
    eventually,
    process::{Process, beside, free_ports},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// The one upstream, and the one route to it.
pub const UPSTREAM: &str = "web";
/// A request that takes the endpoint so long that most clients wait for an answer at any time.
pub const BRIEFLY: &str = "/slow/20";
/// How many endpoints it has.
pub const ENDPOINTS: usize = 3;
/// How many nodes carry the load.
const NODES: usize = 3;
/// How many clients each node's proxy has, each with a connection of its own.
const CLIENTS: usize = 4;
/// How long a client rests after each answer.
const REST: Duration = Duration::from_millis(10);
/// A request that takes longer is a failure. It is well above what a request needs that is sent three times.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long an endpoint stays dead: its node's health checks, its ejection, and retries all have their turn.
const DEAD_FOR: Duration = Duration::from_millis(700);

/// A cluster with proxies, and the endpoints behind them.
#[derive(Debug)]
pub struct Site {
    pub cluster: Cluster,
    pub endpoints: Vec<Endpoint>,
}

/// One process that takes requests.
#[derive(Debug)]
pub struct Endpoint {
    pub id: String,
    port: u16,
    log: PathBuf,
    process: Option<Process>,
}

impl Site {
    /// Starts everything. `change` has the last word on the upstream's configuration.
    pub async fn start(program: Program, change: Value) -> Site {
        let program = Program { proxies: true, ..program };
        let cluster = Cluster::start_on(program, &vec![Host::default(); NODES]).await;
        let ports: [u16; ENDPOINTS] = free_ports();
        let mut endpoints: Vec<_> = (1..)
            .zip(ports)
            .map(|(nth, port)| {
                let id = format!("e{nth}");
                let log = cluster.dir().join(format!("{id}.log"));
                Endpoint { id, port, log, process: None }
            })
            .collect();
        endpoints.iter_mut().for_each(Endpoint::start);
        let mut config = json!({
            "policy": "least_connections",
            "health_check": { "type": "http", "path": "/healthz", "interval_ms": 200, "timeout_ms": 1000, "rise": 1, "fall": 2, "max_hold_ms": 0 },
            // Back soon, so that the next fault meets an endpoint that is in use.
            "outlier_ejection": { "base_ms": 500, "max_ms": 500 },
            "endpoints": endpoints.iter().map(|one| json!({ "id": one.id, "addr": one.addr() })).collect::<Vec<_>>(),
        });
        for (field, value) in change.as_object().into_iter().flatten() {
            config[field] = value.clone();
        }
        let site = Site { cluster, endpoints };
        site.put(&format!("/v1/upstreams/{UPSTREAM}"), config).await;
        site.put("/v1/routes/all", json!({ "upstream": UPSTREAM })).await;
        for node in &site.cluster.nodes {
            eventually("each proxy to serve", SOON, async || {
                get(&reqwest::Client::new(), &node.proxy_url(), "/healthz").await
            })
            .await;
        }
        site
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let response = self.cluster.send(1, Method::PUT, path, Some(body)).await.expect("an answer");
        parse(response).await.expect("it is put")
    }

    /// kill -9 of one endpoint after the other, each of which comes back and gets requests from every node
    /// before the next one dies.
    pub async fn kill_endpoints(&mut self, kills: usize, load: &Load) {
        for nth in 0..kills {
            let endpoint = &mut self.endpoints[nth % ENDPOINTS];
            load.wait_used(&endpoint.id).await;
            endpoint.kill();
            sleep(DEAD_FOR).await;
            endpoint.start();
        }
        load.wait_used(&self.endpoints[(kills.max(1) - 1) % ENDPOINTS].id).await;
    }
}

impl Endpoint {
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn start(&mut self) {
        let mut command = Command::new(beside("traffic-endpoint"));
        self.process = Some(Process::start(command.args([self.id.clone(), self.addr()]), &self.log));
    }

    /// kill -9, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// How many requests have reached it since it was started, but for health checks.
    pub async fn seen(&self) -> u64 {
        let url = format!("http://{}", self.addr());
        let seen = get(&reqwest::Client::new(), &url, "/seen").await.expect("it runs");
        seen.parse().expect("a number")
    }
}

/// Clients who ask the proxies for one path, again and again.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    since: Instant,
}

/// The outcomes of all requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sent: u64,
    /// Answers, by node and endpoint.
    pub answered: BTreeMap<(u64, String), u64>,
    /// A sentence for each request that was not answered as it should.
    pub failures: Vec<String>,
    pub slowest: Duration,
    pub took: Duration,
}

impl Load {
    pub fn start(cluster: &Cluster, path: &'static str) -> Load {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for node in &cluster.nodes {
            for _ in 0..CLIENTS {
                clients.spawn(ask(node.id, node.proxy_url(), path, tally.clone(), stopped.clone()));
            }
        }
        Load { tally, stop, clients, since: Instant::now() }
    }

    /// Waits until each node has had an answer of this endpoint, from now on.
    pub async fn wait_used(&self, endpoint: &str) {
        let count = || {
            let tally = self.tally.lock().expect("no thread panics");
            let of = |node: usize| tally.answered.get(&(node as u64, endpoint.to_owned())).copied();
            (1..=NODES).map(|node| of(node).unwrap_or(0)).collect::<Vec<u64>>()
        };
        let before = count();
        eventually("an endpoint to get requests from all nodes", SOON, async || {
            let now = count();
            let used = before.iter().zip(&now).all(|(before, now)| now > before);
            if used { Ok(()) } else { Err(format!("{endpoint}: {before:?}, then {now:?}")) }
        })
        .await;
    }

    /// Lets requests in flight end, and returns the outcomes of all.
    pub async fn stop(self) -> Tally {
        let took = self.since.elapsed();
        self.stop.send_replace(true);
        self.clients.join_all().await;
        let tally = self.tally.lock().expect("no thread panics").clone();
        let counted = tally.answered.values().sum::<u64>() + tally.failures.len() as u64;
        assert_eq!(tally.sent, counted, "something became of each request");
        Tally { took, ..tally }
    }
}

async fn ask(
    node: u64,
    url: String,
    path: &'static str,
    tally: Arc<Mutex<Tally>>,
    stopped: watch::Receiver<bool>,
) {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build();
    let client = client.expect("the options are constant");
    while !*stopped.borrow() {
        tally.lock().expect("no thread panics").sent += 1;
        let asked = Instant::now();
        let answer = get(&client, &url, path).await;
        {
            let mut tally = tally.lock().expect("no thread panics");
            tally.slowest = tally.slowest.max(asked.elapsed());
            match answer {
                Ok(endpoint) => *tally.answered.entry((node, endpoint)).or_default() += 1,
                Err(why) => tally.failures.push(format!("node {node}, after {:?}: {why}", asked.elapsed())),
            }
        }
        sleep(REST).await;
    }
}

/// The body of a 200; a sentence for everything else.
pub async fn get(client: &reqwest::Client, url: &str, path: &str) -> Result<String, String> {
    let answer = client.get(format!("{url}{path}")).send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.text().await.map_err(|error| format!("{status}, and then {error:?}"))?;
    if status == 200 { Ok(body) } else { Err(format!("{status}: {body}")) }
}

/// A message of a WebSocket, as clients send it.
const HELLO: [u8; 11] = [0x82, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];
/// A Close with the code 1001 (going away): how it begins from a proxy, and how a client answers it.
const GOES_AWAY: [u8; 2] = [0x03, 0xe9];
const GOODBYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// A WebSocket through a proxy.
#[derive(Debug)]
pub struct Tunnel {
    stream: TcpStream,
    pub endpoint: String,
}

impl Tunnel {
    pub async fn open(port: u16) -> Tunnel {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the proxy listens");
        let request = b"GET /tunnel HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(request).await.expect("the proxy reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head of an answer"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let endpoint = head.lines().find_map(|line| line.strip_prefix("x-endpoint: "));
        Tunnel { stream, endpoint: endpoint.expect("it says who it is").to_owned() }
    }

    /// Sends a word, and gets it back.
    pub async fn echoes(&mut self) -> bool {
        let mut back = [0; HELLO.len()];
        let sent = self.stream.write_all(&HELLO).await;
        sent.is_ok() && self.stream.read_exact(&mut back).await.is_ok() && back == HELLO
    }

    /// Ends when the other side has closed it, having said so.
    pub async fn closed(&mut self) {
        let mut close = [0; 4];
        self.stream.read_exact(&mut close).await.expect("a Close comes before the connection is cut");
        assert_eq!((close[0], &close[2..]), (0x88, &GOES_AWAY[..]), "a Close, and why");
        self.stream.write_all(&GOODBYE).await.expect("it may answer");
        let mut reason = Vec::new();
        // A reset is an end, too.
        drop(self.stream.read_to_end(&mut reason).await);
        assert_eq!(reason.len(), usize::from(close[1]) - GOES_AWAY.len(), "nothing but the reason");
    }
}
