//! The `ringmaster` binary.

mod raft;

fn main() {}
