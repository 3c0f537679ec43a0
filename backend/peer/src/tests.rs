//! Several nodes in one process, over real sockets.

use super::{
    frame::{Frame, Kind},
    *,
};
use futures::{SinkExt, StreamExt, future::join_all};
use ringmaster_common::duration::millis;
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, time::sleep};
use tokio_tungstenite::tungstenite::Message;

const DEADLINE: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Answers with the request's body.
const ECHO: Channel = Channel(200);
/// Keeps requests unanswered for as long as the connection lives.
const HOLD: Channel = Channel(201);
const UNSERVED: Channel = Channel(255);

/// Reports to the test what arrived.
struct TestService {
    received: mpsc::UnboundedSender<(NodeId, Bytes)>,
}

struct TestSession {
    received: mpsc::UnboundedSender<(NodeId, Bytes)>,
    held: Vec<Answer>,
}

impl Service for TestService {
    fn serves(&self, channel: Channel) -> bool {
        channel == ECHO || channel == HOLD
    }

    fn connected(&self, _from: NodeId) -> Box<dyn Session> {
        Box::new(TestSession { received: self.received.clone(), held: Vec::new() })
    }
}

impl Session for TestSession {
    fn receive(&mut self, request: Incoming) {
        // The test may have seen enough.
        let _ = self.received.send((request.from, request.body.clone()));
        if request.channel == ECHO {
            request.answer.reply(request.body);
        } else {
            self.held.push(request.answer);
        }
    }
}

struct TestNode {
    peers: Peers,
    addr: SocketAddr,
    received: mpsc::UnboundedReceiver<(NodeId, Bytes)>,
}

fn local(id: u64) -> Local {
    Local {
        cluster_id: "c".to_owned(),
        node_id: NodeId(id),
        incarnation: Incarnation(1),
        feature_level: 7,
        election_timeout_max: Duration::from_millis(230),
        formats: 2..=3,
    }
}

async fn start(local: Local) -> TestNode {
    start_at(local, "127.0.0.1:0".parse().unwrap()).await
}

async fn start_at(local: Local, addr: SocketAddr) -> TestNode {
    // A listener that was closed a moment ago may still hold its port.
    let listener = eventually("the port to be free", async || TcpListener::bind(addr).await.ok()).await;
    let addr = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    let service: Arc<dyn Service> = Arc::new(TestService { received: sender });
    TestNode { peers: Peers::start(local, listener, vec![service], &Supervisor::new()), addr, received }
}

/// Nodes 1 and 2, connected both ways.
async fn pair() -> (TestNode, TestNode) {
    let (one, two) = (start(local(1)).await, start(local(2)).await);
    let members = [(NodeId(1), one.addr.to_string()), (NodeId(2), two.addr.to_string())];
    one.peers.set_members(&members);
    two.peers.set_members(&members);
    connected(&one.peers).await;
    connected(&two.peers).await;
    (one, two)
}

async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = clock::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn connected(peers: &Peers) {
    eventually("every link to be up", async || peers.links().iter().all(|link| link.connected).then_some(()))
        .await;
}

async fn trouble(peers: &Peers, containing: &str) -> String {
    eventually(&format!("trouble that says {containing:?}"), async || {
        let trouble = peers.links().pop()?.trouble?;
        trouble.contains(containing).then_some(trouble)
    })
    .await
}

fn request(channel: Channel, lane: Lane, body: impl Into<Bytes>) -> Request {
    Request { channel, group: GroupId(0), trace: Trace::default(), lane, body: body.into() }
}

fn bulk(channel: Channel, body: impl Into<Bytes>) -> Request {
    request(channel, Lane::Bulk, body)
}

#[tokio::test]
async fn a_call_is_answered_both_ways() {
    let (one, two) = pair().await;
    for (peers, to) in [(&one.peers, NodeId(2)), (&two.peers, NodeId(1))] {
        let reply = peers.call(to, bulk(ECHO, "hello"), CALL_LIMIT).await;
        assert_eq!(reply, Ok(Bytes::from_static(b"hello")));
    }
    assert_eq!(one.peers.links()[0].feature_level, Some(7));

    let unknown = one.peers.call(NodeId(9), bulk(ECHO, "x"), CALL_LIMIT).await;
    assert_eq!(unknown, Err(CallError::UnknownPeer));
    let unserved = one.peers.call(NodeId(2), bulk(UNSERVED, "x"), CALL_LIMIT).await;
    assert!(matches!(unserved, Err(CallError::Failed(Failure { code: FailureCode::UnknownChannel, .. }))));
}

