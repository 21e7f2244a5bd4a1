//! Compares how SAS Viya runs the same jobs in different compute contexts, with the Workload Orchestrator's metrics as
//! evidence. Server-side phases and client-side time are never mixed.
//!
//! | step | module |
//! | --- | --- |
//! | what to compare | [`options`], [`arms`], [`job_configs`], [`job_durations`] |
//! | a run | [`runner`], `rounds` (every arm runs all jobs), `follow` (one job), `run_control` (when a run ends early, its progress) |
//! | what happened | [`journal`] (to resume a run), [`records`], [`correlate`] (orchestrator entries), `job_files` (logs) |
//! | the figures | [`analysis`] |
//! | the result | [`result`] (JSON), [`table`] (Arrow), [`history`] (runs in a Delta table) |

pub mod analysis;
pub mod arms;
pub mod correlate;
pub mod history;
pub mod job_configs;
pub mod job_durations;
pub mod journal;
pub mod options;
pub mod records;
pub mod result;
pub mod runner;
pub mod statistics;
pub mod table;

mod files;
mod follow;
mod job_files;
mod rounds;
mod run_control;

pub use arms::{Arm, Arms, SubmissionMode};
pub use options::{JobOrder, RunnerOptions};
pub use result::ComparisonResult;
pub use run_control::{ProgressEvent, ProgressListener};
pub use runner::ViyaComparisonRunner;
