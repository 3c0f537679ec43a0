//! The data of a node on disk: the journal of its Raft groups, files that are written whole or not at all,
//! and the directory that holds them.

pub mod atomic_file;
pub mod data_dir;
pub mod journal;
mod layout;
pub mod replacement;
