//! AutoSys: the events that it accepts, and the transports that send them.
//!
//! [`event`] maps a status of the ledger to an event, and [`transport`] has the ways to send events. `crate::delivery`
//! decides which events to send.

pub mod event;
pub mod transport;

pub use event::{Event, JobName, Mapping, is_set_by_autosys};
pub use transport::callable::{Callable, SEND_TIMEOUT};
pub(crate) use transport::find_program;
pub use transport::rehearsal::Rehearsal;
pub use transport::run_command::{RunCommand, RunCommandOptions};
pub use transport::sendevent::{SendEvent, SendEventOptions};
#[cfg(feature = "ssh")]
pub use transport::ssh::{Ssh, SshOptions};
pub use transport::web_services::{EventNames, WebCredentials, WebServices, WebServicesOptions};
pub use transport::{Delivery, Gate, SendOutcome, SendResult, Transport};
