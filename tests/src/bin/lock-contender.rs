//! A client that holds locks, writes to the resource while it believes that it may, and now and then
//! keeps a lease until it runs out. It writes down what it saw.
//!
//! Arguments: its name, the TTL in milliseconds, the lock, the resource's address, its file of deeds,
//! and the nodes' URLs.

use rand::RngExt;
use reqwest::{Client, StatusCode};
use ringmaster_common::{error::Problem, lock::LockGrant};
use ringmaster_tests::contention::record::{Deed, Journal, Moment};
use serde_json::{Value, json};
use std::{env, io, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::sleep,
};

/// How long one request waits in the queue, and how long one attempt of it may take beyond that.
const WAIT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(2);
/// How often an acquire is sent again under its key before its fate is taken for unknown.
const ATTEMPTS: usize = 8;

struct Contender {
    name: String,
    ttl: Duration,
    lock: String,
    urls: Vec<String>,
    http: Client,
    journal: Journal,
    resource: BufReader<TcpStream>,
    next: usize,
}

enum Answer {
    Grant(LockGrant),
    Done,
    Problem(Box<Problem>),
    Unknown,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let mut next = || arguments.next().expect("an argument");
    let (name, ttl, lock, resource, deeds) = (next(), next(), next(), next(), next());
    let resource = TcpStream::connect(resource).await?;
    resource.set_nodelay(true)?;
    let mut contender = Contender {
        name,
        ttl: Duration::from_millis(ttl.parse().expect("milliseconds")),
        lock,
        urls: arguments.collect(),
        http: Client::builder().connect_timeout(ANSWER).build().map_err(io::Error::other)?,
        journal: Journal::open(&PathBuf::from(deeds))?,
        resource: BufReader::new(resource),
        next: 0,
    };
    loop {
        contender.round().await?;
    }
}

impl Contender {
    async fn round(&mut self) -> io::Result<()> {
        let Some((token, mut until)) = self.acquire().await? else { return Ok(()) };
        // The random numbers are not kept over an await.
        let (writes, renews, keeps) = {
            let mut rng = rand::rng();
            (rng.random_range(1..4), rng.random_ratio(1, 3), rng.random_ratio(1, 3))
        };
        for _ in 0..writes {
            self.write(token, until).await?;
        }
        if renews {
            until = self.renew(token).await?.unwrap_or(until);
            self.write(token, until).await?;
        }
        if keeps {
            // Until the very end of what it was promised.
            while Moment::now() < until {
                self.write(token, until).await?;
            }
            return Ok(());
        }
        self.journal.write(&Deed::Released { lock: self.lock.clone(), token, at: Moment::now() })?;
        let body = json!({ "name": self.lock, "owner": self.name, "token": token });
        self.ask("release", &key(), &body, ANSWER, 3).await;
        Ok(())
    }

    /// The token, and how long it may be believed in.
    async fn acquire(&mut self) -> io::Result<Option<(u64, Moment)>> {
        let waits = rand::rng().random_ratio(3, 4);
        let wait = if waits { WAIT } else { Duration::ZERO };
        let body = json!({
            "name": self.lock, "owner": self.name, "ttl_ms": self.ttl.as_millis() as u64,
            "wait_ms": wait.as_millis() as u64
        });
        let asked = Moment::now();
        match self.ask("acquire", &key(), &body, wait + ANSWER, ATTEMPTS).await {
            Answer::Grant(grant) => {
                // The request may have waited, or been sent more than once: only a renewal shows that.
                let token = grant.token.0;
                let renewal = Moment::now();
                let body = json!({
                    "name": self.lock, "owner": self.name, "token": token, "ttl_ms": self.ttl.as_millis() as u64
                });
                let Answer::Grant(_) = self.ask("renew", &key(), &body, ANSWER, 2).await else {
                    self.journal.write(&Deed::Unknown { lock: self.lock.clone() })?;
                    return Ok(None);
                };
                let until = renewal.after(self.ttl);
                let at = Moment::now();
                self.journal.write(&Deed::Granted { lock: self.lock.clone(), token, asked, at, until })?;
                Ok(Some((token, until)))
            }
            Answer::Problem(problem) if problem.code == "lock_held" => {
                let holder = problem.holder.map(|holder| holder.token.0);
                let at = Moment::now();
                self.journal.write(&Deed::Refused { lock: self.lock.clone(), holder, asked, at })?;
                sleep(self.ttl / 4).await;
                Ok(None)
            }
            _ => {
                self.journal.write(&Deed::Unknown { lock: self.lock.clone() })?;
                Ok(None)
            }
        }
    }

    async fn renew(&mut self, token: u64) -> io::Result<Option<Moment>> {
        let asked = Moment::now();
        let body = json!({
            "name": self.lock, "owner": self.name, "token": token, "ttl_ms": self.ttl.as_millis() as u64
        });
        let Answer::Grant(_) = self.ask("renew", &key(), &body, ANSWER, 1).await else { return Ok(None) };
        let until = asked.after(self.ttl);
        self.journal.write(&Deed::Renewed { lock: self.lock.clone(), token, asked, until })?;
        Ok(Some(until))
    }

    /// Writes if it believes that it may, some work later. In between it may be paused.
    async fn write(&mut self, token: u64, until: Moment) -> io::Result<()> {
        if Moment::now() >= until {
            return Ok(());
        }
        sleep(self.ttl / 10).await;
        self.resource.get_mut().write_all(format!("{} {token}\n", self.lock).as_bytes()).await?;
        let mut answer = String::new();
        self.resource.read_line(&mut answer).await?;
        Ok(())
    }

    /// Asks one node after the other, under one key.
    async fn ask(
        &mut self,
        what: &str,
        key: &str,
        body: &Value,
        within: Duration,
        attempts: usize,
    ) -> Answer {
        for _ in 0..attempts {
            let url = format!("{}/v1/locks/{what}", self.urls[self.next % self.urls.len()]);
            let request = self.http.post(url).header("idempotency-key", key).json(body).timeout(within);
            let Ok(response) = request.send().await else {
                self.next += 1;
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let status = response.status();
            let Ok(bytes) = response.bytes().await else { continue };
            if status == StatusCode::NO_CONTENT {
                return Answer::Done;
            }
            if status.is_success() {
                return serde_json::from_slice(&bytes).map_or(Answer::Unknown, Answer::Grant);
            }
            if !status.is_server_error() {
                return serde_json::from_slice(&bytes).map_or(Answer::Unknown, Answer::Problem);
            }
            self.next += 1;
            sleep(Duration::from_millis(20)).await;
        }
        Answer::Unknown
    }
}

fn key() -> String {
    format!("{:032x}", rand::random::<u128>())
}
