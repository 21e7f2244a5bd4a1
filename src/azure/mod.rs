//! Azure Resource Manager (ARM): its address, tokens for it, and a client that retries and follows pages.
//!
//! This module does not know about VMs. The inventory lists with it, and Run Command starts scripts with it.
//!
//! | module | content |
//! | --- | --- |
//! | `cloud` | the addresses of Resource Manager and of the login service |
//! | `credential`, `token_fetcher` | access tokens: from where, how, and until when |
//! | `request`, `client` | one request, what an error response means, and sending with retries |
//! | `operation` | operations that continue after their response |
//! | `resource_id` | resource ids |

mod client;
mod cloud;
mod credential;
mod operation;
mod request;
mod resource_id;
#[cfg(test)]
mod tests;
mod token_fetcher;

pub use crate::http::{Deadline, Response};
pub use client::ArmClient;
pub use cloud::Cloud;
pub use credential::{AccessToken, Credential, CredentialVariables, TokenSource};
pub use operation::{ArmOperation, OperationResult};
pub use request::{ArmRequest, refusal};
pub use resource_id::{ResourceId, check_segment};
