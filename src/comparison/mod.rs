//! Compares how SAS Viya runs the same jobs in different compute contexts, with the Workload Orchestrator's own account
//! as evidence. Server-side phases and client-side time are never mixed.

pub mod analysis;
pub mod arms;
pub mod correlate;
pub mod durations;
pub mod history;
pub mod journal;
pub mod names;
pub mod options;
pub mod plan;
pub mod progress;
pub mod record;
pub mod result;
pub mod runner;
pub mod statistics;
pub mod table;
pub mod warnings;

mod aftermath;
mod follow;
mod halt;
mod observed;
mod rounds;

pub use arms::{Arm, Arms, Mode};
pub use correlate::Correlation;
pub use options::{JobOrder, RunnerOptions};
pub use plan::JobConfig;
pub use progress::{Progress, ProgressEvent};
pub use result::ComparisonResult;
pub use runner::ViyaComparisonRunner;
pub use warnings::Warning;
