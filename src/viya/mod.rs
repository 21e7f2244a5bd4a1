//! SAS Viya over REST: tokens, one retrying client, compute contexts, the Job Execution Service (JES) and the Workload
//! Orchestrator (WLO). Knows nothing of comparisons.

pub mod auth;
pub mod client;
pub mod clock;
pub mod contexts;
pub mod definitions;
pub mod jobs;
pub mod logs;
pub mod orchestrator;
pub mod server;
pub mod session;
pub mod submission;
pub mod watch;

#[cfg(test)]
pub(crate) mod tests;

pub use auth::{Credentials, Login};
pub use client::{ClientOptions, ViyaClient};
pub use clock::Clock;
