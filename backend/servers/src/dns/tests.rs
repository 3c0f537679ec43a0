//! The whole server, over real sockets.

use super::*;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use ringmaster_common::{
    Timestamp,
    id::{NodeId, Revision},
    traffic::upstream::{Endpoint, EndpointSpec, Upstream, UpstreamSpec},
};
use ringmaster_net::supervisor::Supervisor;
use ringmaster_proxy::Settings;
use std::{net::SocketAddr, str::FromStr};

/// How long a response may take.
const SOON: Duration = Duration::from_secs(5);
/// How long to wait for a response that must not come.
const BRIEFLY: Duration = Duration::from_millis(200);

fn upstream(name: &str, addrs: &[String]) -> Upstream {
    let endpoint = |(nth, addr): (usize, &String)| {
        let spec = EndpointSpec { id: format!("e{nth}"), addr: addr.clone(), weight: 2 };
        Endpoint::new(&spec, Timestamp::UNIX_EPOCH)
    };
    let endpoints = addrs.iter().enumerate().map(endpoint).collect();
    Upstream {
        name: name.to_owned(),
        config: UpstreamSpec::default().with_endpoints(endpoints),
        primary: None,
        version: Revision(1),
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "ops".to_owned(),
    }
}

/// A server whose proxy knows a service of two endpoints, and one of many.
async fn serving() -> SocketAddr {
    let settings =
        Settings { node: NodeId(1), listen: None, data_dir: None, workers: Some(1), connections: 100 };
    let proxy = Proxy::start(settings, &Supervisor::new()).unwrap();
    let web = upstream("web", &["127.0.0.1:9001".to_owned(), "[2001:db8::1]:9002".to_owned()]);
    let many: Vec<_> = (1..=200).map(|nth| format!("10.0.0.{nth}:80")).collect();
    proxy.set_table([&web, &upstream("many", &many)].into_iter(), [].into_iter());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(addr).await.unwrap();
    tokio::spawn(serve(udp, tcp, proxy));
    addr
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut question = Message::new(9, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    question.to_vec().unwrap()
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(question).await.unwrap();
    let mut answer = [0; 2048];
    let patience = if question.len() > 12 { SOON } else { BRIEFLY };
    let len = timeout(patience, socket.recv(&mut answer)).await.ok()?.unwrap();
    Some(Message::from_vec(&answer[..len]).unwrap())
}

async fn over_tcp(stream: &mut TcpStream, question: &[u8]) -> io::Result<Message> {
    stream.write_u16(question.len().try_into().unwrap()).await?;
    stream.write_all(question).await?;
    let reading = async {
        let mut answer = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(SOON, reading).await??;
    Ok(Message::from_vec(&answer).unwrap())
}

/// Sorted, because the order is random.
fn data(answer: &Message) -> Vec<String> {
    let mut data: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    data
}

#[tokio::test]
async fn udp_and_tcp_get_the_same_responses() {
    let server = serving().await;
    // One connection takes several queries.
    let mut stream = TcpStream::connect(server).await.unwrap();
    for (name, kind, code, expected) in [
        ("web.upstream.ringmaster.", RecordType::A, ResponseCode::NoError, &["127.0.0.1"][..]),
        ("web.upstream.ringmaster.", RecordType::AAAA, ResponseCode::NoError, &["2001:db8::1"]),
        (
            "_web._tcp.ringmaster.",
            RecordType::SRV,
            ResponseCode::NoError,
            &["0 65535 9001 e0.web.upstream.ringmaster.", "0 65535 9002 e1.web.upstream.ringmaster."],
        ),
        ("e1.web.upstream.ringmaster.", RecordType::AAAA, ResponseCode::NoError, &["2001:db8::1"]),
        ("missing.upstream.ringmaster.", RecordType::A, ResponseCode::NXDomain, &[]),
        ("example.org.", RecordType::A, ResponseCode::Refused, &[]),
    ] {
        let question = question(name, kind);
        let responses = [
            over_udp(server, &question).await.expect("an answer by UDP"),
            over_tcp(&mut stream, &question).await.expect("an answer by TCP"),
        ];
        for answer in responses {
            assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, code), "{name} {kind}");
            assert_eq!(data(&answer), expected, "{name} {kind}");
        }
    }
}

#[tokio::test]
async fn a_truncated_response_is_complete_over_tcp() {
    let server = serving().await;
    let question = question("many.upstream.ringmaster.", RecordType::A);
    let short = over_udp(server, &question).await.expect("an answer");
    assert!(short.metadata.truncation && (20..200).contains(&short.answers.len()));
    let mut stream = TcpStream::connect(server).await.unwrap();
    let whole = over_tcp(&mut stream, &question).await.unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 200);
}

#[tokio::test]
async fn a_malformed_query_affects_only_its_sender() {
    let server = serving().await;
    for malformed in [&b""[..], b"x", &[0xff; 12]] {
        assert!(over_udp(server, malformed).await.is_none(), "{malformed:?} is not answered");
    }
    // Over TCP it ends the connection, also if its length is above the maximum.
    for malformed in [&b"\0\x04nope"[..], b"\xff\xff"] {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(malformed).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("it is closed");
        // A reset is an end, too.
        drop(ended);
        assert!(rest.is_empty());
    }
    let fine = question("web.upstream.ringmaster.", RecordType::A);
    assert_eq!(data(&over_udp(server, &fine).await.expect("it continues")), ["127.0.0.1"]);
    let mut stream = TcpStream::connect(server).await.unwrap();
    assert_eq!(data(&over_tcp(&mut stream, &fine).await.unwrap()), ["127.0.0.1"]);
}
