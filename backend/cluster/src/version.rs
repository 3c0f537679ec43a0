//! What this version can do.
//!
//! A cluster has a replicated feature level: what all of its members can do. The leader raises it once
//! every member has said that it can do more, so a cluster is upgraded node by node, and what only
//! the new version understands is not written into the log before the last of them runs it. There is
//! no way back: a node of an older version that meets a higher level stops, and says why.
//!
//! So formats change: a version reads the older ones as well, and
//! - what goes into the log, and snapshots of it, are written as the cluster's level says ([`Formats`]);
//! - a connection has the newest format that both of its ends speak ([`PEER_FORMATS`]).
//!
//! The build feature `next-version` plays the version after this one, for the tests of that: each of its
//! formats is one higher, and is otherwise the same.

use serde::Deserialize;
use std::{io, ops::RangeInclusive};

/// The feature level of this version. It grows with each command, event or format that older versions
/// do not understand; what is new is used where the cluster's level is high enough.
pub const FEATURE_LEVEL: u32 = if cfg!(feature = "next-version") { 3 } else { 2 };

/// The formats of frames that this version speaks with peers. Those of the version before it are always
/// among them: a cluster is upgraded node by node.
pub const PEER_FORMATS: RangeInclusive<u8> = 1..=if cfg!(feature = "next-version") { 2 } else { 1 };

/// The formats of what every member has to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats {
    pub record: u16,
    pub snapshot: u16,
}

impl Formats {
    /// The newest that this version reads. It reads all before them, too.
    pub const NEWEST: Formats = Formats::at(FEATURE_LEVEL);

    /// What is written in a cluster of this feature level.
    pub const fn at(feature_level: u32) -> Formats {
        if cfg!(feature = "next-version") && feature_level >= FEATURE_LEVEL {
            Formats { record: 2, snapshot: 2 }
        } else {
            Formats { record: 1, snapshot: 1 }
        }
    }
}

/// Refuses to go on where the cluster can do more than this version.
pub fn check(cluster_level: u32) -> io::Result<()> {
    if cluster_level <= FEATURE_LEVEL {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the cluster is at feature level {cluster_level}, and this version goes up to {FEATURE_LEVEL}; run the \
         version that the other nodes run"
    )))
}

/// What only a newer version can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("format {found}, and this version reads up to {newest}")]
pub struct UnknownFormat {
    pub found: u16,
    pub newest: u16,
}

/// The one field that MessagePack with named fields has in all its formats. It is read before anything
/// else is: the other fields of a newer format may be others.
pub fn format_of(bytes: &[u8]) -> Result<u16, rmp_serde::decode::Error> {
    #[derive(Deserialize)]
    struct AnyFormat {
        format: u16,
    }
    rmp_serde::from_slice(bytes).map(|AnyFormat { format }| format)
}

pub fn check_format(found: u16, newest: u16) -> Result<(), UnknownFormat> {
    if found <= newest { Ok(()) } else { Err(UnknownFormat { found, newest }) }
}
