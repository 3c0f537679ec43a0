//! What every crate that does I/O needs: the accept loop, clocks, shares of file descriptors, windows of latencies.

pub mod accept;
pub mod clock;
pub mod fd_limit;
pub mod latencies;
