//! The `ringmaster` binary.
#![allow(dead_code)]

mod raft;
mod state;

fn main() {}
