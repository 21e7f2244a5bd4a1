//! Azure Resource Manager (ARM): where it is, tokens for it, and a client that retries and follows pages.
//!
//! Knows nothing of VMs. The inventory lists with it; whatever else talks to ARM builds on the same [`ArmClient`].

mod answer;
mod client;
mod cloud;
mod credential;
mod fetcher;
mod operation;
mod resource_id;
pub(crate) mod retry;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub use answer::Answer;
pub use client::{ArmClient, Call, Deadline};
pub use cloud::Cloud;
pub(crate) use cloud::is_loopback;
pub use credential::{AccessToken, Credential, TokenSource, Variables};
pub use operation::{Ended, Operation, Posted};
pub use resource_id::{ResourceId, check_segment};
