//! One Redis process that syncs each write to disk, and the two commands that its users lock with.

use nix::unistd::Pid;
use ringmaster_tests::{
    SOON, eventually,
    process::{Process, free_ports},
};
use std::{path::Path, process::Command};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// Deletes the key if it still holds this value.
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

#[derive(Debug)]
pub struct Redis {
    process: Process,
    pub host: String,
    _dir: TempDir,
}

impl Redis {
    pub async fn start(binary: &Path) -> Result<Redis, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let [port] = free_ports();
        let mut command = Command::new(binary);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--dir", &dir.path().display().to_string()]);
        let process = Process::start(&mut command, &dir.path().join("redis.log"));
        let host = format!("127.0.0.1:{port}");
        eventually("redis to listen", SOON, async || {
            TcpStream::connect(&host).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        Ok(Redis { process, host, _dir: dir })
    }

    pub fn pids(&self) -> Vec<Pid> {
        vec![self.process.pid()]
    }
}

/// A connection of one client.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub async fn open(host: &str) -> Result<Connection, String> {
        let stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Connection(BufReader::new(stream)))
    }

    pub async fn acquire(&mut self, name: &str, value: &str) -> Result<bool, String> {
        Ok(self.call(&["SET", name, value, "NX", "PX", "30000"]).await? == "+OK")
    }

    pub async fn release(&mut self, name: &str, value: &str) -> Result<bool, String> {
        Ok(self.call(&["EVAL", RELEASE, "1", name, value]).await? == ":1")
    }

    async fn call(&mut self, words: &[&str]) -> Result<String, String> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let answer = async {
            self.0.get_mut().write_all(request.as_bytes()).await?;
            let mut line = String::new();
            self.0.read_line(&mut line).await?;
            if let Some(length) =
                line.strip_prefix('$').and_then(|length| length.trim().parse::<usize>().ok())
            {
                self.0.read_exact(&mut vec![0; length + 2]).await?;
            }
            Ok::<_, std::io::Error>(line.trim_end().to_owned())
        };
        answer.await.map_err(|error| error.to_string())
    }
}
