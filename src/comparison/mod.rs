//! Compares how SAS Viya runs the same jobs in different compute contexts, with the Workload Orchestrator's own account
//! as evidence. Server-side phases and client-side time are never mixed.

pub mod arms;
pub mod correlate;
pub mod names;
pub mod plan;
pub mod progress;
pub mod record;
pub mod result;
pub mod runner;
pub mod statistics;
pub mod table;
pub mod warnings;

mod follow;

pub use arms::{Arm, Arms, Mode};
pub use correlate::Correlation;
pub use plan::JobConfig;
pub use progress::{Progress, ProgressEvent};
pub use result::ComparisonResult;
pub use runner::{RunnerOptions, ViyaComparisonRunner};
pub use warnings::Warning;