#[tokio::test]
async fn calls_are_queued_when_made_and_arrive_in_that_order() {
    let (one, mut two) = pair().await;
    let calls: Vec<_> = (0..500u32)
        .map(|i| one.peers.call(NodeId(2), bulk(ECHO, i.to_be_bytes().to_vec()), CALL_LIMIT))
        .collect();
    // Nothing was polled yet, and all arrive.
    for i in 0..500u32 {
        let (from, body) = two.received.recv().await.unwrap();
        assert_eq!((from, body), (NodeId(1), Bytes::from(i.to_be_bytes().to_vec())));
    }
    for (i, reply) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(reply, Ok(Bytes::from((i as u32).to_be_bytes().to_vec())));
    }
}

#[tokio::test]
async fn casts_arrive_and_have_no_answer() {
    let (one, mut two) = pair().await;
    one.peers.cast(NodeId(2), bulk(ECHO, "told"));
    assert_eq!(two.received.recv().await, Some((NodeId(1), Bytes::from_static(b"told"))));
    // To no peer, and without a connection: no error, no panic.
    one.peers.cast(NodeId(9), bulk(ECHO, "lost"));
}

#[tokio::test]
async fn round_trips_are_measured_and_silence_is_short() {
    let (one, _two) = pair().await;
    let link = eventually("a round trip", async || {
        let link = one.peers.links().remove(0);
        link.rtt.is_some().then_some(link)
    })
    .await;
    assert!(link.rtt.unwrap() < SILENCE_LIMIT);
    // Pings alone keep the link from being silent.
    sleep(SILENCE_LIMIT).await;
    let silent_for = one.peers.links()[0].silent_for.unwrap();
    assert!(silent_for < SILENCE_LIMIT, "silent for {silent_for:?}");
}

