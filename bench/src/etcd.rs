//! Three etcd processes on loopback, with their defaults.

use crate::{
    http::{Ask, Connection, Protocol},
    load::Target,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
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
    Err("nobody leads".to_owned())
}

fn put_by_json(key: &str, value: &str) -> Ask {
    let body = json!({ "key": BASE64_STANDARD.encode(key), "value": BASE64_STANDARD.encode(value) });
    Ask { method: Method::POST, path: "/v3/kv/put".to_owned(), body: body.to_string().into() }
}

/// `PutRequest { key = 1, value = 2 }`, both of them bytes, in gRPC's frame.
fn put_by_grpc(key: &str, value: &str) -> Ask {
    let mut message = BytesMut::new();
    for (field, bytes) in [(1u8, key), (2, value)] {
        message.put_u8(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(bytes.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let body: Bytes = frame.freeze();
    Ask { method: Method::POST, path: "/etcdserverpb.KV/Put".to_owned(), body }
}
