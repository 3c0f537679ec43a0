//! What every crate that does I/O needs: the accept loop, clocks, supervised tasks, shares of file descriptors, windows
//! of latencies, flap damping, addresses that nothing connects to.

pub mod accept;
pub mod clock;
pub mod fd_limit;
pub mod flap_damper;
pub mod forbidden;
pub mod histogram;
pub mod latencies;
pub mod supervisor;
