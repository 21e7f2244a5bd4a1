//! What every HTTP client of this crate shares.
//!
//! | module | content |
//! | --- | --- |
//! | [`address`] | server addresses: checked, compared, and shown without credentials |
//! | [`client`] | a connection pool for one server, and what is known about a request that got no response |
//! | [`retry`] | `Retry-After`, back-off, and the limits of a series of tries |
//! | [`secret`] | text that is not shown, and removing it from other text |
//! | [`tls`] | trusted certificates, CA bundles, proxies |
//! | [`token`] | bearer headers, and the claims of a JSON Web Token |
//! | [`webhook`] | posts of alerts |

pub(crate) mod address;
pub(crate) mod client;
pub(crate) mod retry;
pub(crate) mod secret;
pub(crate) mod tls;
pub(crate) mod token;
#[cfg(any(feature = "python", test))]
pub(crate) mod webhook;

pub use client::Response;
pub(crate) use client::{Client, RequestFailure, SendState};
pub use retry::Deadline;
pub use secret::Secret;
