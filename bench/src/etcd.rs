//! Three etcd processes on loopback, with their defaults.

use crate::{
    http::{Ask, Connection, Protocol},
    load::Target,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hyper::Method;
use nix::unistd::Pid;
use ringmaster_tests::{
    SOON, eventually,
    process::{Process, free_ports},
};
use serde_json::{Value, json};
use std::{path::Path, process::Command};
use tempfile::TempDir;

#[derive(Debug)]
pub struct Etcd {
    processes: Vec<Process>,
    /// `host:port` of the leader.
    leader: String,
    _dir: TempDir,
}

impl Etcd {
    pub async fn start(binary: &Path) -> Result<Etcd, String> {
        if !binary.exists() {
            return Err(format!("{} is not there", binary.display()));
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let ports: [u16; 6] = free_ports();
        let (clients, peers) = ports.split_at(3);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let members: Vec<String> =
            peers.iter().enumerate().map(|(n, port)| format!("e{n}={}", url(*port))).collect();
        let mut processes = Vec::new();
        for (n, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let mut command = Command::new(binary);
            command
                .args(["--name", &format!("e{n}"), "--log-level", "error"])
                .args(["--data-dir", &dir.path().join(format!("e{n}")).display().to_string()])
                .args(["--listen-client-urls", &url(*client), "--advertise-client-urls", &url(*client)])
                .args(["--listen-peer-urls", &url(*peer), "--initial-advertise-peer-urls", &url(*peer)])
                .args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            processes.push(Process::start(&mut command, &dir.path().join(format!("e{n}.log"))));
        }
        let hosts: Vec<String> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let leader = eventually("etcd to elect a leader", SOON, async || leader(&hosts).await).await;
        Ok(Etcd { processes, leader, _dir: dir })
    }

    pub fn pids(&self) -> Vec<Pid> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// `host:port` of the leader.
    pub fn leader(&self) -> &str {
        &self.leader
    }

    /// The protocol of its own clients.
    pub fn grpc(&self) -> Target {
        Target { host: self.leader.clone(), protocol: Protocol::Grpc, ask: put_by_grpc }
    }

    /// Its gateway, which costs it more.
    pub fn json(&self) -> Target {
        Target { host: self.leader.clone(), protocol: Protocol::Http1, ask: put_by_json }
    }
}

async fn leader(hosts: &[String]) -> Result<String, String> {
    for host in hosts {
        let mut connection = Connection::open(Protocol::Http1, host).await?;
        let path = "/v3/maintenance/status".to_owned();
        let (_, body) = connection.send(Ask { method: Method::POST, path, body: "{}".into() }).await?;
        let status: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let leader = status["leader"].as_str().filter(|leader| *leader != "0");
        if leader.is_some() && leader == status["header"]["member_id"].as_str() {
            return Ok(host.clone());
        }
    }
    Err("there is no leader".to_owned())
}

fn put_by_json(key: &str, value: &str) -> Ask {
    let body = json!({ "key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(value) });
    Ask { method: Method::POST, path: "/v3/kv/put".to_owned(), body: body.to_string().into() }
}

/// `PutRequest { key = 1, value = 2 }`, both of them bytes.
fn put_by_grpc(key: &str, value: &str) -> Ask {
    let mut message = Message::default();
    message.bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
    message.ask("/etcdserverpb.KV/Put")
}

/// A client of its lock service: one lease for all of its locks, as etcd's own clients do.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    lease: u64,
}

impl Session {
    /// `host` is that of the leader.
    pub async fn open(host: &str) -> Result<Session, String> {
        let mut connection = Connection::open(Protocol::Grpc, host).await?;
        let mut grant = Message::default();
        // `LeaseGrantRequest { TTL = 1 }` → `LeaseGrantResponse { header = 1, ID = 2 }`
        grant.number(1, 600);
        let (granted, answer) = connection.send(grant.ask("/etcdserverpb.Lease/LeaseGrant")).await?;
        let lease = field(&answer, 2).and_then(|field| field.number).filter(|_| granted);
        Ok(Session { connection, lease: lease.ok_or("etcd granted no lease")? })
    }

    /// The key by which it is released.
    pub async fn lock(&mut self, name: &str) -> Result<Option<Bytes>, String> {
        let mut lock = Message::default();
        // `LockRequest { name = 1, lease = 2 }` → `LockResponse { header = 1, key = 2 }`
        lock.bytes(1, name.as_bytes()).number(2, self.lease);
        let (locked, answer) = self.connection.send(lock.ask("/v3lockpb.Lock/Lock")).await?;
        Ok(field(&answer, 2).map(|field| field.bytes).filter(|_| locked))
    }

    pub async fn unlock(&mut self, key: &[u8]) -> Result<bool, String> {
        let mut unlock = Message::default();
        unlock.bytes(1, key);
        Ok(self.connection.send(unlock.ask("/v3lockpb.Lock/Unlock")).await?.0)
    }
}

/// A message of Protocol Buffers, as far as it is needed here.
#[derive(Debug, Default)]
struct Message(BytesMut);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }

    fn number(&mut self, field: u8, value: u64) -> &mut Message {
        self.0.put_u8(field << 3);
        self.varint(value);
        self
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) -> &mut Message {
        self.0.put_u8(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.put_slice(bytes);
        self
    }

    /// A unary call, in gRPC's frame.
    fn ask(self, path: &str) -> Ask {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(self.0.len() as u32);
        frame.put_slice(&self.0);
        Ask { method: Method::POST, path: path.to_owned(), body: frame.freeze() }
    }
}

#[derive(Debug, Default)]
struct Field {
    number: Option<u64>,
    bytes: Bytes,
}

/// A field of the message in a gRPC frame.
fn field(frame: &Bytes, wanted: u64) -> Option<Field> {
    let mut rest = frame.slice(5.min(frame.len())..);
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let found = match tag & 7 {
            0 => Field { number: Some(varint(&mut rest)?), ..Field::default() },
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                if length > rest.len() {
                    return None;
                }
                Field { bytes: rest.split_to(length), ..Field::default() }
            }
            _ => return None,
        };
        if tag >> 3 == wanted {
            return Some(found);
        }
    }
    None
}

fn varint(bytes: &mut Bytes) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.first()?;
        bytes.advance(1);
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