#[tokio::test]
async fn a_call_without_an_answer_times_out() {
    let (one, _two) = pair().await;
    let limit = Duration::from_millis(30);
    for _ in 0..3 {
        let held = one.peers.call(NodeId(2), bulk(HOLD, "x"), limit).await;
        assert_eq!(held, Err(CallError::TimedOut(limit)));
    }
    assert!(CallError::TimedOut(limit).may_have_been_served());
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_urgent_ones_have_a_bound_of_their_own() {
    let (one, two) = pair().await;
    let mut held: Vec<_> = (0..MAX_IN_FLIGHT_BULK)
        .map(|_| Box::pin(one.peers.call(NodeId(2), bulk(HOLD, "x"), CALL_LIMIT)))
        .collect();
    let beyond = one.peers.call(NodeId(2), bulk(ECHO, "x"), CALL_LIMIT).await;
    assert_eq!(beyond, Err(CallError::Busy));
    let urgent = one.peers.call(NodeId(2), request(ECHO, Lane::Urgent, "now"), CALL_LIMIT).await;
    assert_eq!(urgent, Ok(Bytes::from_static(b"now")));

    // A call that is given up makes room here, and the peer refuses what it has no room for.
    held.pop();
    let beyond = one.peers.call(NodeId(2), bulk(ECHO, "x"), CALL_LIMIT).await;
    assert!(matches!(beyond, Err(CallError::Failed(Failure { code: FailureCode::Busy, .. }))), "{beyond:?}");
    drop(two);
}

#[tokio::test]
async fn calls_in_flight_fail_at_once_when_the_peer_dies_and_the_link_comes_back() {
    let (one, mut two) = pair().await;
    let mut changes = one.peers.changes();
    let calls: Vec<_> = (0..10).map(|_| one.peers.call(NodeId(2), bulk(HOLD, "x"), CALL_LIMIT)).collect();
    for _ in 0..10 {
        two.received.recv().await.unwrap();
    }
    let died = clock::now();
    two.peers.shutdown();
    for result in join_all(calls).await {
        assert_eq!(result, Err(CallError::Disconnected));
    }
    assert!(died.elapsed() < Duration::from_millis(500), "it took {:?}", died.elapsed());
    assert_eq!(changes.recv().await, Ok(LinkChange { peer: NodeId(2), connected: false }));
    assert_eq!(one.peers.call(NodeId(2), bulk(ECHO, "x"), CALL_LIMIT).await, Err(CallError::NotConnected));
    trouble(&one.peers, "refused").await;

    let two = start_at(local(2), two.addr).await;
    two.peers.set_members(&[(NodeId(1), one.addr.to_string())]);
    assert_eq!(changes.recv().await, Ok(LinkChange { peer: NodeId(2), connected: true }));
    let reply = one.peers.call(NodeId(2), bulk(ECHO, "again"), CALL_LIMIT).await;
    assert_eq!(reply, Ok(Bytes::from_static(b"again")));
}

#[tokio::test]
async fn members_are_let_go_of_and_dialled_at_their_new_address() {
    let (one, two) = pair().await;
    let held = one.peers.call(NodeId(2), bulk(HOLD, "x"), CALL_LIMIT);
    one.peers.set_members(&[]);
    assert_eq!(held.await, Err(CallError::Disconnected));
    assert!(one.peers.links().is_empty());

    one.peers.set_members(&[(NodeId(2), two.addr.to_string())]);
    connected(&one.peers).await;
    two.peers.shutdown();
    let moved = start(local(2)).await;
    one.peers.set_members(&[(NodeId(2), moved.addr.to_string())]);
    connected(&one.peers).await;
    let reply = one.peers.call(NodeId(2), bulk(ECHO, "moved"), CALL_LIMIT).await;
    assert_eq!(reply, Ok(Bytes::from_static(b"moved")));
}

#[tokio::test]
async fn a_node_of_an_earlier_incarnation_learns_that_the_cluster_was_recovered_without_it() {
    let (left, recovered) =
        (start(local(1)).await, start(Local { incarnation: Incarnation(2), ..local(2) }).await);
    left.peers.set_members(&[(NodeId(2), recovered.addr.to_string())]);
    let (peer, why) = timeout(CALL_LIMIT, left.peers.superseded()).await.expect("it is refused");
    assert_eq!(peer, NodeId(2));
    assert!(why.contains("recovered from a lost quorum without this peer"), "{why}");
}

#[tokio::test]
async fn wrong_peers_are_refused_with_a_reason() {
    let foreign = Local { cluster_id: "other".to_owned(), ..local(2) };
    let older = Local { incarnation: Incarnation(0), ..local(2) };
    let recovered = Local { incarnation: Incarnation(2), ..local(2) };
    let namesake = local(1);
    let newer = Local { formats: 4..=5, ..local(2) };
    let patient = Local { election_timeout_max: Duration::from_millis(400), ..local(2) };
    for (local_of_two, dialled, reason) in [
        (
            foreign,
            NodeId(2),
            r#"refused by the peer, foreign cluster: the peer is of cluster "c", this node of "other""#,
        ),
        (
            older,
            NodeId(2),
            "refused by the peer, other incarnation: the peer is of incarnation 1, this node of 0",
        ),
        (
            recovered,
            NodeId(2),
            "refused by the peer, earlier incarnation: the cluster was recovered from a lost quorum without this peer: the \
             cluster is of incarnation 2, the refused node of 1",
        ),
        (local(3), NodeId(2), "refused by the peer, other node: node 2 was dialled, this is node 3"),
        (namesake, NodeId(2), "refused by the peer, other node: node 2 was dialled, this is node 1"),
        (
            newer,
            NodeId(2),
            "refused by the peer, no common format: the peer speaks formats 2 to 3, this node formats 4 to 5; \
             upgrade the older of the two, one version at a time",
        ),
        (
            patient,
            NodeId(2),
            "refused by the peer, other timing: election_timeout_max_ms is 230 at the peer and 400 at this node, and \
             leases are safe only where it is the same on all members; give them one value, and restart those that \
             had another",
        ),
    ] {
        let (one, two) = (start(local(1)).await, start(local_of_two).await);
        one.peers.set_members(&[(dialled, two.addr.to_string())]);
        assert_eq!(trouble(&one.peers, "").await, reason);
        assert_eq!(one.peers.call(dialled, bulk(ECHO, "x"), CALL_LIMIT).await, Err(CallError::NotConnected));
        one.peers.shutdown();
        two.peers.shutdown();
    }
}

type ClientSocket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>;

/// Opens a WebSocket to `node`, and sends `first`.
async fn open(node: &TestNode, first: Bytes) -> ClientSocket {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}{PATH}", node.addr)).await.unwrap();
    socket.send(Message::Binary(first)).await.unwrap();
    socket
}

