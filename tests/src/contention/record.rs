//! The records of contenders and of the resource, one JSON object a line.
//!
//! Times are of the machine's monotonic clock, which all its processes share, in nanoseconds.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

/// Nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    pub fn now() -> Moment {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock is there");
        Moment(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
    }

    pub fn after(self, duration: Duration) -> Moment {
        Moment(self.0 + duration.as_nanos() as u64)
    }
}

/// An action of a contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Deed {
    /// It may act from `at` until `until`, as far as it knows.
    Granted { lock: String, token: u64, asked: Moment, at: Moment, until: Moment },
    /// A renewal, asked for at `asked`, was acknowledged.
    Renewed { lock: String, token: u64, asked: Moment, until: Moment },
    /// It does not act any more, and says so to the cluster next.
    Released { lock: String, token: u64, at: Moment },
    /// Somebody else's token was named as the reason why it was not granted.
    Refused { lock: String, holder: Option<u64>, asked: Moment, at: Moment },
    /// The request was not answered. It may have taken effect.
    Unknown { lock: String },
}

/// A write that the resource was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub lock: String,
    pub token: u64,
    pub accepted: bool,
}

/// A file of records.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> io::Result<Journal> {
        Ok(Journal(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// A line is written whole: a process that is killed in the middle has written all of it or nothing.
    pub fn write(&mut self, record: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::other)).collect()
}
