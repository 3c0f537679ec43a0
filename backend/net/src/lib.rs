//! What every room that touches the world needs: clocks, shares of file descriptors, windows of latencies.

pub mod clock;
pub mod fd_limit;
pub mod latencies;