/// The next message; none once the node has hung up.
async fn next(socket: &mut ClientSocket) -> Option<Bytes> {
    match socket.next().await {
        Some(Ok(Message::Binary(bytes))) => Some(bytes),
        _ => None,
    }
}

async fn answer_to(node: &TestNode, hello: Bytes) -> Option<Bytes> {
    next(&mut open(node, hello).await).await
}

fn hello(from: u64, to: u64, formats: RangeInclusive<u8>) -> Bytes {
    let Local { cluster_id, incarnation, feature_level, election_timeout_max, .. } = local(from);
    let election_timeout_max_ms = millis(election_timeout_max);
    let (node_id, to) = (NodeId(from), NodeId(to));
    let hello =
        handshake::Hello { cluster_id, node_id, incarnation, feature_level, election_timeout_max_ms, to };
    handshake::encode_hello(&formats, &hello).unwrap()
}

#[tokio::test]
async fn ones_own_id_and_nonsense_are_refused() {
    let node = start(local(1)).await;
    let own = answer_to(&node, hello(1, 1, 2..=3)).await.unwrap();
    assert_eq!(own[0], 0, "refused");
    let own = String::from_utf8_lossy(&own);
    assert!(own.contains("own_id"), "{own}");
    assert!(own.contains("the dialler claims to be node 1, which is this node"), "{own}");
    for nonsense in [&[][..], &[2], &[2, 3], &[2, 3, 0xff, 0xff]] {
        let answer = answer_to(&node, Bytes::copy_from_slice(nonsense)).await;
        assert_eq!(answer, None, "{nonsense:?} is disconnected");
    }
}

#[tokio::test]
async fn a_connection_has_the_newest_format_that_both_ends_speak() {
    let node = start(local(1)).await;
    for (formats, agreed) in [(1..=2, 2), (2..=2, 2), (1..=3, 3), (3..=9, 3)] {
        let mut socket = open(&node, hello(2, 1, formats.clone())).await;
        assert_eq!(next(&mut socket).await.unwrap()[0], agreed, "with {formats:?}");
        // Frames are of that format, in both directions.
        socket.send(Message::Binary(Frame::bare(Kind::Ping, 8).encode(agreed))).await.unwrap();
        assert_eq!(next(&mut socket).await, Some(Frame::bare(Kind::Pong, 8).encode(agreed)));
        socket.send(Message::Binary(Frame::bare(Kind::Ping, 9).encode(agreed - 1))).await.unwrap();
        assert_eq!(next(&mut socket).await, None, "another format is disconnected");
    }
    for formats in [0..=0, 1..=1, 4..=4, 4..=9] {
        let answer = answer_to(&node, hello(2, 1, formats.clone())).await.unwrap();
        assert_eq!(answer[0], 0, "refused with {formats:?}");
        assert!(String::from_utf8_lossy(&answer).contains("no_common_format"), "{answer:?}");
    }
}

#[tokio::test]
async fn neighbouring_versions_understand_each_other() {
    let old = start(Local { formats: 1..=2, ..local(1) }).await;
    let new = start(local(2)).await;
    let members = [(NodeId(1), old.addr.to_string()), (NodeId(2), new.addr.to_string())];
    for (node, to) in [(&old, NodeId(2)), (&new, NodeId(1))] {
        node.peers.set_members(&members);
        connected(&node.peers).await;
        let reply = node.peers.call(to, bulk(ECHO, "hello"), CALL_LIMIT).await;
        assert_eq!(reply, Ok(Bytes::from_static(b"hello")));
    }
}

