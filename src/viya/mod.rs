//! SAS Viya over REST. This module does not know about comparisons.
//!
//! | module | content |
//! | --- | --- |
//! | [`auth`] | logins: where tokens come from, and how they are renewed and stored |
//! | [`client`] | one client with the token, retries, errors as text, and pages |
//! | [`clock`] | the server's seconds |
//! | [`server`] | which SAS Viya is used when a call does not name one |
//! | [`session`] | one user at one SAS Viya |
//! | [`contexts`], [`definitions`] | compute contexts and job definitions |
//! | [`submission`], [`jobs`], [`watch`], [`logs`] | the Job Execution Service (JES) |
//! | [`orchestrator`] | the Workload Orchestrator (WLO) |
//! | [`json`] | what JSON bodies of SAS services have in common |

pub mod auth;
pub mod client;
pub mod clock;
pub mod contexts;
pub mod definitions;
pub mod jobs;
pub mod json;
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
