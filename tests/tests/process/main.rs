//! Ringmaster from the outside: real processes, one module an area. Each test runs in a process of its own.

mod admission;
mod bad_input;
mod client_locks;
mod command_line;
mod command_line_lists;
mod crash_points;
mod demo;
mod elections;
mod failover_and_registration;
mod faults;
mod leadership_transfer;
mod lock_command;
mod locks;
mod membership;
mod metrics;
mod openapi;
mod public_surface;
mod python_client;
mod readiness;
mod request_ids;
mod stream;
mod traffic;
mod traffic_configuration;
mod traffic_warnings;
mod upgrade;
