//! Consensus: the only code that imports openraft.

pub mod types;