/// The words of a later version: fields that are not known yet, and a refusal that has no name here.
#[tokio::test]
async fn what_later_versions_add_to_the_handshake_is_passed_over() {
    let node = start(local(1)).await;
    let mut later = rmp_serde::to_vec_named(&serde_json::json!({
        "zone": { "name": "attic" }, "cluster_id": "c", "node_id": 2, "incarnation": 1, "feature_level": 9,
        "election_timeout_max_ms": 230, "to": 1,
    }))
    .unwrap();
    later.splice(0..0, [3, 8]);
    assert_eq!(answer_to(&node, later.into()).await.unwrap()[0], 3, "welcome");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    node.peers.set_members(&[(NodeId(2), listener.local_addr().unwrap().to_string())]);
    let (stream, _) = listener.accept().await.unwrap();
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_data()[..2], [2, 3], "oldest and newest");
    let refusal =
        serde_json::json!({ "code": "no_such_zone", "detail": "this is the attic", "advice": "go" });
    let mut refused = rmp_serde::to_vec_named(&refusal).unwrap();
    refused.insert(0, 0);
    socket.send(Message::Binary(refused.into())).await.unwrap();
    let trouble = trouble(&node.peers, "attic").await;
    assert_eq!(
        trouble,
        "refused by the peer, for a reason that this version does not know: this is the attic"
    );
}

#[tokio::test]
async fn a_body_too_large_for_a_frame_is_refused_here_and_a_message_too_large_there() {
    let (one, two) = pair().await;
    let large = Bytes::from(vec![0; MAX_BODY_BYTES + 1]);
    let refused = one.peers.call(NodeId(2), bulk(ECHO, large), CALL_LIMIT).await;
    assert_eq!(refused, Err(CallError::TooLarge(MAX_BODY_BYTES + 1)));
    let largest = Bytes::from(vec![7; MAX_BODY_BYTES]);
    let reply = one.peers.call(NodeId(2), bulk(ECHO, largest.clone()), CALL_LIMIT).await;
    assert!(reply == Ok(largest), "the largest body makes the round trip");

    let stream = TcpStream::connect(two.addr).await.unwrap();
    let mut socket = handshake::dial(stream, &local(3), NodeId(2)).await.unwrap().socket;
    // The node hangs up as soon as it has seen the length, so that sending it all may fail.
    let _ = socket.send(Message::Binary(vec![3; MAX_FRAME_BYTES + 1].into())).await;
    let ended = timeout(SILENCE_LIMIT, socket.next()).await.expect("disconnected, not ignored");
    assert!(!matches!(ended, Some(Ok(Message::Binary(_)))), "{ended:?}");
}

#[tokio::test]
async fn who_does_not_shake_hands_in_time_is_hung_up_on_and_keeps_no_peer_out() {
    let node = start(local(1)).await;
    let start = clock::now();
    let mut idle = VecDeque::new();
    for _ in 0..MAX_HANDSHAKES {
        idle.push_back(TcpStream::connect(node.addr).await.unwrap());
    }
    // The oldest is disconnected at once for each further one, whichever that is.
    for _ in 0..2 * MAX_HANDSHAKES {
        idle.push_back(TcpStream::connect(node.addr).await.unwrap());
        assert!(closes(&mut idle.pop_front().unwrap()).await);
    }
    assert!(answer_to(&node, hello(2, 1, 2..=3)).await.is_some(), "a peer is let in");
    assert!(start.elapsed() < HANDSHAKE_TIMEOUT, "it took {:?}", start.elapsed());
    for stream in &mut idle {
        assert!(closes(stream).await);
    }
    assert!(start.elapsed() < HANDSHAKE_TIMEOUT * 3, "it took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_hello_is_short() {
    let node = start(local(1)).await;
    let mut long = hello(2, 1, 2..=3).to_vec();
    long.resize(MAX_HELLO_BYTES + 1, 0);
    assert_eq!(answer_to(&node, long.into()).await, None, "it is disconnected");
}

/// Whether the other end closes the connection, without a word.
async fn closes(stream: &mut TcpStream) -> bool {
    let read = timeout(DEADLINE, stream.read(&mut [0; 64])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// A node that shakes hands and then says nothing.
async fn mute(listener: TcpListener) {
    let mut open = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        open.push(handshake::accept(stream, &local(2), &BTreeSet::new()).await);
    }
}

#[tokio::test]
async fn a_silent_peer_loses_its_connection_and_its_calls() {
    let one = start(local(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let muted = tokio::spawn(mute(listener));
    one.peers.set_members(&[(NodeId(2), addr.to_string())]);
    connected(&one.peers).await;
    let since = clock::now();
    let result = one.peers.call(NodeId(2), bulk(ECHO, "x"), CALL_LIMIT).await;
    assert_eq!(result, Err(CallError::Disconnected));
    assert!(since.elapsed() < SILENCE_LIMIT * 2, "it took {:?}", since.elapsed());
    trouble(&one.peers, "silent").await;
    muted.abort();
}
